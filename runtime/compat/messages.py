"""Chat messages of the OpenAI shape as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iqrun.chat.template import ChatTemplate, prompt_ids
from iqrun.compat.chat_formats import FORMATS, OWN
from iqrun.errors import TemplateError
from iqrun.gguf import Metadata
from iqrun.tokenizer import Tokenizer


def choose_template(name: str | None, metadata: Metadata, tokenizer: Tokenizer) -> ChatTemplate:
    """The template of a chat format.

    Args:
        name: of `FORMATS`, or a Jinja template itself; None takes the file's.
        metadata: the file's.
        tokenizer: the file's.

    Raises:
        TemplateError: the template is not valid.
        ValueError: there is no such format.
    """
    if name is None or name == OWN:
        return ChatTemplate.from_metadata(metadata, tokenizer)
    if name in FORMATS:
        return ChatTemplate.with_tokens_of(tokenizer, FORMATS[name].template, stop=FORMATS[name].stop)
    if "{%" in name or "{{" in name:
        return ChatTemplate.with_tokens_of(tokenizer, name)
    raise ValueError(
        f"chat_format {name!r} is not known; there are {', '.join(sorted(FORMATS))}, a Jinja template itself, and None "
        "for the template in the file"
    )


def message_ids(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], **variables: Any
) -> list[int]:
    """The tokens of a conversation, up to where the model shall go on.

    Control tokens spelled in a message are plain text, as everywhere in iqrun: nobody speaks in another role.

    Raises:
        ValueError: a message has no role, or parts other than text, or the template refuses the messages.
    """
    plain = [_plain_message(tokenizer, message) for message in messages]
    try:
        text = template.render(plain, **variables)
    except TemplateError as error:
        raise ValueError(str(error)) from error
    return prompt_ids(tokenizer, text)


def _plain_message(tokenizer: Tokenizer, message: Mapping[str, Any]) -> dict[str, Any]:
    if "role" not in message:
        raise ValueError(f"a message must have a role, but this one has {', '.join(message) or 'nothing'}")
    content = message.get("content")
    text = None if content is None else _content_text(content)
    whole = {**message, "content": text}
    return {name: value if name == "role" else _plain(tokenizer, value) for name, value in whole.items()}


def _plain(tokenizer: Tokenizer, value: Any) -> Any:
    """All texts in a value, such as the arguments of tool calls, with their control tokens broken up."""
    if isinstance(value, str):
        return tokenizer.as_plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(tokenizer, item) for key, item in value.items()}
    return [_plain(tokenizer, item) for item in value] if isinstance(value, (list, tuple)) else value


def _content_text(content: Any) -> str:
    """The text of a message that is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise ValueError(f"the content of a message must be a text or a list of parts, not {type(content).__name__}")
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise ValueError(f"a message has a part of type {kind!r}, but iqrun reads only text")
    return "".join([part["text"] for part in content])
