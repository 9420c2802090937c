"""Turns a GGUF model into a smaller one: recipes, importance matrices, the streaming pipeline, its report."""

from iqrun.quantizer.grams import GramFile
from iqrun.quantizer.imatrix import Imatrix, read_imatrix
from iqrun.quantizer.moments import TensorStatistics, statistics
from iqrun.quantizer.pipeline import quantize
from iqrun.quantizer.report import QuantizeReport, TensorReport
from iqrun.quantizer.report_file import check_report, save_report

__all__ = [
    "GramFile",
    "Imatrix",
    "QuantizeReport",
    "TensorReport",
    "TensorStatistics",
    "check_report",
    "quantize",
    "read_imatrix",
    "save_report",
    "statistics",
]
