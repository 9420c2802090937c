"""What does a token cost beside the engine's work: sampling, text, Python?

The engine alone (tokens known beforehand, as `iqrun bench` counts them) and `Model.generate`, of which streams and
chats are made, take turns over the same positions, with the default samplers and with temperature 0: medians of what
each turn gives. Then the default samplers alone, on random logits.

    python benchmarks/text_overhead.py model.gguf [-n 128] [-r 9] [-t 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

import iqrun
from iqrun.sampling import Sampler, SamplingOptions

PROMPT = "Once upon a time"
VOCABULARIES = (32_000, 128_256, 151_936)
N_LOGITS = 20
"""Different rows of logits, so that no cache holds the last one; a model of 128 k tokens has 0.5 MB of them."""


def engine_seconds(model: iqrun.Model, n_tokens: int) -> float:
    """Seconds per token of known tokens behind the prompt."""
    tokens = np.random.default_rng(1).integers(0, model.tokenizer.n_vocab, n_tokens).tolist()
    with model.session() as session:
        session.evaluate(model.tokenizer.encode(PROMPT))
        start = perf_counter()
        for token in tokens:
            session.evaluate((token,))
        return (perf_counter() - start) / n_tokens


def stream_seconds(model: iqrun.Model, n_tokens: int, temperature: float) -> float:
    """Seconds per token of a stream, from its first token on."""
    sampling = SamplingOptions(temperature=temperature, seed=1, ignore_eos=True)
    steps = model.generate(PROMPT, max_tokens=n_tokens + 1, sampling=sampling)
    next(steps)
    start = perf_counter()
    n = sum(1 for _ in steps)
    return (perf_counter() - start) / n


def sampler_seconds(n_vocab: int) -> float:
    """Seconds per token of the default samplers, on logits spread as a model's: most far below the best."""
    rng = np.random.default_rng(n_vocab)
    rows = rng.gumbel(0.0, 2.0, (N_LOGITS, n_vocab)).astype(np.float32)
    sampler = Sampler(SamplingOptions(seed=1))
    return median(timed(lambda row=row: sampler(row)) for row in rows for _ in range(3))


def timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="what a token costs beside the engine's work")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("-n", "--tokens", type=int, default=128)
    parser.add_argument("-r", "--runs", type=int, default=9)
    parser.add_argument("-t", "--threads", type=int, default=None)
    args = parser.parse_args()
    with iqrun.load(args.model, n_ctx=args.tokens + 64, n_threads=args.threads) as model:
        ways: dict[str, Callable[[], float]] = {
            "engine": lambda: engine_seconds(model, args.tokens),
            "stream, default samplers": lambda: stream_seconds(model, args.tokens, SamplingOptions().temperature),
            "stream, temperature 0": lambda: stream_seconds(model, args.tokens, 0.0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.runs):
            for name, way in ways.items():
                seconds[name].append(way())
    print("| | us per token | beside the engine | of its speed |\n|---|---:|---:|---:|")
    for name, values in seconds.items():
        turns = list(zip(values, seconds["engine"], strict=True))
        beside = median(spent - engine for spent, engine in turns)
        share = median(engine / spent for spent, engine in turns)
        print(f"| {name} | {1e6 * median(values):.0f} | {1e6 * beside:.0f} | {share:.0%} |")
    print("\n| default samplers, tokens in the vocabulary | ms per token |\n|---:|---:|")
    for n_vocab in VOCABULARIES:
        print(f"| {n_vocab} | {1e3 * sampler_seconds(n_vocab):.3f} |")


if __name__ == "__main__":
    main()
