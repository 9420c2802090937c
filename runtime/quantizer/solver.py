"""Which type for which tensor, so that the loss is least and the size within a limit: a multiple-choice knapsack.

The items are taken one after the other, and the partial mixes that can still win are kept: those that no other beats in
both size and loss, and whose loss plus the least that the remaining items can cost (exact for a mix of fractions, a
linear program that sorting solves) is below that of the best whole mix known. That is exact up to `_TOLERANCE`, unless
so many partial mixes remain that the least promising ones must go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TOLERANCE = 1e-5  # of the loss: far below what the losses themselves are known to
_MAX_PARTIAL = 20_000
_MAX_STEPS = 4_000_000  # partial mixes over all items, for the memory of the way back


def solve(sizes: Sequence[Ints], losses: Sequence[Doubles], limit: int) -> list[int]:
    """Picks one option of each item.

    Args:
        sizes: per item, int64 (n_options,).
        losses: per item, float64 (n_options,), finite and >= 0.
        limit: what the sizes may add up to.

    Returns:
        The index of the option of each item.

    Raises:
        ValueError: even the smallest options are too large.
    """
    if sum(int(item.min()) for item in sizes) > limit:
        raise ValueError("the smallest options are larger than the limit")
    if not sizes:
        return []
    items = [_Item.of(size, loss) for size, loss in zip(sizes, losses, strict=True)]
    order = sorted(range(len(items)), key=lambda index: -float(np.ptp(items[index].losses)))
    found = _search([items[index] for index in order], limit)
    picked = [0] * len(items)
    for index, option in zip(order, found, strict=True):
        picked[index] = int(items[index].options[option])
    return picked


@dataclass(frozen=True)
class _Item:
    """The options of an item that make sense, by size; the loss falls from one to the next."""

    options: Ints
    sizes: Ints
    losses: Doubles
    hull: Ints  # those on the convex hull, the only ones that a mix of fractions uses

    @staticmethod
    def of(sizes: Ints, losses: Doubles) -> _Item:
        by_size = np.lexsort((losses, sizes))
        best = np.minimum.accumulate(losses[by_size])
        kept = by_size[np.r_[True, best[1:] < best[:-1]]]
        return _Item(kept, sizes[kept], losses[kept], _hull(sizes[kept], losses[kept]))


def _hull(sizes: Ints, losses: Doubles) -> Ints:
    kept: list[int] = []
    for index in range(len(sizes)):
        while len(kept) > 1 and _is_above(kept[-1], kept[-2], index, sizes, losses):
            kept.pop()
        kept.append(index)
    return np.array(kept, np.int64)


def _is_above(middle: int, left: int, right: int, sizes: Ints, losses: Doubles) -> bool:
    rise = (losses[middle] - losses[left]) * float(sizes[right] - sizes[left])
    return bool(rise >= (losses[right] - losses[left]) * float(sizes[middle] - sizes[left]))


class _Relaxed:
    """The steps from each item's smallest option up its hull, the most useful per byte first."""

    def __init__(self, items: Sequence[_Item]) -> None:
        owner, step_sizes, gains = [], [], []
        for index, item in enumerate(items):
            owner.append(np.full(len(item.hull) - 1, index))
            step_sizes.append(np.diff(item.sizes[item.hull]))
            gains.append(-np.diff(item.losses[item.hull]))
        self.owner, size, gain = (np.concatenate(parts) for parts in (owner, step_sizes, gains))
        order = np.argsort(-gain / size, kind="stable")
        self.owner, self.sizes, self.gains = self.owner[order], size[order], gain[order]

    def gain(self, first: int, room: Ints) -> Doubles:
        """The most that items from `first` on can gain over their smallest options in `room` more bytes."""
        used = self.owner >= first
        sizes = np.r_[0, np.cumsum(self.sizes[used])]
        gains = np.r_[0, np.cumsum(self.gains[used])]
        found: Doubles = np.interp(room, sizes, gains)
        return found


def _greedy(items: Sequence[_Item], relaxed: _Relaxed, limit: int) -> list[int]:
    """A good whole mix: all steps that fit, in order of use."""
    room = limit - sum(int(item.sizes[0]) for item in items)
    n_steps = [0] * len(items)
    stopped: set[int] = set()
    for owner, step in zip(relaxed.owner.tolist(), relaxed.sizes.tolist(), strict=True):
        if owner not in stopped and step <= room:
            n_steps[owner] += 1
            room -= step
        else:
            stopped.add(owner)  # the steps after the one left out do not apply
    return [int(item.hull[n]) for item, n in zip(items, n_steps, strict=True)]


def _search(items: Sequence[_Item], limit: int) -> list[int]:
    relaxed = _Relaxed(items)
    whole = _greedy(items, relaxed, limit)
    good_enough = (1 - _TOLERANCE) * sum(float(item.losses[n]) for item, n in zip(items, whole, strict=True))
    n_kept = max(500, min(_MAX_PARTIAL, _MAX_STEPS // len(items)))
    smallest = np.r_[np.cumsum([item.sizes[0] for item in items][::-1])[::-1], 0]
    weakest = np.r_[np.cumsum([item.losses[0] for item in items][::-1])[::-1], 0.0]
    size, loss = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[Ints, Ints]] = []
    for index, item in enumerate(items):
        size = (size[:, None] + item.sizes).reshape(-1)
        loss = (loss[:, None] + item.losses).reshape(-1)
        room = limit - size - int(smallest[index + 1])
        bound = loss + weakest[index + 1] - relaxed.gain(index + 1, np.maximum(room, 0))
        kept = np.flatnonzero((room >= 0) & (bound < good_enough))
        if not kept.size:
            return whole
        kept = _promising(kept, size, loss, bound, n_kept)
        steps.append((kept // len(item.sizes), kept % len(item.sizes)))
        size, loss = size[kept], loss[kept]
    return _way_back(steps, int(loss.argmin()))


def _promising(kept: Ints, size: Ints, loss: Doubles, bound: Doubles, n_kept: int) -> Ints:
    """The partial mixes that no other beats in both size and loss; of too many those that promise most."""
    kept = kept[np.lexsort((loss[kept], size[kept]))]
    least = np.minimum.accumulate(loss[kept])
    kept = kept[np.r_[True, least[1:] < least[:-1]]]
    return kept[np.argsort(bound[kept], kind="stable")[:n_kept]]


def _way_back(steps: Sequence[tuple[Ints, Ints]], state: int) -> list[int]:
    picked = []
    for parents, options in reversed(steps):
        picked.append(int(options[state]))
        state = int(parents[state])
    return picked[::-1]
