"""What does prompt lookup win on texts that repeat their prompt, and what does it cost on texts that do not?

    edit   the prompt shows a story, the text is the same story with other names: what a good model would write is given
           to it token by token (a logits processor), so that the ratio is that of a model which edits faithfully
    free   the model writes what it likes

With and without lookup take turns on the same tokens, so that a machine whose speed drifts disturbs both alike; the
medians of the ratios are printed. The texts are compared: they must be equal.

    python benchmarks/lookup.py model.gguf [-n 128] [-r 5] [-t 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

import iqrun
from iqrun.generation.records import Step, Timings

STORY = (
    "Once upon a time there was a little fox who lived near the river. Every morning the fox went down to the water "
    "and looked for the old turtle. One day the turtle was not there. The fox ran along the river and asked the birds, "
    "but the birds had not seen the turtle. At last the fox found the turtle under a big tree. The turtle was stuck, "
    "and the fox helped the turtle to get out. They were happy and went home together."
)
EDITED = STORY.replace("river", "lake").replace("birds", "frogs")


def faithful(model: iqrun.Model, prompt: str, text: str) -> Any:
    """A logits processor that makes the model write `text` after `prompt`."""
    wanted = model.tokenizer.encode(prompt + text)

    def process(tokens: Sequence[int], logits: np.ndarray) -> np.ndarray:
        if len(tokens) < len(wanted):
            logits[wanted[len(tokens)]] += 1e4
        return logits

    return process


def timed(model: iqrun.Model, prompt: str, n: int, options: iqrun.SamplingOptions, lookup: bool) -> tuple[str, Timings]:
    """The text, and what it took."""
    steps: list[Step] = list(model.generate(prompt, sampling=options, max_tokens=n, lookup=lookup))
    assert steps[-1].timings is not None
    return "".join(step.text for step in steps), steps[-1].timings


def compare(
    model: iqrun.Model, prompt: str, n: int, options: iqrun.SamplingOptions, runs: int
) -> tuple[list[float], Timings]:
    """The ratios of the speeds, ascending, and the counts of one run with lookup."""
    ratios = []
    for _ in range(runs):
        plain_text, plain = timed(model, prompt, n, options, lookup=False)
        text, timings = timed(model, prompt, n, options, lookup=True)
        assert text == plain_text, "lookup must not change the text"
        ratios.append(plain.generate_seconds / timings.generate_seconds)
    return sorted(ratios), timings


def main() -> None:
    parser = argparse.ArgumentParser(description="speed with prompt lookup over speed without")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("-n", "--tokens", type=int, default=128)
    parser.add_argument("-r", "--runs", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=None)
    args = parser.parse_args()
    print("| text | guessed | right | drawn | speed ratio (min .. max) |\n|---|---:|---:|---:|---:|")
    with iqrun.load(args.model, n_threads=args.threads) as model:
        edit = iqrun.SamplingOptions(temperature=0, processors=[faithful(model, STORY + "\n", EDITED)])
        cases = {"edit": (STORY + "\n", edit), "free": ("Once upon a time", iqrun.SamplingOptions(temperature=0))}
        for name, (prompt, options) in cases.items():
            ratios, timings = compare(model, prompt, args.tokens, options, args.runs)
            print(
                f"| {name} | {timings.n_drafted} | {timings.n_accepted} | {timings.n_generated} "
                f"| {median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f}) |"
            )


if __name__ == "__main__":
    main()
