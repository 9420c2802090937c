"""`ChatTemplate`: a conversation as the text that a model was trained to continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from iqrun.errors import TemplateError
from iqrun.gguf import keys
from iqrun.gguf.metadata import Metadata
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jinja2 import Template

    from iqrun.chat.template_limits import Sandbox

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_FILE = "<template>"


class ChatTemplate:
    """Writes messages as one text, by a Jinja template.

    The template is untrusted: it runs in a sandbox with limits on time and size. Safe to use from several threads.

    Attributes:
        source: the template.
        stop: texts that end an answer because they begin the next turn (of the plain style only; other templates end
            a turn with a special token).
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", stop: Sequence[str] = ()) -> None:
        """Compiles a template.

        Args:
            source: Jinja, as in ``tokenizer.chat_template``.
            bos_token: text of the token that begins a text, for templates that write it.
            eos_token: text of the token that ends one.
            stop: see `stop`.

        Raises:
            TemplateError: the template is not valid Jinja; the message names the line.
        """
        self.source = source
        self.stop = tuple(stop)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._lock = Lock()
        self._environment, self._template = _compile(source)

    @classmethod
    def from_metadata(cls, metadata: Metadata, tokenizer: Tokenizer) -> ChatTemplate:
        """The template of a GGUF file.

        A file without one gets ChatML if its vocabulary has ChatML's marks, else plain ``user:`` and ``assistant:``.

        Raises:
            GGUFError: the key does not hold a string.
            TemplateError: the template is not valid Jinja.
        """
        source = metadata.get_str(keys.CHAT_TEMPLATE, None)
        if source is not None:
            return cls.with_tokens_of(tokenizer, source)
        if tokenizer.token_id("<|im_start|>") is not None and tokenizer.token_id("<|im_end|>") is not None:
            return cls.with_tokens_of(tokenizer, CHATML)
        return cls.with_tokens_of(tokenizer, PLAIN, stop=("\nuser:", "\nassistant:"))

    @classmethod
    def with_tokens_of(cls, tokenizer: Tokenizer, source: str, *, stop: Sequence[str] = ()) -> ChatTemplate:
        """A template that may write the BOS and EOS of a tokenizer; see `__init__`."""
        ids = (tokenizer.bos_id, tokenizer.eos_id)
        bos, eos = ("" if token_id is None else tokenizer.token_text(token_id) for token_id in ids)
        return cls(source, bos_token=bos, eos_token=eos, stop=stop)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The conversation as text, up to where the model shall go on.

        Args:
            messages: dictionaries with ``role`` (``system``, ``user``, ``assistant``) and ``content``.
            add_generation_prompt: end with the beginning of an answer.
            **variables: more names for the template, e.g. ``enable_thinking=False``.

        Raises:
            TemplateError: the template failed, refused these messages, or went beyond the limits on time and size;
                the message names the line.
        """
        from iqrun.chat.template_limits import MAX_CHARS, Budget, LimitError

        names = {"tools": None, "documents": None, **self._tokens, **variables}
        with self._lock:
            self._environment.budget = Budget()
            parts: list[str] = []
            size = 0
            try:
                for part in self._template.generate(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    **names,
                ):
                    self._environment.budget.step()
                    size += len(part)
                    if size > MAX_CHARS:
                        raise LimitError(f"it writes more than {MAX_CHARS} characters")
                    parts.append(part)
            except (Exception, RecursionError) as error:
                raise TemplateError(_explain(error)) from error
        return "".join(parts)


def prompt_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of what `ChatTemplate.render` wrote; BOS comes in front if the model wants it and it is not there."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    bos = tokenizer.bos_id
    return [bos, *ids] if tokenizer.add_bos and bos is not None and ids[:1] != [bos] else ids


def _compile(source: str) -> tuple[Sandbox, Template]:
    from iqrun.chat.template_limits import MAX_SOURCE, Sandbox

    if len(source) > MAX_SOURCE:
        raise TemplateError(f"the chat template has {len(source)} characters; more than {MAX_SOURCE} are not accepted")
    environment = Sandbox()
    try:
        return environment, environment.from_string(source)
    except Exception as error:  # besides syntax errors: nesting too deep, a Python compiler that gives up
        raise TemplateError(_explain(error)) from error


def _explain(error: BaseException) -> str:
    """One sentence with the line of the template that failed."""
    line = getattr(error, "lineno", None) or _line(error.__traceback__)
    where = f"line {line} of the chat template" if line else "the chat template"
    if isinstance(error, RecursionError):
        return f"{where} failed: it is nested too deeply"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{where} failed: {text}"


def _line(trace: TracebackType | None) -> int | None:
    """The innermost line of the template in a traceback; Jinja writes template lines into it."""
    found = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILE:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
