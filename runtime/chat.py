"""`Chat`: a conversation with a model; what the model has read already is not read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from iqrun.chat_template import ChatTemplate
from iqrun.errors import ClosedError, ContextFullError
from iqrun.generate import Evaluator, Step, generate
from iqrun.gguf.metadata import Metadata
from iqrun.sampling import SamplingOptions
from iqrun.tokenizer import Tokenizer

Message = dict[str, str]


class ChatSession(Evaluator, Protocol):
    """What a chat needs of a `Session`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens evaluated so far."""

    def truncate(self, length: int) -> None:
        """Keeps only the first `length` tokens."""

    def close(self) -> None:
        """Frees the memory."""


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

    When the conversation outgrows the context, the oldest exchanges are left out of what the model reads; they stay in
    `messages`.

    Example:
        >>> chat = model.chat(system="You tell stories.")
        >>> for piece in chat.send("One about a fox, please.", temperature=0.7):
        ...     print(piece, end="", flush=True)

    Attributes:
        template: how messages become text.
        last: the last step of the latest answer (its reason to end, its timings), None before there is one.
        n_ctx: tokens that fit.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        system: str | None = None,
        messages: Sequence[Mapping[str, str]] = (),
        template: ChatTemplate | str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts a conversation.

        Args:
            model: the model, usually through ``model.chat(...)``.
            system: what the model is told before the first turn.
            messages: earlier turns, dictionaries with ``role`` (``user``, ``assistant``) and ``content``.
            template: a template instead of the file's.
            template_options: more variables for the template, e.g. ``{"enable_thinking": False}``.

        Raises:
            TemplateError: the template is not valid.
            ResourceError: there is no memory for the session.
        """
        self._tokenizer = model.tokenizer
        self.template = _choose_template(model, template)
        self._template_options = dict(template_options or {})
        self._messages: list[Message] = [dict(message) for message in messages]
        self._n_skipped = 0  # messages at the beginning that the model does not read any more
        self._busy = False
        self.system = system
        self.last: Step | None = None
        self._session = model.session()
        self.n_ctx = self._session.n_ctx

    @property
    def messages(self) -> list[Message]:
        """The turns so far, oldest first, without the system message; a copy."""
        return [dict(message) for message in self._messages]

    @property
    def n_tokens(self) -> int:
        """Tokens of the context that are in use."""
        return len(self._session)

    @property
    def n_skipped(self) -> int:
        """Messages, from the oldest on, that are left out because the context is too small for them."""
        return self._n_skipped

    def send(
        self, text: str, *, max_tokens: int | None = None, stop: str | Sequence[str] = (), **sampling: Any
    ) -> Iterator[str]:
        """Says something and gives the answer piece by piece, as tokens come; each piece is whole characters.

        Closing the iterator, or an exception such as Ctrl-C, stops the answer; the part that was given stays in the
        conversation. If nothing was given, the conversation is as it was before.

        Args:
            text: the message. Special tokens spelled in it are plain text.
            max_tokens: most tokens to draw; None draws until the model ends its turn or the context is full.
            stop: texts that end the answer; they are not part of it.
            **sampling: fields of `SamplingOptions`, such as ``temperature``, ``top_p`` or ``seed``.

        Raises:
            ClosedError: an earlier answer is still being given, or the chat was closed.
            ContextFullError: the message alone does not fit.
            TemplateError: the template refuses the messages.
            TypeError: there is no such option.
            ValueError: an option is out of its range.
        """
        return _texts(self.steps(text, max_tokens=max_tokens, stop=stop, sampling=SamplingOptions(**sampling)))

    def regenerate(
        self,
        *,
        question: str | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Takes the last answer back and gives another one; the options are those of `send`.

        Args:
            question: takes the place of the last question; None asks it once more.
            max_tokens: as for `send`.
            stop: as for `send`.
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
        return _texts(self._answer(question, max_tokens, stop, SamplingOptions(**sampling), keep=index))

    def steps(
        self,
        text: str,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        sampling: SamplingOptions | None = None,
    ) -> Iterator[Step]:
        """As `send`, token by token, with ids, the reason of the end, and timings."""
        self._check_free()
        return self._answer(text, max_tokens, stop, sampling or SamplingOptions())

    def undo(self) -> str | None:
        """Takes back the last question and its answer; returns the question, None if there was none."""
        self._check_free()
        index = self._last_question()
        if index is None:
            return None
        question = self._messages[index]["content"]
        del self._messages[index:]
        self._n_skipped = min(self._n_skipped, len(self._messages))
        return question

    def restore(self, messages: Sequence[Mapping[str, str]], *, system: str | None = None) -> None:
        """Replaces the conversation, e.g. with one that was kept in a file; what both begin with is not read again.

        Args:
            messages: turns as in `messages`.
            system: the system message.
        """
        self._check_free()
        self._messages = [dict(message) for message in messages]
        self._n_skipped, self.system, self.last = 0, system, None

    def clear(self) -> None:
        """Forgets the conversation; the system message stays."""
        self._check_free()
        self._messages.clear()
        self._n_skipped = 0
        self.last = None

    def close(self) -> None:
        """Frees the memory of the session; safe to call twice."""
        self._session.close()

    def _answer(
        self,
        question: str,
        max_tokens: int | None,
        stop: str | Sequence[str],
        options: SamplingOptions,
        *,
        keep: int | None = None,
    ) -> Iterator[Step]:
        """Asks after the first `keep` messages (None: after all), and takes all back if no answer comes of it."""
        self._check_free()
        self._busy = True
        before, n_skipped = self._messages, self._n_skipped
        self._messages = [*before[:keep], {"role": "user", "content": question}]
        self._n_skipped = min(n_skipped, len(self._messages) - 1)
        parts: list[str] = []
        finished = False
        try:
            ids = self._prompt(max_tokens)
            for step in self._generate(ids, max_tokens, stop, options):
                parts.append(step.text)
                if step.finish_reason is not None:
                    self.last, finished = step, True
                yield step
        finally:
            self._busy = False
            answer = "".join(parts)
            if answer or finished:
                self._messages.append({"role": "assistant", "content": answer})
            else:
                self._messages, self._n_skipped = before, n_skipped

    def _generate(
        self, ids: list[int], max_tokens: int | None, stop: str | Sequence[str], options: SamplingOptions
    ) -> Iterator[Step]:
        """Evaluates only what the session does not hold yet, then generates."""
        n_known = min(_common_prefix(self._session.tokens, ids), len(ids) - 1)
        self._session.truncate(n_known)
        stops = [stop] if isinstance(stop, str) else [*stop]
        return generate(
            self._session,
            self._tokenizer,
            ids[n_known:],
            sampling=options,
            max_tokens=max_tokens,
            stop=[*stops, *self.template.stop],
            at_start=True,
        )

    def _prompt(self, max_tokens: int | None) -> list[int]:
        """The tokens of the conversation, without the oldest exchanges if they leave no room for an answer.

        When it must leave out, it leaves out until the rest takes half of the context, so that the following turns
        have the same beginning and need not be read anew each time.
        """
        ids = self._encode()
        room = min(max_tokens if max_tokens is not None else self.n_ctx, self.n_ctx // 8)
        if len(ids) + room <= self.n_ctx:
            return ids
        while len(ids) > self.n_ctx // 2 and self._skip_exchange():
            ids = self._encode()
        if len(ids) > self.n_ctx:
            raise ContextFullError(
                f"the message has {len(ids)} tokens with its surroundings, but the context holds {self.n_ctx}; "
                "shorten it, or load the model with a larger n_ctx"
            )
        return ids

    def _skip_exchange(self) -> bool:
        """Leaves out one more question and its answer; False if only the last question is left."""
        later = range(self._n_skipped + 1, len(self._messages))
        found = next((index for index in later if self._messages[index]["role"] == "user"), None)
        if found is None:
            return False
        self._n_skipped = found
        return True

    def _encode(self) -> list[int]:
        messages = self._messages[self._n_skipped :]
        if self.system:
            messages = [{"role": "system", "content": self.system}, *messages]
        plain = [{**message, "content": self._tokenizer.as_plain(message["content"])} for message in messages]
        text = self.template.render(plain, **self._template_options)
        ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        bos = self._tokenizer.bos_id
        if self._tokenizer.add_bos and bos is not None and ids[:1] != [bos]:  # a template may write it itself
            ids.insert(0, bos)
        return ids

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


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    n = min(len(a), len(b))
    return next((index for index in range(n) if a[index] != b[index]), n)
