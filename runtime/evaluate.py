"""How well a model predicts a text: perplexity, and divergence from a base model.

The procedure is that of llama.cpp's ``perplexity`` tool, so that numbers can be compared: the text is cut into chunks
of `n_ctx` tokens, each evaluated on its own with BOS (where the model wants one) in place of its first token, and only
the second half of each chunk is scored, so that every prediction has at least ``n_ctx / 2`` tokens of context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import exp, sqrt
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError
from iqrun.saved_logits import SavedLogits

if TYPE_CHECKING:
    from iqrun.model import Model
    from iqrun.session import Session

Doubles: TypeAlias = npt.NDArray[np.float64]
Logits: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]

_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Result of `perplexity`.

    Attributes:
        ppl: exp of the mean negative log-likelihood per token.
        ppl_stderr: its standard error, from the spread of the tokens.
        n_tokens: tokens scored.
        n_chunks: chunks evaluated.
    """

    ppl: float
    ppl_stderr: float
    n_tokens: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """Result of `divergence`: how far a model is from its base, in nats per token.

    Attributes:
        mean_kld: mean Kullback-Leibler divergence of the model from the base.
        kld_stderr: its standard error.
        kld_p50, kld_p99, kld_max: median, 99th percentile and maximum over the tokens.
        same_top1: share of the tokens where both expect the same token most.
        ppl_ratio: perplexity of the model over that of the base.
        ppl_ratio_stderr: its standard error; it is small, as both are measured on the same tokens.
        model, base: the perplexity of each.
    """

    mean_kld: float
    kld_stderr: float
    kld_p50: float
    kld_p99: float
    kld_max: float
    same_top1: float
    ppl_ratio: float
    ppl_ratio_stderr: float
    model: Perplexity
    base: Perplexity


def perplexity(
    model: Model, text: str, *, n_ctx: int = 512, max_chunks: int | None = None, progress: Progress | None = None
) -> Perplexity:
    """Measures how well `model` predicts `text`.

    Args:
        model: the model.
        text: at least ``2 * n_ctx`` tokens.
        n_ctx: tokens per chunk.
        max_chunks: stop after so many chunks.
        progress: called with (chunks done, chunks in all).

    Raises:
        IqrunError: the model computed NaN.
        ValueError: the text is too short, or `n_ctx` too small.
    """
    chunks = text_chunks(model, text, n_ctx, max_chunks)
    losses: list[Doubles] = []
    with model.session(n_ctx=n_ctx) as session:
        for done, chunk in enumerate(chunks, 1):
            for logits, targets in _blocks(_logits(session, chunk), chunk):
                losses.append(_losses(_log_softmax(logits), targets))
            if progress is not None:
                progress(done, len(chunks))
    return _perplexity(np.concatenate(losses), len(chunks))


def divergence(
    model: Model,
    base: Model | SavedLogits,
    text: str,
    *,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """Measures how far the predictions of `model` are from those of `base`, usually its unquantized original.

    Args:
        model: the model to judge.
        base: a model with the same vocabulary, or what such a model predicted, read from a file.
        text: as in `perplexity`.
        n_ctx: as in `perplexity`.
        max_chunks: as in `perplexity`.
        progress: as in `perplexity`.

    Raises:
        IqrunError: a model computed NaN, or the file of logits is damaged.
        ValueError: the vocabularies or the texts differ, the text is too short, or `n_ctx` too small.
    """
    chunks = text_chunks(model, text, n_ctx, max_chunks)
    pairs = _Pairs()
    with ExitStack() as stack:
        session = stack.enter_context(model.session(n_ctx=n_ctx))
        base_of = _base(base, model, chunks, text, n_ctx, max_chunks, stack)
        for done, chunk in enumerate(chunks, 1):
            rows = _logits(session, chunk)
            for (logits, targets), (others, _) in zip(
                _blocks(rows, chunk), _blocks(base_of(done - 1), chunk), strict=True
            ):
                pairs.add(_log_softmax(logits), _log_softmax(others), targets)
            if progress is not None:
                progress(done, len(chunks))
    return pairs.result(len(chunks))


class _Pairs:
    """What is kept of each scored token: a few numbers, so that memory does not grow with the vocabulary."""

    def __init__(self) -> None:
        self._kld: list[Doubles] = []
        self._same: list[npt.NDArray[np.bool_]] = []
        self._losses: list[Doubles] = []
        self._base_losses: list[Doubles] = []

    def add(self, log_q: Doubles, log_p: Doubles, targets: Ids) -> None:
        """Log-probabilities of the model (q) and the base (p), ``(places, n_vocab)``."""
        self._losses.append(_losses(log_q, targets))
        self._base_losses.append(_losses(log_p, targets))
        self._kld.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
        self._same.append(log_p.argmax(axis=1) == log_q.argmax(axis=1))

    def result(self, n_chunks: int) -> Divergence:
        """The statistics over all tokens."""
        kld, losses, base_losses = (np.concatenate(x) for x in (self._kld, self._losses, self._base_losses))
        mean, stderr = _mean(kld)
        log_ratio, log_ratio_stderr = _mean(losses - base_losses)
        p50, p99 = (float(value) for value in np.quantile(kld, (0.5, 0.99)))
        return Divergence(
            mean_kld=mean,
            kld_stderr=stderr,
            kld_p50=p50,
            kld_p99=p99,
            kld_max=float(kld.max()),
            same_top1=float(np.concatenate(self._same).mean()),
            ppl_ratio=exp(log_ratio),
            ppl_ratio_stderr=exp(log_ratio) * log_ratio_stderr,
            model=_perplexity(losses, n_chunks),
            base=_perplexity(base_losses, n_chunks),
        )


def _base(
    base: Model | SavedLogits,
    model: Model,
    chunks: list[Ids],
    text: str,
    n_ctx: int,
    max_chunks: int | None,
    stack: ExitStack,
) -> Callable[[int], Logits]:
    """A function that gives the base's logits of a chunk, from a model or from a file."""
    if isinstance(base, SavedLogits):
        base.check_text(chunks, model.n_vocab)
        return base.chunk
    if model.n_vocab != base.n_vocab or not _same(chunks, text_chunks(base, text, n_ctx, max_chunks)):
        raise ValueError("the two models do not have the same vocabulary: they cannot be compared token by token")
    session = stack.enter_context(base.session(n_ctx=n_ctx))
    return lambda index: _logits(session, chunks[index])


def text_chunks(
    model: Model, text: str, n_ctx: int, max_chunks: int | None = None, *, min_chunks: int = 2
) -> list[Ids]:
    """The text's tokens in chunks of `n_ctx`, each beginning with BOS where the model wants one.

    Raises:
        ValueError: there are fewer than `min_chunks`, or an argument is out of range.
    """
    if max_chunks is not None and max_chunks < 1:
        raise ValueError(f"max_chunks is {max_chunks}, but must be at least 1")
    if n_ctx < 4:
        raise ValueError(f"n_ctx is {n_ctx}, but a chunk needs at least 4 tokens")
    ids = np.asarray(model.tokenizer.encode(text, add_special=True), dtype=np.int64)
    n_chunks = len(ids) // n_ctx
    if n_chunks < min_chunks:
        need = "a chunk" if min_chunks == 1 else "two chunks"
        raise ValueError(f"the text has {len(ids)} tokens, but {need} of {n_ctx} are needed: use a longer text")
    chunks = ids[: n_chunks * n_ctx].reshape(n_chunks, n_ctx).copy()
    if model.tokenizer.add_bos and model.tokenizer.bos_id is not None:
        chunks[:, 0] = model.tokenizer.bos_id
    return list(chunks[:max_chunks])


def _logits(session: Session, chunk: Ids) -> Logits:
    """Logits at each scored place of a chunk, ``(places, n_vocab)``."""
    want = np.zeros(len(chunk), np.bool_)
    want[len(chunk) // 2 : -1] = True
    session.truncate(0)
    return session.evaluate(chunk, want=want)


def _blocks(logits: Logits, chunk: Ids) -> Iterator[tuple[Logits, Ids]]:
    """A few rows of logits at a time, each with the token that follows: what is computed from them is large."""
    targets = chunk[len(chunk) // 2 + 1 :]
    n_rows = max(1, _BLOCK_VALUES // logits.shape[1])
    for first in range(0, len(targets), n_rows):
        yield logits[first : first + n_rows], targets[first : first + n_rows]


def _log_softmax(logits: Logits) -> Doubles:
    log_p = logits.astype(np.float64)
    log_p -= log_p.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p


def _losses(log_p: Doubles, targets: Ids) -> Doubles:
    """Negative log-likelihood of the tokens that follow."""
    losses = -log_p[np.arange(len(targets)), targets]
    if not np.isfinite(losses).all():
        raise IqrunError("the model computed NaN or infinite logits: the file's weights are damaged")
    return losses


def _perplexity(losses: Doubles, n_chunks: int) -> Perplexity:
    mean, stderr = _mean(losses)
    return Perplexity(exp(mean), exp(mean) * stderr, len(losses), n_chunks)


def _mean(values: Doubles) -> tuple[float, float]:
    """Mean and its standard error."""
    stderr = float(values.std()) / sqrt(len(values) - 1) if len(values) > 1 else 0.0
    return float(values.mean()), stderr


def _same(a: list[Ids], b: list[Ids]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
