"""How much faster are several texts at once than one by one?

The same prompts, the same tokens (temperature 0): one by one, then 2, 4 and 8 at once, taking turns. The texts are
compared: they must be equal.

    python benchmarks/batching.py model.gguf [-n 64] [-r 3] [-t 2]
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter

import iqrun

BEGINNING = "Once upon a time there was a little "
ANIMALS = ("fox", "bear", "cat", "dog", "bird", "mouse", "frog", "duck")
SIZES = (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description="texts per second, by how many are written at once")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("-n", "--tokens", type=int, default=64)
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=None)
    args = parser.parse_args()
    prompts = [BEGINNING + animal for animal in ANIMALS]
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    with iqrun.load(args.model, n_threads=args.threads) as model:
        options = {"max_tokens": args.tokens, "temperature": 0, "ignore_eos": True}
        expected = [model.complete(prompt, **options) for prompt in prompts]
        for _ in range(args.runs):
            for size in SIZES:
                start = perf_counter()
                texts = model.complete(prompts, n_parallel=size, **options)
                seconds[size].append(perf_counter() - start)
                assert texts == expected, "the company of others must not change a text"
    print("| at once | speed ratio (min .. max) |\n|---:|---:|")
    for size in SIZES:
        ratios = sorted(one / many for one, many in zip(seconds[1], seconds[size], strict=True))
        print(f"| {size} | {median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f}) |")


if __name__ == "__main__":
    main()
