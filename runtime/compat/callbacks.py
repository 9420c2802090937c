"""Functions that a caller hands in to change logits or to end an answer, in the shape llama-cpp-python calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from iqrun.sampling import options

Ids: TypeAlias = npt.NDArray[np.intc]
Scores: TypeAlias = npt.NDArray[np.float32]
LogitsProcessor: TypeAlias = Callable[[Ids, Scores], Scores]
StoppingCriteria: TypeAlias = Callable[[Ids, Scores], bool]


class LogitsProcessorList(list[LogitsProcessor]):
    """Processors that are called one after the other."""

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        """The scores after all of them."""
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(list[StoppingCriteria]):
    """Criteria any of which ends the answer."""

    def __call__(self, input_ids: Ids, logits: Scores) -> bool:
        """Whether one of them is met."""
        met = [criterion(input_ids, logits) for criterion in self]  # every one sees every token
        return any(met)


class MinTokensLogitsProcessor:
    """Forbids the end of the answer before `min_tokens` tokens."""

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        """`token_eos`: the token to forbid."""
        self.min_tokens = min_tokens
        self.token_eos = token_eos
        self.prompt_tokens: int | None = None

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        """The scores, changed in place."""
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) - self.prompt_tokens < self.min_tokens:
            scores[self.token_eos] = -np.inf
        return scores


class EndWhen:
    """A logits processor that leaves only the end token once a stopping criterion is met.

    llama-cpp-python asks the criterion with the tokens so far and the logits of the next one, which is then not part of
    the answer: an end token in its place comes to the same, and what the decoder holds back is given out in order.
    """

    def __init__(self, criterion: StoppingCriteria, end_ids: Iterable[int]) -> None:
        """`end_ids`: tokens that end an answer; any of them will do."""
        self._criterion = criterion
        self._end_ids = sorted(end_ids)
        if not self._end_ids:
            raise ValueError("stopping_criteria need a model that has an end token, but this vocabulary has none")

    def __call__(self, tokens: Sequence[int], logits: Scores) -> Scores:
        """The logits, or those that end the answer."""
        if self._criterion(np.array(tokens, np.intc), logits.copy()):
            only_end = np.full_like(logits, -np.inf)
            only_end[self._end_ids] = 0.0
            return only_end
        return logits


def as_processors(given: LogitsProcessor | Iterable[LogitsProcessor] | None) -> list[options.LogitsProcessor]:
    """A caller's processors as those of `SamplingOptions`: ids come as an int array."""
    if given is None:
        return []
    functions = list(given) if isinstance(given, Iterable) else [given]
    return [_with_array(function) for function in functions]


def _with_array(function: LogitsProcessor) -> options.LogitsProcessor:
    return lambda tokens, logits: function(np.array(tokens, np.intc), logits)
