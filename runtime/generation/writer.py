"""`Writer`: one text in the making. Chooses each token, turns it into text, and knows when to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from iqrun.generation.records import FinishReason, Step, Timings
from iqrun.generation.stops import StopFinder
from iqrun.sampling import Sampler, SamplingOptions, token_logprobs


class Decoder(Protocol):
    """What generation needs of a tokenizer's streaming decoder."""

    def feed(self, token_id: int) -> str:
        """The text that became complete with this token."""

    def flush(self) -> str:
        """What is left."""


class TextDecoder(Protocol):
    """What generation needs of a `Tokenizer`."""

    @property
    def end_ids(self) -> Any:
        """Tokens that end a turn; supports ``in``."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for."""

    def stream_decoder(self, *, at_start: bool = False) -> Decoder:
        """A fresh streaming decoder."""


class Constraint(Protocol):
    """What generation needs of a response format; see `iqrun.generation.grammar`."""

    def allow(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The logits with -inf for every token that may not come next; a copy."""

    def accept(self, token_id: int) -> None:
        """Goes on by a token that was allowed."""

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""

    @property
    def is_over(self) -> bool:
        """Whether it must."""


class Writer:
    """Draws the tokens of one text from the logits that it is given.

    Attributes:
        n_recent: how many of the latest tokens `draw` needs to see.
        n_drawn: tokens drawn so far.
        reason: why the text ended; None as long as it goes on.
    """

    def __init__(
        self,
        tokenizer: TextDecoder,
        sampling: SamplingOptions | None = None,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        at_start: bool = False,
        logprobs: int | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """Prepares to write; the arguments are those of `iqrun.generation.generate.generate`.

        Raises:
            ValueError: a negative `max_tokens` or `logprobs`, an empty stop string.
        """
        for name, limit in (("max_tokens", max_tokens), ("logprobs", logprobs)):
            if limit is not None and (not isinstance(limit, int) or limit < 0):
                raise ValueError(f"{name} is {limit!r}, but must be an int of at least 0")
        self._end_ids = tokenizer.end_ids
        self._sampler = Sampler(
            sampling or SamplingOptions(), end_ids=tokenizer.end_ids, token_bytes=tokenizer.token_bytes
        )
        self._finder = StopFinder((stop,) if isinstance(stop, str) else stop)
        self._decoder = tokenizer.stream_decoder(at_start=at_start and constraint is None)
        self._max_tokens, self._n_logprobs, self._constraint = max_tokens, logprobs, constraint
        self.n_recent = self._sampler.n_recent
        self.n_drawn = 0
        self.reason: FinishReason | None = "length" if max_tokens == 0 else None

    def draw(self, logits: npt.NDArray[np.float32], recent: Sequence[int], *, full: bool) -> Step:
        """Chooses the next token.

        Args:
            logits: float32 ``(n_vocab,)``, after the tokens so far.
            recent: the last `n_recent` tokens, or more.
            full: no token can be evaluated any more: this one is the last.

        Returns:
            The step; `reason` tells whether it is the last one, for which `finish` is to be called.
        """
        token = self._sampler(logits if self._constraint is None else self._constraint.allow(logits), recent)
        self.n_drawn += 1
        ended = token in self._end_ids
        if self._constraint is not None and not ended:
            self._constraint.accept(token)
        text = "" if ended else self._finder.feed(self._decoder.feed(token))
        self.reason = self._reason(ended, full)
        if self._n_logprobs is None:
            return Step(text, token)
        return Step(text, token, None, None, *token_logprobs(logits, token, self._n_logprobs))

    def finish(self, last: Step | None, timings: Timings) -> Step:
        """The last step: what `draw` gave last (None if nothing was drawn), and the text that was held back."""
        step = last or Step("", None)
        rest = "" if self._finder.found else self._finder.feed(self._decoder.flush()) + self._finder.finish()
        complete = None if self._constraint is None else self._constraint.is_complete
        text = step.text + rest
        return step._replace(text=text, finish_reason=self.reason, timings=timings, complete=complete)

    def _reason(self, ended: bool, full: bool) -> FinishReason | None:
        if ended or (self._constraint is not None and self._constraint.is_over):
            return "end"
        if self._finder.found:
            return "stop"
        if self.n_drawn == self._max_tokens:
            return "length"
        return "context" if full else None
