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
    from iqrun.calibration.calibrate import calibrate as calibrate
    from iqrun.calibration.calibrated import calibrated_encoder as calibrated_encoder
    from iqrun.chat.chat import Chat as Chat
    from iqrun.engine.session import Session as Session
    from iqrun.errors import CancelledError as CancelledError
    from iqrun.errors import ClosedError as ClosedError
    from iqrun.errors import ContextFullError as ContextFullError
    from iqrun.errors import FormatError as FormatError
    from iqrun.errors import GGUFError as GGUFError
    from iqrun.errors import GrammarError as GrammarError
    from iqrun.errors import IncompleteError as IncompleteError
    from iqrun.errors import IqrunError as IqrunError
    from iqrun.errors import QuantizeError as QuantizeError
    from iqrun.errors import ResourceError as ResourceError
    from iqrun.errors import StateError as StateError
    from iqrun.errors import TemplateError as TemplateError
    from iqrun.errors import TokenizerError as TokenizerError
    from iqrun.errors import UnsupportedModelError as UnsupportedModelError
    from iqrun.evaluation.comparison import compare as compare
    from iqrun.evaluation.evaluate import divergence as divergence
    from iqrun.evaluation.evaluate import perplexity as perplexity
    from iqrun.evaluation.measurement import measure_sensitivity as measure_sensitivity
    from iqrun.generation.cancellation import CancelToken as CancelToken
    from iqrun.generation.grammar import Grammar as Grammar
    from iqrun.gguf import GGUFFile as GGUFFile
    from iqrun.gguf import guard_mapped_files as guard_mapped_files
    from iqrun.machine import cpu_info as cpu_info
    from iqrun.model import Model as Model
    from iqrun.model import load as load
    from iqrun.quantizer import quantize as quantize
    from iqrun.sampling import SamplingOptions as SamplingOptions
    from iqrun.tokenizer import Tokenizer as Tokenizer

    __version__: str

_HOMES = {
    "CancelToken": "generation.cancellation",
    "CancelledError": "errors",
    "Chat": "chat.chat",
    "ClosedError": "errors",
    "ContextFullError": "errors",
    "FormatError": "errors",
    "GGUFError": "errors",
    "GGUFFile": "gguf",
    "Grammar": "generation.grammar",
    "GrammarError": "errors",
    "IncompleteError": "errors",
    "IqrunError": "errors",
    "Model": "model",
    "QuantizeError": "errors",
    "ResourceError": "errors",
    "SamplingOptions": "sampling",
    "Session": "engine.session",
    "StateError": "errors",
    "TemplateError": "errors",
    "Tokenizer": "tokenizer",
    "TokenizerError": "errors",
    "UnsupportedModelError": "errors",
    "calibrate": "calibration.calibrate",
    "calibrated_encoder": "calibration.calibrated",
    "compare": "evaluation.comparison",
    "cpu_info": "machine",
    "divergence": "evaluation.evaluate",
    "guard_mapped_files": "gguf",
    "load": "model",
    "measure_sensitivity": "evaluation.measurement",
    "perplexity": "evaluation.evaluate",
    "quantize": "quantizer",
}

__all__ = [
    "CancelToken",
    "CancelledError",
    "Chat",
    "ClosedError",
    "ContextFullError",
    "FormatError",
    "GGUFError",
    "GGUFFile",
    "Grammar",
    "GrammarError",
    "IncompleteError",
    "IqrunError",
    "Model",
    "QuantizeError",
    "ResourceError",
    "SamplingOptions",
    "Session",
    "StateError",
    "TemplateError",
    "Tokenizer",
    "TokenizerError",
    "UnsupportedModelError",
    "__version__",
    "calibrate",
    "calibrated_encoder",
    "compare",
    "cpu_info",
    "divergence",
    "formats",
    "guard_mapped_files",
    "load",
    "measure_sensitivity",
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
