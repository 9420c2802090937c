"""Speed of a model on this machine, against the limit that memory sets.

Generating a token reads every weight once, and the keys and values of all tokens before it, so a machine that reads B
bytes per second generates at most ``B / bytes_per_token`` tokens per second: the roof. B is measured on a buffer as
large as the weights: for a model that fits into the caches, the caches are its memory. Of a model that does not fit
into memory only the streamed weights count, and B is what the disk reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import PurePath
from statistics import mean, stdev
from time import perf_counter
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from iqrun import formats, machine, native
from iqrun.benchmark.disk import read_speed
from iqrun.native import check, ffi, lib, pointer

if TYPE_CHECKING:
    from iqrun.engine.session import Session
    from iqrun.model import Model

Progress: TypeAlias = Callable[[int, int, str], object]

MAX_READ_BYTES = 1 << 30
_READ_PASSES = 5


@dataclass(frozen=True, slots=True)
class Trial:
    """What is timed: so many tokens at once (prefill) or one by one (decode), behind `depth` tokens."""

    kind: Literal["prefill", "decode"]
    n_tokens: int
    depth: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.n_tokens}" + (f" at {self.depth}" if self.depth else "")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One test.

    Attributes:
        model: name of the file.
        test: ``prefill`` or ``decode``.
        n_tokens: tokens per repetition.
        depth: tokens in the KV cache before.
        tokens_per_second: mean over the repetitions, and stddev their standard deviation.
        threads, isa: how it was computed.
        source: where the weights are read from: ``memory``, or the ``disk`` if not all of them fit into memory.
        weight_bytes_per_token: bytes of weights read from there to generate a token.
        kv_bytes_per_token: bytes of keys and values read to generate a token, on average over the test; 0 for a disk.
        read_bandwidth: bytes per second that `threads` threads read from a buffer as large as the weights, or that the
            disk reads.
        roof: ``read_bandwidth / (weight_bytes_per_token + kv_bytes_per_token)``, in tokens per second; None for
            prefill, which reads the weights once for many tokens.
        roof_share: decode speed over `roof`; None for prefill.
    """

    model: str
    test: str
    n_tokens: int
    depth: int
    tokens_per_second: float
    stddev: float
    threads: int
    isa: str
    source: Literal["memory", "disk"]
    weight_bytes_per_token: int
    kv_bytes_per_token: int
    read_bandwidth: float
    roof: float | None
    roof_share: float | None


def plan(n_prompt: Sequence[int] = (), n_decode: Sequence[int] = (), depths: Sequence[int] = (0,)) -> list[Trial]:
    """All tests of these sizes, each at each depth; a size of 0 is left out.

    Raises:
        ValueError: a negative number, or nothing to test.
    """
    if min([0, *n_prompt, *n_decode, *depths]) < 0:
        raise ValueError("the numbers of tokens must not be negative")
    tests = [Trial("prefill", n, depth) for depth, n in product(depths, n_prompt) if n > 0]
    tests += [Trial("decode", n, depth) for depth, n in product(depths, n_decode) if n > 0]
    if not tests:
        raise ValueError("nothing to test: give a number of tokens to prefill or to decode")
    return tests


def context_of(tests: Sequence[Trial]) -> int:
    """Tokens that the context of a model must hold for these tests."""
    return max(test.depth + test.n_tokens for test in tests)


def measure(
    model: Model, tests: Sequence[Trial], *, repeats: int = 5, progress: Progress | None = None
) -> Iterator[Measurement]:
    """Times tests, each after a warm-up.

    Args:
        model: the model; its context must hold `context_of(tests)` tokens.
        tests: from `plan`.
        repeats: repetitions of each.
        progress: called as ``progress(repetitions_done, repetitions_in_all, test)``.

    Yields:
        One `Measurement` per test.

    Raises:
        ContextFullError: a test does not fit into the context.
        ValueError: no repetition.
    """
    if repeats < 1:
        raise ValueError("repeats must be at least 1")
    source = _memory(model) if _streamed_bytes(model) == 0 else _disk(model)
    with model.session() as session:
        for index, test in enumerate(tests):
            seconds = []
            for done, spent in enumerate(_times(session, test, repeats), 1):
                seconds.append(spent)
                if progress is not None:
                    progress(index * repeats + done, len(tests) * repeats, str(test))
            yield _measurement(model, test, [test.n_tokens / spent for spent in seconds], source)
            session.truncate(0)


def profile(model: Model, test: Trial) -> list[tuple[str, float]]:
    """Seconds per token of a test spent in each kind of operation, after a warm-up, largest first; layers are added up.

    Raises:
        ContextFullError: the test does not fit into the context.
    """
    ops = model.program.ops
    with model.session() as session:
        work = _warm_up(session, test)
        session.profile(True)
        work(session, test.n_tokens)
        seconds = session.profile(False)
    totals: dict[str, float] = {}
    for op, spent in zip(ops, seconds, strict=True):
        name = f"{op.kind} {', '.join(buffer.name for buffer in op.dst)}"
        totals[name] = totals.get(name, 0.0) + spent / test.n_tokens
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


@dataclass(frozen=True, slots=True)
class _Source:
    """What a token's weights come from, and how fast."""

    kind: Literal["memory", "disk"]
    bytes_per_token: int
    bandwidth: float


def _streamed_bytes(model: Model) -> int:
    return 0 if model.streaming is None else model.streaming.streamed


def _memory(model: Model) -> _Source:
    n_bytes = model.program.weight_bytes_per_token
    return _Source("memory", n_bytes, read_bandwidth(model.n_threads, n_bytes))


def _disk(model: Model) -> _Source:
    return _Source("disk", _streamed_bytes(model), read_speed(model.path))


def _measurement(model: Model, test: Trial, speeds: Sequence[float], source: _Source) -> Measurement:
    speed = mean(speeds)
    cached = _kv_bytes_per_token(model, test) if source.kind == "memory" else 0
    roof = source.bandwidth / (source.bytes_per_token + cached) if test.kind == "decode" else None
    return Measurement(
        model=PurePath(model.path).name,
        test=test.kind,
        n_tokens=test.n_tokens,
        depth=test.depth,
        tokens_per_second=speed,
        stddev=stdev(speeds) if len(speeds) > 1 else 0.0,
        threads=model.n_threads,
        isa=native.isa_name(),
        source=source.kind,
        weight_bytes_per_token=source.bytes_per_token,
        kv_bytes_per_token=cached,
        read_bandwidth=source.bandwidth,
        roof=roof,
        roof_share=None if roof is None else speed / roof,
    )


def _kv_bytes_per_token(model: Model, test: Trial) -> int:
    """Bytes of keys and values that attention reads for one token in the middle of the test."""
    per_position = sum(2 * op.n_head_kv * op.head_dim for op in model.program.ops if op.kind == "attention")
    bytes_per_value = formats.by_name(model.kv_type).bpw / 8
    return round(per_position * bytes_per_value * (test.depth + (test.n_tokens + 1) / 2))


def _times(session: Session, test: Trial, repeats: int) -> Iterator[float]:
    """Seconds of each repetition; the tokens of the depth are evaluated once, outside the time."""
    work = _warm_up(session, test)
    for _ in range(repeats):
        start = perf_counter()
        work(session, test.n_tokens)
        yield perf_counter() - start
        session.truncate(test.depth)


def _warm_up(session: Session, test: Trial) -> Callable[[Session, int], None]:
    """What evaluates the tokens of a test, done once; the session then stands at the test's depth."""
    work = _prefill if test.kind == "prefill" else _decode
    if test.depth:
        _prefill(session, test.depth)
    work(session, test.n_tokens)
    session.truncate(test.depth)
    return work


def _prefill(session: Session, n_tokens: int) -> None:
    session.evaluate(_some_tokens(session, n_tokens))


def _decode(session: Session, n_tokens: int) -> None:
    for token in _some_tokens(session, n_tokens):
        session.evaluate((token,))


def _some_tokens(session: Session, n: int) -> list[int]:
    """Always the same, spread over the vocabulary: speed does not depend on which."""
    return [int(token) for token in np.random.default_rng(1).integers(0, session.n_vocab, n)]
