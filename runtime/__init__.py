"""iqrun: quantize GGUF language models to the IQ*_K types and run them fast on CPUs.

    import iqrun

    model = iqrun.load("model-iq3k.gguf")
    print(model.complete("Once upon a time", max_tokens=64))

Names are imported when they are first used: ``import iqrun`` alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqrun import formats as formats
    from iqrun.calibration import calibrate as calibrate
    from iqrun.chat import Chat as Chat
    from iqrun.errors import CancelledError as CancelledError
    from iqrun.errors import ClosedError as ClosedError
    from iqrun.errors import ContextFullError as ContextFullError
    from iqrun.errors import FormatError as FormatError
    from iqrun.errors import GGUFError as GGUFError
    from iqrun.errors import IqrunError as IqrunError
    from iqrun.errors import QuantizeError as QuantizeError
    from iqrun.errors import ResourceError as ResourceError
    from iqrun.errors import TemplateError as TemplateError
    from iqrun.errors import TokenizerError as TokenizerError
    from iqrun.errors import UnsupportedModelError as UnsupportedModelError
    from iqrun.evaluate import divergence as divergence
    from iqrun.evaluate import perplexity as perplexity
    from iqrun.gguf import GGUFFile as GGUFFile
    from iqrun.machine import cpu_info as cpu_info
    from iqrun.model import Model as Model
    from iqrun.model import load as load
    from iqrun.quantizer import quantize as quantize
    from iqrun.sampling import SamplingOptions as SamplingOptions
    from iqrun.session import Session as Session
    from iqrun.tokenizer import Tokenizer as Tokenizer

    __version__: str

_HOMES = {
    "CancelledError": "errors",
    "Chat": "chat",
    "ClosedError": "errors",
    "ContextFullError": "errors",
    "FormatError": "errors",
    "GGUFError": "errors",
    "GGUFFile": "gguf",
    "IqrunError": "errors",
    "Model": "model",
    "QuantizeError": "errors",
    "ResourceError": "errors",
    "SamplingOptions": "sampling",
    "Session": "session",
    "TemplateError": "errors",
    "Tokenizer": "tokenizer",
    "TokenizerError": "errors",
    "UnsupportedModelError": "errors",
    "calibrate": "calibration",
    "cpu_info": "machine",
    "divergence": "evaluate",
    "load": "model",
    "perplexity": "evaluate",
    "quantize": "quantizer",
}

__all__ = [
    "CancelledError",
    "Chat",
    "ClosedError",
    "ContextFullError",
    "FormatError",
    "GGUFError",
    "GGUFFile",
    "IqrunError",
    "Model",
    "QuantizeError",
    "ResourceError",
    "SamplingOptions",
    "Session",
    "TemplateError",
    "Tokenizer",
    "TokenizerError",
    "UnsupportedModelError",
    "__version__",
    "calibrate",
    "cpu_info",
    "divergence",
    "formats",
    "load",
    "perplexity",
    "quantize",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("iqrun")
    elif name == "formats":
        value = import_module("iqrun.formats")
    elif name in _HOMES:
        value = getattr(import_module(f"iqrun.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'iqrun' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
