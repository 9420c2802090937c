"""What a generation tells: one `Step` per token, and `Timings` at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from iqrun.sampling import TokenLogprob

FinishReason: TypeAlias = Literal["end", "stop", "length", "context"]


@dataclass(frozen=True, slots=True)
class Timings:
    """What a generation took.

    Attributes:
        n_prompt: tokens of the prompt that were evaluated, and prompt_seconds what that took.
        n_generated: tokens drawn, and generate_seconds what drawing and evaluating them took; the time that the caller
            spent between two steps is not in it.
        n_drafted: tokens that prompt lookup guessed, and n_accepted how many of them the model drew, too.
    """

    n_prompt: int
    prompt_seconds: float
    n_generated: int
    generate_seconds: float
    n_drafted: int = 0
    n_accepted: int = 0

    @property
    def prompt_per_second(self) -> float:
        """Prompt tokens per second (prefill speed)."""
        return self.n_prompt / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generated_per_second(self) -> float:
        """Generated tokens per second (decode speed)."""
        return self.n_generated / self.generate_seconds if self.generate_seconds else 0.0


class Step(NamedTuple):
    """One step of a generation.

    Attributes:
        text: what became certain with this token: whole characters, and nothing that may still turn into a stop string.
            Often empty.
        token_id: the token drawn; None if the generation ended without drawing one.
        finish_reason: None but in the last step: ``"end"`` (the model ended its turn, or a response format allows
            nothing more), ``"stop"`` (a stop string, which is not part of the text), ``"length"`` (`max_tokens`) or
            ``"context"`` (no room for another token).
        timings: in the last step.
        logprob: natural logarithm of the token's probability, by the model alone, before any sampler; None if it was
            not asked for.
        top_logprobs: the most probable tokens with theirs, best first, if they were asked for.
        complete: in the last step of a text with a response format, whether it is a whole one; False if it was cut.
    """

    text: str
    token_id: int | None
    finish_reason: FinishReason | None = None
    timings: Timings | None = None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    complete: bool | None = None
