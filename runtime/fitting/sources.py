"""The model that one asks about: a file, or a Llama of usual proportions with so many weights, such as ``3b``."""

from __future__ import annotations

import re
from bisect import bisect
from math import exp, log
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from iqrun.benchmark.synthetic import SIZES, Size, describe
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, GGUFPlan, ValueType

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([mb])", re.IGNORECASE)
_TIED_BELOW = 4e9  # weights: small models have no output matrix of their own
_HEAD_DIMS = ((1.5e9, 64), (float("inf"), 128))
_SMALLEST_OF_8 = 4e8
_LARGE = 9e8  # weights, from which on models have long contexts and large vocabularies
_LARGEST_VOCAB = 128256
_SMALL_VOCAB = 32000
_SMALL_N_CTX = 8192
_BYTES_PER_TOKEN_TEXT = 60  # of a vocabulary with its merges, as GGUF stores them

# Models whose widths and depths are interpolated, by their weights.
_ANCHORS = (
    (1.35e8, SIZES["llama-160m"].n_embd, SIZES["llama-160m"].n_layer),
    (1.1e9, SIZES["llama-1b"].n_embd, SIZES["llama-1b"].n_layer),
    (3.2e9, SIZES["llama-3b"].n_embd, SIZES["llama-3b"].n_layer),
    (8.0e9, SIZES["llama-8b"].n_embd, SIZES["llama-8b"].n_layer),
    (7.06e10, 8192, 80),
    (4.05e11, 16384, 126),
)


def open_source(model: str) -> GGUFFile:
    """The file of a model; for a size one that exists as a header only: its weights are a hole that takes no room.

    Args:
        model: a GGUF file, or a number of weights such as ``3b`` or ``135m``.

    Raises:
        GGUFError: the file is damaged.
        ValueError: the size is out of range (1m to 1000b).
    """
    found = _SIZE.fullmatch(model.strip())
    if found is None:
        return GGUFFile(model)
    return imagine(_plan(float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()]))


def typical_size(n_weights: float) -> Size:
    """Hyper-parameters of a Llama with about that many weights: width and depth between those of known models, and a
    feed-forward width that makes up the number.

    Raises:
        ValueError: out of range.
    """
    if not 1e6 <= n_weights <= 1e12:
        raise ValueError(f"a model of {n_weights:.3g} weights is out of range: from 1m to 1000b")
    head_dim = next(dim for limit, dim in _HEAD_DIMS if n_weights < limit)
    n_vocab = _LARGEST_VOCAB if n_weights >= _LARGE else _SMALL_VOCAB if n_weights > 5e7 else 4096
    unit = 256 if n_weights < _SMALLEST_OF_8 else 8 * head_dim  # so that queries can share 8 heads of keys
    n_embd = max(unit, round(_between(n_weights, 1) / unit) * unit)
    n_layer = max(2, round(_between(n_weights, 2)))
    n_head = n_embd // head_dim
    n_head_kv = n_head // 4 if n_head <= 32 else 8
    tied = n_weights < _TIED_BELOW
    attention = 2 * n_embd * n_embd + 2 * n_embd * n_head_kv * head_dim
    rest = n_weights - n_vocab * n_embd * (1 if tied else 2) - n_layer * attention
    n_ff = max(256, round(rest / (3 * n_layer * n_embd) / 256) * 256)
    return Size(n_embd, n_layer, n_head, n_head_kv, n_ff, n_vocab, tied)


def _between(n_weights: float, column: int) -> float:
    """A column of `_ANCHORS`, interpolated (beyond their ends: extrapolated) in the logarithms."""
    at = min(max(bisect([row[0] for row in _ANCHORS], n_weights), 1), len(_ANCHORS) - 1)
    low, high = _ANCHORS[at - 1], _ANCHORS[at]
    share = log(n_weights / low[0]) / log(high[0] / low[0])
    return exp(log(low[column]) + share * log(high[column] / low[column]))


def _plan(n_weights: float) -> GGUFPlan:
    size, plan = typical_size(n_weights), GGUFPlan()
    describe(plan, size, FORMATS["F16"])
    room = np.zeros(size.n_vocab * _BYTES_PER_TOKEN_TEXT, np.uint8)
    plan.set_array("tokenizer.room", room, ValueType.UINT8)  # that a vocabulary would take
    if n_weights < _LARGE:
        plan.set("llama.context_length", _SMALL_N_CTX, ValueType.UINT32)
    return plan


def imagine(plan: GGUFPlan) -> GGUFFile:
    """A file that exists as a header only: its weights are a hole that takes no room."""
    with TemporaryDirectory(prefix="iqrun-") as folder:
        path = Path(folder, "imagined.gguf")
        with path.open("wb") as file:
            file.write(plan.encode())
            file.truncate(plan.file_bytes)
        return GGUFFile(path)
