"""iqrun.quantizer.solver: the knapsack."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from iqrun.quantizer import solver
from iqrun.quantizer.solver import solve

Options = list[np.ndarray]


def totals(sizes: Options, losses: Options, picked: list[int]) -> tuple[int, float]:
    size = sum(int(item[index]) for item, index in zip(sizes, picked, strict=True))
    return size, sum(float(item[index]) for item, index in zip(losses, picked, strict=True))


def by_brute_force(sizes: Options, losses: Options, limit: int) -> float:
    mixes = (totals(sizes, losses, list(mix)) for mix in itertools.product(*(range(len(item)) for item in sizes)))
    return min(loss for size, loss in mixes if size <= limit)


@pytest.mark.parametrize("seed", range(60))
def test_small_problems_are_solved_exactly(seed: int) -> None:
    """Against every possible mix: options in any order, with equal sizes, larger ones that are worse, and zeros."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, rng.integers(1, 7))
    sizes = [rng.integers(1, 40, count) for count in counts]
    losses = [rng.choice([0.0, 1.0, 0.5, *rng.random(4) ** 3], count) for count in counts]
    least, most = (sum(int(reduce(item)) for item in sizes) for reduce in (np.min, np.max))
    for limit in {least, (least + most) // 2, int(rng.integers(least, most + 1)), most, 10 * most}:
        size, loss = totals(sizes, losses, solve(sizes, losses, limit))
        assert size <= limit
        assert by_brute_force(sizes, losses, limit) == pytest.approx(loss, rel=1e-4, abs=1e-12)


def test_large_problems_are_near_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tensors, 12 types: within 0.1 % of what a mix of fractions would reach, also with few partial mixes kept."""
    rng = np.random.default_rng(1)
    bpw = np.array([2.19, 2.375, 2.69, 3.19, 3.44, 4, 4.25, 4.5, 5.25, 5.5, 6.625, 8.5])
    n_weights = rng.choice([2**20, 2**22, 11 * 2**18], 300)
    sizes = [(n * bpw / 8).astype(np.int64) for n in n_weights]
    losses = [n * rng.lognormal(0, 1.5) * 4.0**-bpw * rng.uniform(0.9, 1.1, 12) for n in n_weights]
    limit = int(n_weights.sum() * 3.5 / 8)
    items = [solver._Item.of(size, loss) for size, loss in zip(sizes, losses, strict=True)]
    room = limit - sum(int(item.sizes[0]) for item in items)
    gain = solver._Relaxed(items).gain(0, np.array([room]))
    bound = sum(float(item.losses[0]) for item in items) - float(gain[0])
    for n_kept in (20_000, 50):
        monkeypatch.setattr(solver, "_MAX_PARTIAL", n_kept)
        size, loss = totals(sizes, losses, solve(sizes, losses, limit))
        assert size <= limit
        assert bound * (1 - 1e-12) <= loss < 1.001 * bound


def test_what_cannot_be_is_refused() -> None:
    """A limit below the smallest options; nothing to choose from is no error."""
    with pytest.raises(ValueError, match="larger than the limit"):
        solve([np.array([5, 3]), np.array([4])], [np.zeros(2), np.zeros(1)], 6)
    assert solve([], [], 0) == []
