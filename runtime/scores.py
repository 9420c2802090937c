"""What predictions are worth: perplexity of one model, divergence between two, from the logits at each scored place."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.errors import IqrunError

Doubles: TypeAlias = npt.NDArray[np.float64]
Logits: TypeAlias = npt.NDArray[np.float32]
Ids: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Result of `iqrun.perplexity`.

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
    """Result of `iqrun.divergence`: how far a model is from its base, in nats per token.

    Attributes:
        mean_kld: mean Kullback-Leibler divergence of the model from the base.
        kld_stderr: its standard error.
        kld_p50, kld_p90, kld_p99, kld_p999, kld_max: percentiles (50, 90, 99, 99.9) and maximum over the tokens.
        same_top1: share of the tokens where both expect the same token most.
        same_top1_stderr: its standard error.
        ppl_ratio: perplexity of the model over that of the base.
        ppl_ratio_stderr: its standard error; it is small, as both are measured on the same tokens.
        model, base: the perplexity of each.
    """

    mean_kld: float
    kld_stderr: float
    kld_p50: float
    kld_p90: float
    kld_p99: float
    kld_p999: float
    kld_max: float
    same_top1: float
    same_top1_stderr: float
    ppl_ratio: float
    ppl_ratio_stderr: float
    model: Perplexity
    base: Perplexity


class Losses:
    """Negative log-likelihoods of the tokens that came, gathered piece by piece."""

    def __init__(self) -> None:
        self._parts: list[Doubles] = []

    def add(self, log_p: Doubles, targets: Ids) -> None:
        """Log-probabilities ``(places, n_vocab)``, and the token that came at each place.

        Raises:
            IqrunError: a value is not finite.
        """
        losses = -log_p[np.arange(len(targets)), targets]
        if not np.isfinite(losses).all():
            raise IqrunError("the model computed NaN or infinite logits: the file's weights are damaged")
        self._parts.append(losses)

    @property
    def values(self) -> Doubles:
        """All of them."""
        return np.concatenate(self._parts)

    def result(self, n_chunks: int) -> Perplexity:
        """The perplexity over all tokens."""
        losses = self.values
        mean, stderr = _mean(losses)
        return Perplexity(exp(mean), exp(mean) * stderr, len(losses), n_chunks)


class Pairs:
    """What is kept of each place that two models predicted: a few numbers, whatever the size of the vocabulary."""

    def __init__(self) -> None:
        self._kld: list[Doubles] = []
        self._same: list[npt.NDArray[np.bool_]] = []
        self._model = Losses()
        self._base = Losses()

    def add(self, log_q: Doubles, log_p: Doubles, targets: Ids) -> None:
        """Log-probabilities of the model (q) and the base (p), ``(places, n_vocab)``."""
        self._model.add(log_q, targets)
        self._base.add(log_p, targets)
        self._kld.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
        self._same.append(log_p.argmax(axis=1) == log_q.argmax(axis=1))

    def result(self, n_chunks: int) -> Divergence:
        """The statistics over all tokens."""
        kld, same = np.concatenate(self._kld), np.concatenate(self._same).astype(np.float64)
        mean_kld, kld_stderr = _mean(kld)
        same_top1, same_stderr = _mean(same)
        log_ratio, log_ratio_stderr = _mean(self._model.values - self._base.values)
        p50, p90, p99, p999 = (float(value) for value in np.quantile(kld, (0.5, 0.9, 0.99, 0.999)))
        return Divergence(
            mean_kld=mean_kld,
            kld_stderr=kld_stderr,
            kld_p50=p50,
            kld_p90=p90,
            kld_p99=p99,
            kld_p999=p999,
            kld_max=float(kld.max()),
            same_top1=same_top1,
            same_top1_stderr=same_stderr,
            ppl_ratio=exp(log_ratio),
            ppl_ratio_stderr=exp(log_ratio) * log_ratio_stderr,
            model=self._model.result(n_chunks),
            base=self._base.result(n_chunks),
        )


def log_softmax(logits: Logits) -> Doubles:
    """Log-probabilities in float64, row by row."""
    log_p = logits.astype(np.float64)
    log_p -= log_p.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p


def _mean(values: Doubles) -> tuple[float, float]:
    """Mean and its standard error."""
    stderr = float(values.std()) / sqrt(len(values) - 1) if len(values) > 1 else 0.0
    return float(values.mean()), stderr
