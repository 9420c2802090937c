"""Which of several continuations does the model find most likely? Works on logits directly.

python examples/score_choices.py models/demo/stories-13m-f16.gguf "The cat drank the" " milk" " house" " very"
"""

import sys

import numpy as np

import iqrun


def log_likelihood(model: iqrun.Model, prompt: list[int], choice: list[int]) -> float:
    """Sum of the log-probabilities of the choice's tokens after the prompt."""
    logits = model.logits(prompt + choice)[len(prompt) - 1 : -1].astype(np.float64)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return float(log_p[np.arange(len(choice)), choice].sum())


path, prompt, *choices = sys.argv[1:]
with iqrun.load(path) as model:
    start = model.tokenizer.encode(prompt)
    for choice in choices:
        ids = model.tokenizer.encode(prompt + choice)[len(start) :]
        print(f"{log_likelihood(model, start, ids):8.3f}  {choice!r}")
