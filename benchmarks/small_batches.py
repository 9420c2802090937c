"""How fast are steps of a few tokens, in each way of multiplying?

Steps of 1 to 33 tokens from an empty context, the ways and sizes taking turns; of the runs the second best counts. What
the ways are: `Session.evaluate`.

    python benchmarks/small_batches.py model.gguf [other.gguf ...] [-r 4] [-t 2]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np

import iqrun
from iqrun.engine.steps import Way

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33)
WAYS: tuple[Way, ...] = ("auto", "decode", "prefill")


def speeds(path: str, runs: int, threads: int | None) -> dict[tuple[Way, int], float]:
    """Tokens per second, by way and number of tokens."""
    seconds: dict[tuple[Way, int], list[float]] = {(way, n): [] for way in WAYS for n in SIZES}
    with iqrun.load(path, n_ctx=256, n_threads=threads) as model, model.session() as session:
        ids = np.random.default_rng(1).integers(0, model.n_vocab, max(SIZES)).tolist()
        session.evaluate(ids)  # the first step meets pages that are not mapped yet
        for _ in range(runs):
            for (way, n), values in seconds.items():
                session.truncate(0)
                start = perf_counter()
                session.evaluate(ids[:n], way=way)
                values.append(perf_counter() - start)
    return {(way, n): n / sorted(values)[1] for (way, n), values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="tokens per second of steps of few tokens")
    parser.add_argument("models", nargs="+", metavar="model", help="GGUF file")
    parser.add_argument("-r", "--runs", type=int, default=4)
    parser.add_argument("-t", "--threads", type=int, default=None)
    args = parser.parse_args()
    print(f"| tokens in the step | {' | '.join(map(str, SIZES))} |\n|---|{'---:|' * len(SIZES)}")
    for path in args.models:
        found = speeds(path, max(args.runs, 2), args.threads)
        for way in WAYS:
            print(f"| {Path(path).stem}, {way} | {' | '.join(f'{found[way, n]:.0f}' for n in SIZES)} |")


if __name__ == "__main__":
    main()
