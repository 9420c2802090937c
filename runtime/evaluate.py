"""How well a model predicts a text: perplexity, and divergence from a reference model.

The procedure is that of llama.cpp's ``perplexity`` tool, so that numbers can be compared: the text is cut into chunks
of `n_ctx` tokens, each evaluated on its own with BOS (where the model wants one) in place of its first token, and only
the second half of each chunk is scored, so that every prediction has at least ``n_ctx / 2`` tokens of context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, sqrt
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError

if TYPE_CHECKING:
    from iqrun.model import Model
    from iqrun.session import Session

Doubles: TypeAlias = npt.NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], None]


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
    """Result of `divergence`.

    Attributes:
        mean_kld: mean Kullback-Leibler divergence of the model from the reference, in nats per token.
        kld_stderr: its standard error.
        same_top: share of the tokens where both expect the same token most.
        model, reference: the perplexity of each.
    """

    mean_kld: float
    kld_stderr: float
    same_top: float
    model: Perplexity
    reference: Perplexity


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
    chunks = _chunks(model, text, n_ctx, max_chunks)
    losses: list[Doubles] = []
    with model.session(n_ctx=n_ctx) as session:
        for done, chunk in enumerate(chunks, 1):
            log_p = _log_probabilities(session, chunk)
            losses.append(_losses(log_p, chunk))
            if progress is not None:
                progress(done, len(chunks))
    return _perplexity(losses)


def divergence(
    model: Model,
    reference: Model,
    text: str,
    *,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """Measures how far the predictions of `model` are from those of `reference`, usually its unquantized original.

    Args:
        model: the model to judge.
        reference: a model with the same vocabulary.
        text: as in `perplexity`.
        n_ctx: as in `perplexity`.
        max_chunks: as in `perplexity`.
        progress: as in `perplexity`.

    Raises:
        IqrunError: a model computed NaN.
        ValueError: the vocabularies differ, the text is too short, or `n_ctx` too small.
    """
    chunks = _chunks(model, text, n_ctx, max_chunks)
    if not _same(chunks, _chunks(reference, text, n_ctx, max_chunks)) or model.n_vocab != reference.n_vocab:
        raise ValueError("the two models do not have the same vocabulary: they cannot be compared token by token")
    klds: list[Doubles] = []
    same: list[npt.NDArray[np.bool_]] = []
    losses: tuple[list[Doubles], list[Doubles]] = ([], [])
    with model.session(n_ctx=n_ctx) as session, reference.session(n_ctx=n_ctx) as base:
        for done, chunk in enumerate(chunks, 1):
            log_q, log_p = _log_probabilities(session, chunk), _log_probabilities(base, chunk)
            klds.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
            same.append(log_p.argmax(axis=1) == log_q.argmax(axis=1))
            losses[0].append(_losses(log_q, chunk))
            losses[1].append(_losses(log_p, chunk))
            if progress is not None:
                progress(done, len(chunks))
    mean, stderr = _mean(np.concatenate(klds))
    return Divergence(mean, stderr, float(np.concatenate(same).mean()), _perplexity(losses[0]), _perplexity(losses[1]))


def _chunks(model: Model, text: str, n_ctx: int, max_chunks: int | None) -> list[npt.NDArray[np.int64]]:
    """The text's tokens in chunks of `n_ctx`, each beginning with BOS where the model wants one."""
    if max_chunks is not None and max_chunks < 1:
        raise ValueError(f"max_chunks is {max_chunks}, but must be at least 1")
    if n_ctx < 4:
        raise ValueError(f"n_ctx is {n_ctx}, but a chunk needs at least 4 tokens")
    ids = np.asarray(model.tokenizer.encode(text, add_special=True), dtype=np.int64)
    n_chunks = len(ids) // n_ctx
    if n_chunks < 2:
        raise ValueError(f"the text has {len(ids)} tokens, but two chunks of {n_ctx} are needed: use a longer text")
    chunks = ids[: n_chunks * n_ctx].reshape(n_chunks, n_ctx).copy()
    if model.tokenizer.add_bos and model.tokenizer.bos_id is not None:
        chunks[:, 0] = model.tokenizer.bos_id
    return list(chunks[:max_chunks])


def _log_probabilities(session: Session, chunk: npt.NDArray[np.int64]) -> Doubles:
    """Log-probabilities of every token at each scored place of a chunk, shape ``(places, n_vocab)``."""
    want = np.zeros(len(chunk), np.bool_)
    want[len(chunk) // 2 : -1] = True
    session.truncate(0)
    logits = session.evaluate(chunk, want=want).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _losses(log_p: Doubles, chunk: npt.NDArray[np.int64]) -> Doubles:
    """Negative log-likelihood of the token that follows each scored place."""
    targets = chunk[len(chunk) // 2 + 1 :]
    losses = -log_p[np.arange(len(targets)), targets]
    if not np.isfinite(losses).all():
        raise IqrunError("the model computed NaN or infinite logits: the file's weights are damaged")
    return losses


def _perplexity(losses: list[Doubles]) -> Perplexity:
    all_losses = np.concatenate(losses)
    mean, stderr = _mean(all_losses)
    return Perplexity(exp(mean), exp(mean) * stderr, len(all_losses), len(losses))


def _mean(values: Doubles) -> tuple[float, float]:
    """Mean and its standard error."""
    mean = float(values.mean())
    variance = max(float((values * values).mean()) - mean * mean, 0.0)
    return mean, sqrt(variance / (len(values) - 1)) if len(values) > 1 else 0.0


def _same(a: list[npt.NDArray[np.int64]], b: list[npt.NDArray[np.int64]]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
