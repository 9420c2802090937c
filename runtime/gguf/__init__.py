"""GGUF model files: a strict reader over a memory map, and a writer."""

from iqrun.gguf.header import TensorInfo
from iqrun.gguf.keys import ValueType
from iqrun.gguf.mapping import guard_mapped_files
from iqrun.gguf.metadata import Metadata, StringArray, Value
from iqrun.gguf.plan import GGUFPlan
from iqrun.gguf.reader import GGUFFile
from iqrun.gguf.tensor_type import TensorType
from iqrun.gguf.writer import GGUFWriter

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
