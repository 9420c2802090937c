"""The token level of `Llama`: evaluate, look at logits, draw, one token after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from iqrun.chat.session import common_prefix
from iqrun.compat.arguments import sampling_options
from iqrun.compat.base import Floats, LlamaBase
from iqrun.compat.callbacks import EndWhen, LogitsProcessor, StoppingCriteria, as_processors
from iqrun.generation.grammar import Grammar
from iqrun.generation.writer import Constraint
from iqrun.sampling import Sampler, SamplingOptions


class TokenLlama(LlamaBase):
    """The part of `Llama` that works with tokens."""

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens evaluated."""
        return deque(self._session.tokens, maxlen=self._n_ctx)

    @property
    def scores(self) -> Floats:
        """Logits after each token that `eval` saw, float32 ``(n_tokens, n_vocab)``; 0 where none were kept.

        Kept are those of every token with ``logits_all=True``, else of the last one.
        """
        rows = np.zeros((self.n_tokens, self.n_vocab()), np.float32)
        for place, row in self._scores.items():
            rows[place] = row
        return rows

    @property
    def eval_logits(self) -> deque[list[float]]:
        """The rows of `scores`; the last one alone without ``logits_all=True``."""
        return deque(self.scores.tolist(), maxlen=self._n_ctx if self._logits_all else 1)

    def reset(self) -> None:
        """Forgets the sequence."""
        self._session_of_its_own().truncate(0)
        self._scores.clear()

    def eval(self, tokens: Sequence[int]) -> None:
        """Appends tokens to the sequence.

        Raises:
            ContextFullError: they do not fit.
        """
        if len(tokens) == 0:
            return
        session = self._session_of_its_own()
        if self._logits_all:
            first = len(session)
            rows = session.evaluate(tokens, want="all")
            self._scores.update({first + index: row for index, row in enumerate(rows)})
        else:
            row = session.evaluate(tokens)
            self._scores = {len(session) - 1: row}

    def sample(
        self, *, temp: float = 0.8, idx: int | None = None, grammar: Grammar | None = None, **sampling: Any
    ) -> int:
        """Draws the token after the sequence, or after position `idx`; options as for `generate`."""
        place = self.n_tokens - 1 if idx is None else idx
        return self._draw(self._sampler(temp, **sampling), place, self._constraint(grammar))

    def generate(
        self,
        tokens: Sequence[int],
        *,
        temp: float = 0.8,
        reset: bool = True,
        stopping_criteria: StoppingCriteria | None = None,
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Draws tokens without end (also end tokens are given out); what is sent in is evaluated after them.

        Args:
            tokens: the prompt.
            temp: the temperature.
            reset: begin a new sequence; what it has in common with the present one is not evaluated again.
            stopping_criteria: ends the generation when it says so.
            grammar: what the text must look like.
            **sampling: ``top_k``, ``top_p``, ``logits_processor`` and so on, as for `Llama.create_completion`.
        """
        sampler, constraint = self._sampler(temp, **sampling), self._constraint(grammar)
        rest = list(tokens)
        if reset:
            n_known = min(common_prefix(self._session_of_its_own().tokens, tokens), max(len(tokens) - 1, 0))
            self._keep(n_known)
            rest = rest[n_known:]
        while True:
            self.eval(rest)
            token = self._draw(sampler, self.n_tokens - 1, constraint)
            if stopping_criteria is not None and stopping_criteria(self.input_ids, self._scores[self.n_tokens - 1]):
                return
            sent = yield token
            rest = [token, *(sent or ())]

    def _sampler(self, temp: float, *, logits_processor: Any = None, **sampling: Any) -> Sampler:
        options = self._options(temperature=temp, logits_processor=logits_processor, **sampling)
        return Sampler(options, end_ids=self._tokenizer.end_ids, token_bytes=self._tokenizer.token_bytes)

    def _options(
        self,
        *,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None,
        stopping_criteria: StoppingCriteria | None = None,
        seed: int | None = None,
        **sampling: Any,
    ) -> SamplingOptions:
        processors = as_processors(logits_processor)
        if stopping_criteria is not None:
            processors.append(EndWhen(stopping_criteria, self._tokenizer.end_ids))
        return sampling_options(
            repeat_last_n=self.last_n_tokens_size,
            processors=processors,
            seed=self._seed if seed is None else seed,
            **sampling,
        )

    def _constraint(self, grammar: Grammar | None) -> Constraint | None:
        return None if grammar is None else grammar.constraint(self._tokenizer)

    def _draw(self, sampler: Sampler, place: int, constraint: Constraint | None) -> int:
        if place not in self._scores:
            raise ValueError(f"there are no logits of position {place}: evaluate tokens first (with logits_all=True)")
        logits = self._scores[place] if constraint is None else constraint.allow(self._scores[place])
        token = sampler(logits, self._session.tokens[: place + 1])
        if constraint is not None and token not in self._tokenizer.end_ids:
            constraint.accept(token)
        return token

    def _keep(self, length: int) -> None:
        """Cuts the sequence."""
        self._session_of_its_own().truncate(length)
        self._scores = {place: row for place, row in self._scores.items() if place < length}
