"""Activation-aware scaling: columns that text drives strongly are stored larger, so that rounding hurts them less.

The idea is that of AWQ (Lin et al. 2023). A matrix's columns are multiplied by factors, and whatever makes its input is
divided by them: a norm's weight, or the rows of the matrix before. The model computes the same, and its file stays an
ordinary GGUF; only the quantizer, whose steps are shared by the columns of a sub-block, sees other weights.
"""

from iqrun.quantizer.scaling.copy import ScaledModel, recipe_like, scaled_model
from iqrun.quantizer.scaling.factors import Scaling
from iqrun.quantizer.scaling.grams import ScaledGrams
from iqrun.quantizer.scaling.pairs import Pair, find_pairs
from iqrun.quantizer.scaling.search import find_scaling

__all__ = ["Pair", "ScaledGrams", "ScaledModel", "Scaling", "find_pairs", "find_scaling", "recipe_like", "scaled_model"]
