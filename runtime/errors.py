"""The exceptions of iqrun.

::

    IqrunError
    +-- GGUFError              a container file is malformed (path, key or tensor, offset)
    +-- FormatError            weights cannot be decoded or encoded (type, shape, NaN)
    +-- UnsupportedModelError  a well-formed file that iqrun cannot run (architecture, type, hyper-parameter)
    +-- TokenizerError         the vocabulary, or text that it cannot encode
    +-- TemplateError          the chat template failed
    +-- GrammarError           a response format is not valid, or too complex
    |   +-- IncompleteError    a text was cut before its response format was complete
    +-- StateError             a saved session is damaged, or belongs to another model
    +-- QuantizeError          a quantization job cannot start or go on
    +-- ResourceError          memory, threads or disk: what was asked for does not fit
    |   +-- ContextFullError   no room is left in the KV cache
    +-- CancelledError         the step was stopped on request
    +-- ClosedError            the object was closed, or is in use by another thread

Every message is one sentence (or two) that names the file, tensor or key, and says what to do.
"""

from __future__ import annotations

from os import PathLike, fspath

_MOST_SHOWN = 120


def shown(value: object) -> str:
    """A value from a file, as it may stand in a message: short, on one line, without control characters."""
    text = " ".join(repr(value[:_MOST_SHOWN] if isinstance(value, (str, bytes)) else value).split("\n"))
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


class IqrunError(Exception):
    """Base of all errors that iqrun raises on purpose."""


class GGUFError(IqrunError):
    """A GGUF file is malformed.

    Attributes:
        path: the file, if known.
        key: the metadata key or tensor name at fault, if any.
        offset: byte offset in the file where the fault stands, if known.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | PathLike[str] | None = None,
        key: str | None = None,
        offset: int | None = None,
    ) -> None:
        self.path = None if path is None else fspath(path)
        self.key = key
        self.offset = offset
        where = "" if self.path is None else f"{self.path}: "
        at = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{where}{message}{at}")


class FormatError(IqrunError):
    """Weights cannot be decoded or encoded."""


class UnsupportedModelError(IqrunError):
    """A well-formed file that iqrun cannot run."""


class TokenizerError(IqrunError):
    """The vocabulary is unusable, or text cannot be encoded with it."""


class TemplateError(IqrunError):
    """A chat template failed to compile or to render."""


class GrammarError(IqrunError):
    """A response format is not valid, not possible with this model, or too complex."""


class IncompleteError(GrammarError):
    """A text was cut before its response format was complete.

    Attributes:
        text: as far as it came.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class StateError(IqrunError):
    """A saved session cannot be restored: it is damaged, or belongs to another model."""


class QuantizeError(IqrunError):
    """A quantization job cannot start or go on; no output was left behind."""


class ResourceError(IqrunError):
    """Memory, threads or disk: what was asked for does not fit."""


class ContextFullError(ResourceError):
    """No room is left in the KV cache."""


class CancelledError(IqrunError):
    """The step was stopped on request; the model is as it was before it."""


class ClosedError(IqrunError):
    """The object was closed, or is in use by another thread."""
