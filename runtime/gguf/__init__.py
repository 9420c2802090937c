"""GGUF model files: a strict reader over a memory map, and a writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqrun.gguf.header import TensorInfo
from iqrun.gguf.keys import ValueType
from iqrun.gguf.mapping import guard_mapped_files
from iqrun.gguf.metadata import Metadata, StringArray, Value
from iqrun.gguf.reader import GGUFFile
from iqrun.gguf.tensor_type import TensorType

if TYPE_CHECKING:
    from iqrun.gguf.plan import GGUFPlan as GGUFPlan
    from iqrun.gguf.writer import GGUFWriter as GGUFWriter

__all__ = [
    "GGUFFile",
    "GGUFPlan",
    "GGUFWriter",
    "Metadata",
    "StringArray",
    "TensorInfo",
    "TensorType",
    "Value",
    "ValueType",
    "guard_mapped_files",
]


def __getattr__(name: str) -> Any:
    """What writes files is imported when it is first used: who runs a model does not wait for it."""
    if name == "GGUFPlan":
        from iqrun.gguf.plan import GGUFPlan

        return GGUFPlan
    if name == "GGUFWriter":
        from iqrun.gguf.writer import GGUFWriter

        return GGUFWriter
    raise AttributeError(f"module 'iqrun.gguf' has no attribute {name!r}")
