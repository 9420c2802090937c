"""Speed of a model on this machine, against the limit that memory sets.

Generating a token reads every weight once, so a machine that reads B bytes per second generates at most
``B / weight_bytes_per_token`` tokens per second: the roof. B is measured on a buffer as large as the weights: for a
model that fits into the caches, the caches are its memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from iqrun import machine, native
from iqrun.native import check, ffi, lib, pointer

if TYPE_CHECKING:
    from iqrun.model import Model
    from iqrun.session import Session

MAX_READ_BYTES = 1 << 30
_READ_PASSES = 5


@dataclass(frozen=True, slots=True)
class Measurement:
    """One test.

    Attributes:
        test: ``prefill`` or ``decode``.
        n_tokens: tokens per repetition.
        tokens_per_second: mean over the repetitions, and stddev their standard deviation.
        threads, isa: how it was computed.
        weight_bytes_per_token: bytes of weights read to generate a token.
        read_bandwidth: bytes per second that `threads` threads read from a buffer of that size.
        roof_share: decode speed over ``read_bandwidth / weight_bytes_per_token``; None for prefill, which reads the
            weights once for many tokens.
    """

    test: str
    n_tokens: int
    tokens_per_second: float
    stddev: float
    threads: int
    isa: str
    weight_bytes_per_token: int
    read_bandwidth: float
    roof_share: float | None


def measure(model: Model, *, n_prompt: int = 512, n_decode: int = 128, repeats: int = 5) -> Iterator[Measurement]:
    """Measures prefill and decode speed, each after a warm-up.

    Args:
        model: the model; its context must hold the larger of both numbers.
        n_prompt: tokens of the prefill test; 0 leaves it out.
        n_decode: tokens of the decode test; 0 leaves it out.
        repeats: repetitions of each.

    Yields:
        One `Measurement` per test.

    Raises:
        ContextFullError: a test does not fit into the context.
        ValueError: a negative number, or no repetition.
    """
    if min(n_prompt, n_decode) < 0 or max(n_prompt, n_decode) == 0 or repeats < 1:
        raise ValueError("n_prompt and n_decode must not be negative nor both 0, repeats must be at least 1")
    n_bytes = model.program.weight_bytes_per_token
    bandwidth = read_bandwidth(model.n_threads, n_bytes)
    with model.session() as session:
        for test, n_tokens in (("prefill", n_prompt), ("decode", n_decode)):
            if n_tokens == 0:
                continue
            speeds = [n_tokens / seconds for seconds in _times(session, test, n_tokens, repeats)]
            speed = mean(speeds)
            yield Measurement(
                test=test,
                n_tokens=n_tokens,
                tokens_per_second=speed,
                stddev=stdev(speeds) if repeats > 1 else 0.0,
                threads=model.n_threads,
                isa=native.isa_name(),
                weight_bytes_per_token=n_bytes,
                read_bandwidth=bandwidth,
                roof_share=speed * n_bytes / bandwidth if test == "decode" else None,
            )


def profile(model: Model, *, n_decode: int = 64) -> list[tuple[str, float]]:
    """Seconds per generated token spent in each kind of operation, largest first; layers are added up."""
    ops = model.program.ops
    with model.session() as session:
        _decode(session, n_decode)
        session.profile(True)
        session.truncate(0)
        _decode(session, n_decode)
        seconds = session.profile(False)
    totals: dict[str, float] = {}
    for op, spent in zip(ops, seconds, strict=True):
        name = f"{op.kind} {', '.join(buffer.name for buffer in op.dst)}"
        totals[name] = totals.get(name, 0.0) + spent / n_decode
    return sorted(totals.items(), key=lambda item: -item[1])


def read_bandwidth(n_threads: int, n_bytes: int) -> float:
    """Bytes per second that threads read: the best of several passes over one buffer.

    Args:
        n_threads: how many read at once.
        n_bytes: size of the buffer; at most 1 GiB, and half of the free memory, are used.
    """
    limit = min(MAX_READ_BYTES, (machine.available_memory() or MAX_READ_BYTES) // 2)
    buffer = np.ones(max(1, min(n_bytes, limit)), np.uint8)
    seconds = ffi.new("double *")
    check(lib.iq_measure_read, pointer(buffer, "const void *"), buffer.size, n_threads, _READ_PASSES, seconds)
    return float(buffer.size / seconds[0])


def _times(session: Session, test: str, n_tokens: int, repeats: int) -> Iterator[float]:
    work = _prefill if test == "prefill" else _decode
    work(session, n_tokens)
    for _ in range(repeats):
        session.truncate(0)
        start = perf_counter()
        work(session, n_tokens)
        yield perf_counter() - start
    session.truncate(0)


def _prefill(session: Session, n_tokens: int) -> None:
    session.evaluate(_some_tokens(session, n_tokens))


def _decode(session: Session, n_tokens: int) -> None:
    for token in _some_tokens(session, n_tokens):
        session.evaluate((token,))


def _some_tokens(session: Session, n: int) -> list[int]:
    """Always the same, spread over the vocabulary: speed does not depend on which."""
    return [int(token) for token in np.random.default_rng(1).integers(0, session.n_vocab, n)]
