"""`PromptBuilder`: a conversation as the tokens that a model reads, whole or without its oldest part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iqrun.chat.template import ChatTemplate, prompt_ids
from iqrun.chat.thinking import opened_section
from iqrun.chat.window import POLICIES, ContextPolicy, Message, Window
from iqrun.errors import ContextFullError
from iqrun.tokenizer import Tokenizer


class PromptBuilder:
    """Writes conversations by a template, and leaves out what the context has no room for.

    Attributes:
        system: what the model is told before the first turn.
        window: the part of the conversation that is not left out.
        opened: the beginning of a thinking section, if the last prompt ends with one that the template wrote.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        options: Mapping[str, Any],
        *,
        n_ctx: int,
        context_full: ContextPolicy,
    ) -> None:
        """Takes what makes tokens of messages.

        Args:
            tokenizer: the model's.
            template: how messages become text.
            options: more variables for the template.
            n_ctx: tokens that fit.
            context_full: what happens when they do not; see `iqrun.Chat`.
        """
        self._tokenizer, self._template, self._options, self._n_ctx = tokenizer, template, dict(options), n_ctx
        self.system: str | None = None
        self.window = Window()
        self.opened = ""
        self.context_full = context_full

    @property
    def context_full(self) -> ContextPolicy:
        """What happens when the context is full: ``"drop"``, ``"shift"`` or ``"stop"``."""
        return self._context_full

    @context_full.setter
    def context_full(self, policy: ContextPolicy) -> None:
        if policy not in POLICIES:
            raise ValueError(f"context_full is {policy!r}, but must be one of {', '.join(POLICIES)}")
        self._context_full = policy

    def build(self, messages: Sequence[Message], max_tokens: int | None) -> list[int]:
        """The tokens of a conversation that ends with a question, with room for an answer.

        Raises:
            ContextFullError: there is no room.
            TemplateError: the template refuses the messages.
        """
        ids = self._encode(messages)
        room = min(max_tokens if max_tokens is not None else self._n_ctx, self._n_ctx // 8)
        if len(ids) + room > self._n_ctx and self.context_full != "stop":
            ids = self._shrink(messages, self._n_ctx // 2)
        if len(ids) > self._n_ctx:
            raise ContextFullError(self._why_full(len(ids), len(messages)))
        return ids

    def rebuild(self, messages: Sequence[Message], answer: Sequence[int]) -> tuple[list[int], list[int]] | None:
        """In the middle of an answer: a shorter prompt, and what stays of the answer; None if it must end here.

        Args:
            messages: the conversation, up to the question.
            answer: the tokens of the answer so far.
        """
        if self.context_full == "stop":
            return None
        before, kept = self.window.copy(), [*answer]
        prompt = self._shrink(messages, max(self._n_ctx // 2 - len(kept), 0))
        limit = self._n_ctx - self._n_ctx // 8
        if self.context_full == "shift" and len(prompt) + len(kept) > limit:
            kept = kept[-max((self._n_ctx - len(prompt)) // 2, 1) :]
        if len(prompt) + len(kept) <= limit:
            return prompt, kept
        self.window = before
        return None

    def _shrink(self, messages: Sequence[Message], size: int) -> list[int]:
        """The conversation in at most `size` tokens, if what may be left out allows it.

        More is left out than must be, so that the following turns begin alike and need not be read anew each time.
        """
        leave_out = self.window.shift if self.context_full == "shift" else self.window.drop
        leave_out(messages, lambda: len(self._encode(messages)) <= size)
        return self._encode(messages)

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        shown = self.window.visible(messages)
        if self.system:
            shown = [{"role": "system", "content": self.system}, *shown]
        plain = [{name: self._plain(name, value) for name, value in message.items()} for message in shown]
        text = self._template.render(plain, **self._options)
        self.opened = opened_section(text)
        return prompt_ids(self._tokenizer, text)

    def _plain(self, name: str, value: str) -> str:
        return value if name == "role" else self._tokenizer.as_plain(value)

    def _why_full(self, n_tokens: int, n_messages: int) -> str:
        if self.context_full == "stop" and n_messages > 1:
            return (
                f"the conversation has {n_tokens} tokens with this message, but the context holds {self._n_ctx}: begin "
                "anew, take messages back, or set context_full to drop or shift"
            )
        return (
            f"the message has {n_tokens} tokens with its surroundings, but the context holds {self._n_ctx}; "
            "shorten it, or load the model with a larger n_ctx"
        )
