"""The exceptions of iqrun.

::

    IqrunError
    +-- GGUFError              a container file is malformed (path, key or tensor, offset)
    +-- FormatError            weights cannot be decoded or encoded (type, shape, NaN)
    +-- UnsupportedModelError  a well-formed file that iqrun cannot run (architecture, type, hyper-parameter)
    +-- TokenizerError         the vocabulary, or text that it cannot encode
    +-- TemplateError          the chat template failed
    +-- QuantizeError          a quantization job cannot start or go on
    +-- ResourceError          memory, threads or disk: what was asked for does not fit
    |   +-- ContextFullError   no room is left in the KV cache
    +-- CancelledError         the step was stopped on request
    +-- ClosedError            the object was closed, or is in use by another thread

Every message is one sentence (or two) that names the file, tensor or key, and says what to do.
"""

from __future__ import annotations

from os import PathLike, fspath


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
