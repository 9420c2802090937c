"""Does a disk care what becomes of the bytes that it brings, and whether cores are busy?

    python benchmarks/direct_reads.py FILE [--seconds 60]

Reads pieces of 2 MiB past the page cache, in turns of a quarter of a second: by 1 or 4 readers that do not look at the
bytes, or add them all up; into few rooms again and again, or into so many in turn that caches have long forgotten them;
beside idle and beside computing cores. What comes of it, and why: docs/performance.md, models larger than memory.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from statistics import quantiles
from time import perf_counter

import numpy as np
import numpy.typing as npt

from iqrun.fitting.kernels import computing

_PIECE = 2 << 20
_FRESH = 64  # rooms: 128 MiB
_SPAN = 256 << 20  # of the file, so that all of it was read shortly before
_TURN = 0.25


@dataclass(frozen=True)
class Way:
    """How to read."""

    n_busy: int
    n_reader: int
    looks: bool
    fresh: bool

    def __str__(self) -> str:
        looks = "added up" if self.looks else "not looked at"
        rooms = f"{_FRESH if self.fresh else self.n_reader} rooms"
        return f"{self.n_busy} | {self.n_reader} | {looks} | {rooms}"


WAYS = [
    *(Way(0, n_reader, looks, False) for n_reader in (4, 1) for looks in (False, True)),
    Way(0, 4, True, True),
    *(Way(n_busy, 4, looks, False) for n_busy in (1, 2) for looks in (False, True)),
]


def rate(file: int, way: Way, rooms: npt.NDArray[np.uint64], n_pieces: int) -> float:
    """Bytes per second in one turn."""
    n_rooms = _FRESH if way.fresh else way.n_reader
    numbers, start = count(), perf_counter()

    def reader(_: int) -> int:
        n_bytes = 0
        while perf_counter() < start + _TURN:
            number = next(numbers)  # one step for the interpreter: readers share it
            room = rooms[number % n_rooms]
            n_bytes += os.preadv(file, [room], number % n_pieces * _PIECE)
            if way.looks:
                room.sum()
        return n_bytes

    with ThreadPoolExecutor(way.n_reader) as pool:
        n_bytes = sum(pool.map(reader, range(way.n_reader)))
    return n_bytes / (perf_counter() - start)


def aligned_rooms() -> npt.NDArray[np.uint64]:
    """Rooms for a piece each, aligned to huge pages, which numpy asks the system for."""
    memory = np.zeros((_FRESH + 1) * _PIECE, np.uint8)
    first = -memory.ctypes.data % _PIECE
    return memory[first : first + _FRESH * _PIECE].view(np.uint64).reshape(_FRESH, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description="direct reads whose bytes are looked at, or not")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    file = os.open(args.file, os.O_RDONLY | os.O_DIRECT)
    rooms, n_pieces = aligned_rooms(), min(_SPAN, os.fstat(file).st_size) // _PIECE
    for number in range(n_pieces):
        os.preadv(file, [rooms[0]], number * _PIECE)
    rates: dict[Way, list[float]] = {way: [] for way in WAYS}
    end = perf_counter() + args.seconds
    while perf_counter() < end:
        for way in WAYS:
            with computing(way.n_busy) if way.n_busy else nullcontext():
                rates[way].append(rate(file, way, rooms, n_pieces))
    print("| busy cores | readers | the bytes are | into | lowest tenth, MB/s | median | highest tenth |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for way in WAYS:
        tenths = quantiles(rates[way], n=10)
        print(f"| {way} | " + " | ".join(f"{tenths[at] / 1e6:.0f}" for at in (0, 4, 8)) + " |")


if __name__ == "__main__":
    main()
