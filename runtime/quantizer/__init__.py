"""Turns a GGUF model into a smaller one: recipes, importance matrices, the streaming pipeline, its report."""

from iqrun.quantizer.grams import GramFile
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.moments import TensorStatistics, statistics
from iqrun.quantizer.pipeline import quantize
from iqrun.quantizer.report import QuantizeReport, TensorReport

__all__ = [
    "GramFile",
    "Imatrix",
    "QuantizeReport",
    "TensorReport",
    "TensorStatistics",
    "quantize",
    "read_imatrix",
    "statistics",
]
