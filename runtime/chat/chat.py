"""`Chat`: a conversation with a model; what the model has read already is not read again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, NoReturn, Protocol

from iqrun.chat.prompt import PromptBuilder
from iqrun.chat.session import AnswerSession, ChatSession, Progress, common_prefix
from iqrun.chat.template import ChatTemplate
from iqrun.chat.thinking import split_thinking
from iqrun.chat.window import ContextPolicy, Message, Window
from iqrun.errors import ClosedError
from iqrun.generation.generate import Step, Timings, generate
from iqrun.gguf.metadata import Metadata
from iqrun.sampling import SamplingOptions
from iqrun.tokenizer import Tokenizer


class _How(NamedTuple):
    """How an answer is generated, as `generate` takes it."""

    sampling: SamplingOptions
    max_tokens: int | None
    stop: str | Sequence[str]
    response_format: Any
    lookup: bool


class ChatModel(Protocol):
    """What a chat needs of a `Model`."""

    tokenizer: Tokenizer

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, for its chat template."""

    def session(self) -> ChatSession:
        """A fresh session."""


class Chat:
    """A conversation, in a session of its own. Use it from one thread at a time.

    When the conversation outgrows the context, its oldest part is left out of what the model reads, as `context_full`
    says; it stays in `messages`. What a reasoning model thinks (``<think>`` sections) is part of the text that `send`
    gives; in `messages` it is kept apart, under ``reasoning_content``: only templates that ask for it show it again.

    Example:
        >>> chat = model.chat(system="You tell stories.")
        >>> for piece in chat.send("One about a fox, please.", temperature=0.7):
        ...     print(piece, end="", flush=True)

    Attributes:
        template: how messages become text.
        last: the last step of the latest answer (its reason to end, its timings), None if it was stopped.
        n_ctx: tokens that fit.
        on_progress: called as ``on_progress(n_read, n_tokens)`` while a long prompt is read; None for nothing.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        system: str | None = None,
        messages: Sequence[Mapping[str, str]] = (),
        template: ChatTemplate | str | None = None,
        template_options: Mapping[str, Any] | None = None,
        context_full: ContextPolicy = "drop",
    ) -> None:
        """Starts a conversation.

        Args:
            model: the model, usually through ``model.chat(...)``.
            system: what the model is told before the first turn.
            messages: earlier turns, dictionaries with ``role`` (``user``, ``assistant``) and ``content``.
            template: a template instead of the file's.
            template_options: more variables for the template, e.g. ``{"enable_thinking": False}``.
            context_full: what happens when the context is full. ``"drop"`` leaves out the oldest exchanges, ``"shift"``
                the beginning of the oldest one, letter by letter, and in the end that of the answer itself; both keep
                the system message, make half of the context free, and read what is left once more. ``"stop"`` refuses
                the question, or ends the answer.

        Raises:
            TemplateError: the template is not valid.
            ResourceError: there is no memory for the session.
            ValueError: there is no such `context_full`.
        """
        self._tokenizer = model.tokenizer
        self.template = _choose_template(model, template)
        self._messages: list[Message] = [dict(message) for message in messages]
        self._busy = False
        self._n_prompt = 0  # tokens in front of the answer that is being given
        self.last: Step | None = None
        self._timed: AnswerSession | None = None
        self.on_progress: Progress | None = None
        self._session = model.session()
        self.n_ctx = self._session.n_ctx
        self._prompt = PromptBuilder(
            self._tokenizer, self.template, template_options or {}, n_ctx=self.n_ctx, context_full=context_full
        )
        self.system = system

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Chat cannot be pickled: send its messages, and begin anew with model.chat(messages=...)")

    @property
    def messages(self) -> list[Message]:
        """The turns so far, oldest first, without the system message; a copy."""
        return [dict(message) for message in self._messages]

    @property
    def n_tokens(self) -> int:
        """Tokens of the context that are in use."""
        return len(self._session)

    @property
    def timings(self) -> Timings | None:
        """What the latest answer took so far, also if it was stopped; None before there is one."""
        if self.last is not None:
            return self.last.timings
        return None if self._timed is None else self._timed.timings()

    @property
    def n_skipped(self) -> int:
        """Messages, from the oldest on, that are left out because the context is too small for them."""
        return self._prompt.window.n_skipped

    @property
    def n_cut(self) -> int:
        """Letters at the beginning of the message behind them that are left out, too."""
        return self._prompt.window.n_cut

    @property
    def context_full(self) -> ContextPolicy:
        """What happens when the context is full: ``"drop"``, ``"shift"`` or ``"stop"``."""
        return self._prompt.context_full

    @context_full.setter
    def context_full(self, policy: ContextPolicy) -> None:
        self._prompt.context_full = policy

    @property
    def system(self) -> str | None:
        """What the model is told before the first turn."""
        return self._prompt.system

    @system.setter
    def system(self, text: str | None) -> None:
        self._prompt.system = text

    def send(
        self,
        text: str,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        response_format: Any = None,
        lookup: bool = False,
        **sampling: Any,
    ) -> Iterator[str]:
        """Says something and gives the answer piece by piece, as tokens come; each piece is whole characters.

        Closing the iterator, or an exception such as Ctrl-C, stops the answer; the part that was given stays in the
        conversation. If nothing was given, the conversation is as it was before.

        Args:
            text: the message. Special tokens spelled in it are plain text.
            max_tokens: most tokens to draw; None draws until the model ends its turn or the context is full.
            stop: texts that end the answer; they are not part of it.
            response_format: what the answer must look like, as `iqrun.generation.generate.generate` takes it.
            lookup: guess tokens from the conversation: the same text, in less time where it repeats. A context that
                becomes full ends such an answer.
            **sampling: fields of `SamplingOptions`, such as ``temperature``, ``top_p`` or ``seed``.

        Raises:
            ClosedError: an earlier answer is still being given, or the chat was closed.
            GrammarError: the response format is not valid.
            ContextFullError: the message does not fit.
            TemplateError: the template refuses the messages.
            TypeError: there is no such option.
            ValueError: an option is out of its range.
        """
        how = _How(SamplingOptions(**sampling), max_tokens, stop, response_format, lookup)
        self._check_free()
        return _texts(self._answer(text, how))

    def regenerate(
        self,
        *,
        question: str | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        response_format: Any = None,
        lookup: bool = False,
        **sampling: Any,
    ) -> Iterator[str]:
        """Takes the last answer back and gives another one; the options are those of `send`.

        Args:
            question: takes the place of the last question; None asks it once more.
            max_tokens: as for `send`.
            stop: as for `send`.
            response_format: as for `send`.
            lookup: as for `send`.
            **sampling: as for `send`.

        Raises:
            ValueError: nothing was asked yet.
        """
        index = self._last_question()
        if index is None:
            raise ValueError("there is no answer to give again: nothing was asked yet")
        self._check_free()
        if question is None:
            question = self._messages[index]["content"]
        how = _How(SamplingOptions(**sampling), max_tokens, stop, response_format, lookup)
        return _texts(self._answer(question, how, keep=index))

    def steps(
        self,
        text: str,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        response_format: Any = None,
        lookup: bool = False,
        sampling: SamplingOptions | None = None,
    ) -> Iterator[Step]:
        """As `send`, token by token, with ids, the reason of the end, and timings."""
        self._check_free()
        return self._answer(text, _How(sampling or SamplingOptions(), max_tokens, stop, response_format, lookup))

    def undo(self) -> str | None:
        """Takes back the last question and its answer; returns the question, None if there was none."""
        self._check_free()
        index = self._last_question()
        if index is None:
            return None
        question = self._messages[index]["content"]
        del self._messages[index:]
        self._prompt.window.shorten(len(self._messages))
        return question

    def restore(self, messages: Sequence[Mapping[str, str]], *, system: str | None = None) -> None:
        """Replaces the conversation, e.g. with one that was kept in a file; what both begin with is not read again.

        Args:
            messages: turns as in `messages`.
            system: the system message.
        """
        self._check_free()
        self._messages = [dict(message) for message in messages]
        self._prompt.window, self.system = Window(), system
        self.last = self._timed = None

    def save_state(self) -> bytes:
        """What the model has read, as `Session.save_state` gives it; keep it beside `messages` and `system`.

        Raises:
            ClosedError: an answer is still being given, or the chat was closed.
        """
        self._check_free()
        return self._session.save_state()

    def load_state(self, data: bytes | memoryview) -> None:
        """Takes what the model has read from `save_state`: after `restore`, the same conversation is not read again.

        Raises:
            ClosedError: an answer is still being given, or the chat was closed.
            ContextFullError: it has more tokens than fit; nothing is changed.
            StateError: it is damaged, or of another model or version; nothing is changed.
        """
        self._check_free()
        self._session.load_state(data)

    def clear(self) -> None:
        """Forgets the conversation; the system message stays."""
        self._check_free()
        self._messages.clear()
        self._prompt.window = Window()
        self.last = self._timed = None

    def close(self) -> None:
        """Frees the memory of the session; safe to call twice."""
        self._session.close()

    def _answer(self, question: str, how: _How, *, keep: int | None = None) -> Generator[Step, None, None]:
        """Asks after the first `keep` messages (None: after all), and takes all back if no answer comes of it."""
        self._check_free()
        self._busy = True
        before, window = self._messages, self._prompt.window.copy()
        self._messages = [*before[:keep], {"role": "user", "content": question}]
        self._prompt.window.shorten(len(self._messages) - 1)
        self.last = None
        parts: list[str] = []
        try:
            with closing(self._generate(how)) as steps:
                for step in steps:
                    parts.append(step.text)
                    yield step
        finally:
            self._busy = False
            if any(parts) or self.last is not None:
                self._messages.append(_answer_message("".join(parts)))
            else:
                self._messages, self._prompt.window = before, window

    def _generate(self, how: _How) -> Generator[Step, None, None]:
        """Evaluates only what the session does not hold yet, then generates."""
        ids = self._prompt.build(self._messages, how.max_tokens)
        n_known = min(common_prefix(self._session.tokens, ids), len(ids) - 1)
        self._session.truncate(n_known)
        self._n_prompt = len(ids)
        session = AnswerSession(
            self._session, make_room=None if how.lookup else self._make_room, on_progress=self.on_progress
        )
        steps = generate(
            session,
            self._tokenizer,
            ids[n_known:],
            sampling=how.sampling,
            max_tokens=how.max_tokens,
            stop=[*([how.stop] if isinstance(how.stop, str) else how.stop), *self.template.stop],
            at_start=True,
            response_format=how.response_format,
            lookup=how.lookup,
        )
        self._timed = session
        opened = self._prompt.opened
        for step in session.timed(steps):
            if step.finish_reason is not None:
                self.last = step
            yield step._replace(text=opened + step.text) if opened else step
            opened = ""

    def _make_room(self) -> list[int] | None:
        """In the middle of an answer: what the session shall hold instead; None if the answer must end here."""
        rebuilt = self._prompt.rebuild(self._messages, self._session.tokens[self._n_prompt :])
        if rebuilt is None:
            return None
        prompt, answer = rebuilt
        self._n_prompt = len(prompt)
        return [*prompt, *answer]

    def _last_question(self) -> int | None:
        indices = range(len(self._messages) - 1, -1, -1)
        return next((index for index in indices if self._messages[index]["role"] == "user"), None)

    def _check_free(self) -> None:
        if self._busy:
            raise ClosedError("an answer of this chat is still being given; close its iterator, or read it to the end")


def _texts(steps: Iterator[Step]) -> Iterator[str]:
    try:
        for step in steps:
            if step.text:
                yield step.text
    finally:
        steps.close()  # type: ignore[attr-defined]  # a generator: stop it now, not when it is collected


def _choose_template(model: ChatModel, template: ChatTemplate | str | None) -> ChatTemplate:
    if isinstance(template, ChatTemplate):
        return template
    if template is None:
        return ChatTemplate.from_metadata(model.metadata, model.tokenizer)
    return ChatTemplate.with_tokens_of(model.tokenizer, template)


def _answer_message(text: str) -> Message:
    thought, answer = split_thinking(text)
    message = {"role": "assistant", "content": answer}
    return {**message, "reasoning_content": thought} if thought else message
