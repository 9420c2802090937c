"""Which factors: those that lose least when rows of the matrices are really encoded.

The factors of a pair are ``(mean square of the input)^(alpha / 2)``, of geometric mean 1. An alpha of 0 changes
nothing, one of 1 makes all inputs equally strong; in between, strong columns get finer steps and the others lose
little. Each alpha of a small grid is tried on rows spread over each matrix; the loss is the weighted relative error,
times the matrix's sensitivity. Where nothing helps the pair is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from iqrun.gguf import GGUFFile
from iqrun.program import Program
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.recipes import Choice
from iqrun.quantizer.rows import encode_rows, read_rows, squared_error
from iqrun.quantizer.scaling.factors import Doubles, Scaling
from iqrun.quantizer.scaling.pairs import Pair, find_pairs
from iqrun.quantizer.sensitivity import sensitivities

Floats = npt.NDArray[np.float32]

ALPHAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6)
_MAX_FACTOR = 16.0  # and its inverse: far within what fp16 scales and weights can hold
_MIN_GAIN = 0.002  # a loss that is less smaller is chance
_SAMPLE_WEIGHTS = 1 << 18  # of each matrix


def find_scaling(
    source: GGUFFile,
    program: Program,
    choices: Sequence[Choice],
    matrix: Imatrix,
    n_threads: int,
    tried: Callable[[int, int, str], object],
) -> Scaling:
    """The factors that help a model most under the types chosen for it.

    Args:
        source: the model.
        program: of the same model.
        choices: what its tensors become.
        matrix: its importance matrix.
        n_threads: threads to use.
        tried: called as ``tried(pairs_done, pairs_total, name)``; what it raises stops the search.

    Raises:
        QuantizeError: the importance matrix is another model's, or a weight is not finite.
    """
    search = _Search(source, {choice.tensor.name: choice for choice in choices}, matrix)
    pairs = find_pairs(program)
    found: list[Doubles] = []
    with ThreadPoolExecutor(n_threads, thread_name_prefix="iqrun-scaling") as pool:
        try:
            for index, values in enumerate(pool.map(search.factors, pairs)):
                found.append(values)
                tried(index + 1, len(pairs), pairs[index].consumers[0])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    kept = [(pair, values) for pair, values in zip(pairs, found, strict=True) if (values != 1).any()]
    return Scaling.of([pair for pair, _ in kept], [values for _, values in kept], source.tensors)


def factors(strength: Doubles, alpha: float) -> Doubles:
    """The factors of inputs of some mean squares; those of a column without input are 1, as nothing is known of it."""
    driven = strength > 0
    if not driven.any():
        return np.ones_like(strength)
    logs = np.log(strength, out=np.zeros_like(strength), where=driven) * (alpha / 2)
    logs[driven] -= logs[driven].mean()
    limit = np.log(_MAX_FACTOR)
    return np.exp(np.clip(logs, -limit, limit))


class _Search:
    """Tries factors on the matrices of one model."""

    def __init__(self, source: GGUFFile, choices: Mapping[str, Choice], matrix: Imatrix) -> None:
        self._source, self._choices, self._matrix = source, choices, matrix
        self._sensitivities = sensitivities(source, matrix)

    def factors(self, pair: Pair) -> Doubles:
        """The best factors of a pair, ones if none help."""
        strength = self._strength(pair)
        names = [name for name in pair.consumers if self._is_encoded(name)]
        ones = np.ones(pair.n_factors)
        if strength is None or not names:
            return ones
        candidates = [factors(strength, alpha) for alpha in ALPHAS]
        losses = np.sum([self._losses(name, pair, candidates) for name in names], axis=0)
        best = int(np.argmin(losses))
        return candidates[best] if losses[best] < (1 - _MIN_GAIN) * losses[0] else ones

    def _strength(self, pair: Pair) -> Doubles | None:
        """Mean squares behind each factor; None if nothing is known. The consumers share their input."""
        values = self._matrix.of(self._source.tensors[pair.consumers[0]])
        if values is None or not values.any():
            return None
        sums = np.bincount(pair.factor_of, values[0].astype(np.float64), pair.n_factors)
        return sums / np.bincount(pair.factor_of, minlength=pair.n_factors)

    def _is_encoded(self, name: str) -> bool:
        target = self._choices[name].target
        return target is not None and target.block_weights > 1

    def _losses(self, name: str, pair: Pair, candidates: Sequence[Doubles]) -> Doubles:
        """Of a matrix, under each of several factors."""
        info, target = self._source.tensors[name], self._choices[name].target
        assert target is not None
        count = min(info.n_rows, max(1, _SAMPLE_WEIGHTS // info.n_cols))
        rows = read_rows(self._source, info, np.unique(np.linspace(0, info.n_rows - 1, count).astype(np.int64)))
        self._source.release_rows(name, 0, info.n_rows)
        own = self._matrix.of(info)
        values = np.ones(info.n_cols) if own is None or not own.any() else own[0] / own[0].mean(dtype=np.float64)
        found = []
        for candidate in candidates:
            columns = candidate[pair.factor_of]
            scaled, importance = (rows * columns).astype(np.float32), (values / columns**2).astype(np.float32)
            error, norm = squared_error(scaled, encode_rows(scaled, target, importance, "fast")[1], importance)
            found.append(error / norm if norm > 0 else 0.0)
        return self._sensitivities.get(name, 1.0) * np.array(found)
