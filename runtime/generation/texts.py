"""`Texts`: the part of `Model` that continues texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from iqrun.engine.context import Context
from iqrun.engine.session import Session
from iqrun.errors import ContextFullError, IncompleteError, ResourceError
from iqrun.generation.batch import Job, common_prefix, generate_many, positions_needed
from iqrun.generation.cancellation import CancelToken
from iqrun.generation.generate import constraint_of, generate
from iqrun.generation.records import Step
from iqrun.generation.writer import Writer
from iqrun.sampling import SamplingOptions
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    from iqrun.generation.grammar import Grammar

ResponseFormat: TypeAlias = "Grammar | Mapping[str, Any] | None"

N_PARALLEL = 8


class Texts(ABC):
    """What a model does with prompts. The options of all methods are those of `stream`.

    Attributes:
        tokenizer: text to token ids and back.
        n_ctx: tokens that a prompt and its answer may have together.
    """

    tokenizer: Tokenizer
    n_ctx: int

    @overload
    def complete(self, prompt: str, **options: Any) -> str: ...

    @overload
    def complete(self, prompt: Sequence[str], **options: Any) -> list[str]: ...

    def complete(self, prompt: str | Sequence[str], **options: Any) -> str | list[str]:
        """Continues a text, or several at once.

        Several texts share one step of the engine and what they begin with, which is much faster than one by one; each
        is the same text as it would be alone. With a list as `seed`, each has its own.

        Args:
            prompt: the text to continue, or a list of them.
            **options: as for `stream`; `lookup` and `state` are for one text only.

        Raises:
            IncompleteError: the text was cut before its `response_format` was complete; it holds the text.

        Example:
            >>> model.complete("The cat sat on the", max_tokens=4, temperature=0)
            ' mat and'
            >>> model.complete(["The cat sat", "The dog ran"], max_tokens=4, temperature=0)
            [' on the mat', ' to the park']
        """
        if isinstance(prompt, str):
            return _joined(self._stream_steps(prompt, options))
        words, how = _split(options)
        steps: list[list[Step]] = [[] for _ in prompt]
        for index, step in self.generate_many(prompt, sampling=_sampling_of_each(how), **words):
            steps[index].append(step)
        return [_joined(text) for text in steps]

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """Continues a text piece by piece, as tokens come; each piece is whole characters.

        Args:
            prompt: the text to continue; BOS is put in front if the model wants it. Marks such as ``<|end|>`` in it are
                plain text.
            **options: those of `generate` but `sampling` (`max_tokens`, `stop`, `response_format`, `lookup`, `state`,
                `cancel` ...), and fields of `SamplingOptions`, such as ``temperature`` (0 always takes the most
                probable token), ``top_k``, ``top_p``, ``min_p``, or ``seed`` (the same one gives the same text on the
                same machine).

        Raises:
            CancelledError: the `cancel` token was used.
            ClosedError: the model was closed.
            ContextFullError: the prompt has more than `n_ctx` tokens.
            GrammarError: the response format is not valid.
            ResourceError: no memory is left for one more stream at the same time.
            StateError: the state is damaged, or of another model.
            TypeError: there is no such option.
            ValueError: an option is out of range, or the prompt has no tokens.

        Example:
            >>> for piece in model.stream("Once upon a time", max_tokens=64):
            ...     print(piece, end="", flush=True)
        """
        steps = self._stream_steps(prompt, options)
        return (step.text for step in steps if step.text)

    def astream(self, prompt: str, **options: Any) -> AsyncGenerator[str, None]:
        """As `stream`, for ``async for``: the event loop stays free. Cancelling the task stops within one step.

        Example:
            >>> async for piece in model.astream("Once upon a time", max_tokens=64):
            ...     print(piece, end="", flush=True)
        """
        from iqrun.generation import aio

        token = options.setdefault("cancel", CancelToken())
        return aio.iterate(self.stream(prompt, **options), cancel=token)

    async def acomplete(self, prompt: str | Sequence[str], **options: Any) -> str | list[str]:
        """As `complete`, to be awaited."""
        from iqrun.generation import aio

        token = options.setdefault("cancel", CancelToken())
        return await aio.run(lambda: self.complete(prompt, **options), cancel=token)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        sampling: SamplingOptions | None = None,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        response_format: ResponseFormat = None,
        lookup: bool = False,
        state: bytes | None = None,
        cancel: CancelToken | None = None,
    ) -> Iterator[Step]:
        """As `stream`, token by token, with ids, the reason of the end, and timings.

        Args:
            prompt: a text, or token ids.
            sampling: how tokens are chosen.
            max_tokens: most tokens to draw; None draws until the context is full.
            stop: texts that end the answer; they are not part of it.
            logprobs: also give the log-probability of each token, and of so many of the most probable ones.
            response_format: what the text must look like: an `iqrun.Grammar`, ``{"type": "json_object"}``, or
                ``{"type": "json_schema", "json_schema": {"schema": {...}}}``.
            lookup: guess tokens from the text so far: the same text, in less time where it repeats (summaries, edits).
            state: from `state`: what the prompt begins with as that text did is not read again.
            cancel: ends the generation from outside, with `CancelledError`.

        Example:
            >>> *_, last = model.generate("Once upon a time", max_tokens=64)
            >>> last.finish_reason, round(last.timings.generated_per_second)
            ('length', 2100)
        """
        ids = self._prompt_ids(prompt)
        words = {"sampling": sampling, "max_tokens": max_tokens, "stop": stop, "logprobs": logprobs}
        return self._generate(ids, state, words | {"response_format": response_format, "lookup": lookup}, cancel)

    def generate_many(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        sampling: SamplingOptions | Sequence[SamplingOptions] | None = None,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        response_format: ResponseFormat = None,
        cancel: CancelToken | None = None,
        n_parallel: int = N_PARALLEL,
    ) -> Iterator[tuple[int, Step]]:
        """Continues several texts at once, token by token.

        Args:
            prompts: texts, or token ids.
            sampling: how tokens are chosen; a list has one for each prompt.
            max_tokens: most tokens of each.
            stop: texts that end an answer.
            logprobs: as for `generate`.
            response_format: of each answer.
            cancel: ends all of them.
            n_parallel: most texts at once; the others wait for their turn. Fewer are taken if memory is short.

        Yields:
            The index of a prompt, and a step of its answer.

        Raises:
            ContextFullError: a prompt has more than `n_ctx` tokens; nothing was generated.

        Example:
            >>> for index, step in model.generate_many(["The cat sat", "The dog ran"], max_tokens=8):
            ...     print(index, step.text)
        """
        ids = [self._prompt_ids(prompt) for prompt in prompts]
        options = [sampling] * len(ids) if sampling is None or isinstance(sampling, SamplingOptions) else [*sampling]
        if len(options) != len(ids):
            raise ValueError(f"there are {len(ids)} prompts, but {len(options)} sampling options or seeds")
        if n_parallel < 1:
            raise ValueError(f"n_parallel is {n_parallel}, but must be at least 1")
        for index, prompt in enumerate(ids):
            if len(prompt) > self.n_ctx:
                raise ContextFullError(
                    f"prompt {index} has {len(prompt)} tokens, but the context holds {self.n_ctx}: shorten it, or load "
                    "the model with a larger n_ctx"
                )
        jobs = [
            Job(
                index,
                prompt,
                Writer(
                    self.tokenizer,
                    how,
                    constraint=constraint_of(response_format, self.tokenizer),
                    max_tokens=max_tokens,
                    stop=stop,
                    logprobs=logprobs,
                ),
            )
            for index, (prompt, how) in enumerate(zip(ids, options, strict=True))
        ]
        return self._generate_many(jobs, max_tokens, n_parallel, cancel or CancelToken())

    def state(self, prompt: str | Sequence[int]) -> bytes:
        """Reads a text and returns what the model then knows of it, for the `state` option of other calls.

        The bytes may be kept in a file; they are bound to this model and to `kv_type`.

        Args:
            prompt: a text, or token ids.

        Example:
            >>> state = model.state(manual)
            >>> model.complete(manual + "How do I reset it?", state=state)  # does not read the manual again
        """
        ids = self._prompt_ids(prompt)
        with self._borrowed_session() as session:
            session.evaluate(ids, way="decode" if len(ids) == 1 else "prefill")
            return session.save_state()

    # ---- inside ----

    @abstractmethod
    def _borrowed_session(self) -> AbstractContextManager[Session]:
        """An empty session for one job."""

    @abstractmethod
    def _many_context(self, n_ctx: int, n_seq: int) -> Context:
        """A context for several sequences."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raises ClosedError if the model was closed."""

    def _prompt_ids(self, prompt: str | Sequence[int]) -> Sequence[int]:
        self._check_open()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if len(ids) == 0:
            raise ValueError("the prompt has no tokens: this model does not begin a text by itself")
        return ids

    def _stream_steps(self, prompt: str, options: Mapping[str, Any]) -> Iterator[Step]:
        words, how = _split(options)
        return self.generate(prompt, sampling=SamplingOptions(**how), **words)

    def _generate(
        self, ids: Sequence[int], state: bytes | None, words: Mapping[str, Any], cancel: CancelToken | None
    ) -> Iterator[Step]:
        token = cancel or CancelToken()
        token.check()
        with self._borrowed_session() as session, token.bound(session.cancel):
            if state is not None:
                session.load_state(state)
                session.truncate(len(common_prefix([[*session.tokens, -1], ids])))
            for step in generate(session, self.tokenizer, ids[len(session) :], **words):
                yield step
                if step.finish_reason is None:
                    token.check()

    def _generate_many(
        self, jobs: Sequence[Job], max_tokens: int | None, n_parallel: int, cancel: CancelToken
    ) -> Iterator[tuple[int, Step]]:
        if not jobs:
            return
        cancel.check()
        context = self._roomy_context([job.ids for job in jobs], min(n_parallel, len(jobs)), max_tokens)
        try:
            with cancel.bound(context.cancel):
                for index, step in generate_many(context, self.n_ctx, jobs):
                    yield index, step
                    if step.finish_reason is None:
                        cancel.check()
        finally:
            context.close()

    def _roomy_context(self, prompts: Sequence[Sequence[int]], n_slots: int, max_tokens: int | None) -> Context:
        """Room for `n_slots` texts, or for as many as the memory allows."""
        try:
            return self._many_context(positions_needed(prompts, n_slots, max_tokens, self.n_ctx), n_slots + 1)
        except ResourceError:
            if n_slots == 1:
                raise
        return self._roomy_context(prompts, (n_slots + 1) // 2, max_tokens)


_SAMPLING = frozenset(field.name for field in fields(SamplingOptions))


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `generate`, and the fields of `SamplingOptions`."""
    words = {name: value for name, value in options.items() if name not in _SAMPLING}
    return words, {name: value for name, value in options.items() if name in _SAMPLING}


def _sampling_of_each(how: Mapping[str, Any]) -> SamplingOptions | list[SamplingOptions]:
    """Options for all prompts, or for each of them if there is a seed for each."""
    seeds = how.get("seed")
    if isinstance(seeds, Sequence):
        return [SamplingOptions(**{**how, "seed": seed}) for seed in seeds]
    return SamplingOptions(**how)


def _joined(steps: Iterable[Step]) -> str:
    """The text of all steps."""
    last: Step | None = None
    parts = []
    for last in steps:
        parts.append(last.text)
    text = "".join(parts)
    if last is not None and last.complete is False:
        raise IncompleteError(
            f"the text was cut ({last.finish_reason}) before its response format was complete: allow more with "
            "max_tokens or n_ctx",
            text,
        )
    return text
