"""The tensors of a model, before it is in the type that one asks about: from a file, or from a size such as ``3b``."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from os import PathLike

from iqrun.benchmark.synthetic import SIZES, Size, tensor_shapes
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, GGUFPlan, TensorInfo
from iqrun.model import build_program
from iqrun.quantizer.recipes import OUTPUT

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([mb])", re.IGNORECASE)
_TIED_BELOW = 4e9  # weights: small models have no output matrix of their own
_HEAD_DIMS = ((1.5e9, 64), (float("inf"), 128))
_LARGE = 9e8  # weights, from which on models have long contexts and large vocabularies
_LARGEST_VOCAB = 128256
_SMALL_VOCAB = 32000
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


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What size, memory and speed depend on.

    Attributes:
        name: of the file, or the size.
        tensors: by name, in the types that they have now.
        header_bytes: metadata of the file, most of it the vocabulary.
        n_ctx_train: tokens that the model was trained with.
        kv_rows: per layer, elements in a row of keys (values have as many).
        buffer_cols: floats that a step keeps per token, logits not counted.
        n_vocab: tokens in the vocabulary.
        tied: the token embedding is the output matrix, too.
        source_type: the type of most of the file's bytes; None if the tensors are not quantized, or there is no file.
    """

    name: str
    tensors: Mapping[str, TensorInfo]
    header_bytes: int
    n_ctx_train: int
    kv_rows: tuple[int, ...]
    buffer_cols: int
    n_vocab: int
    tied: bool
    source_type: str | None

    @property
    def n_weights(self) -> int:
        """Weights in all tensors."""
        return sum(tensor.n_weights for tensor in self.tensors.values())


def shape_of(model: str) -> ModelShape:
    """The shape of a model.

    Args:
        model: a GGUF file, or a number of weights such as ``3b`` or ``135m``: then a Llama of usual proportions.

    Raises:
        GGUFError: the file is damaged.
        UnsupportedModelError: iqrun does not run its architecture.
        ValueError: the size is out of range (1m to 1000b).
    """
    found = _SIZE.fullmatch(model.strip())
    if found is None:
        return _of_file(model)
    return _of_size(model.strip(), float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()])


def _of_file(path: str | PathLike[str]) -> ModelShape:
    with GGUFFile(path) as file:
        program = build_program(file)
        attention = [op for op in program.ops if op.kind == "attention"]
        tensors = dict(file.tensors)
        return ModelShape(
            name=str(path),
            tensors=tensors,
            header_bytes=file.file_bytes - sum(tensor.n_bytes for tensor in tensors.values()),
            n_ctx_train=file.metadata.get_uint(f"{program.arch}.context_length"),
            kv_rows=tuple(op.n_head_kv * op.head_dim for op in attention),
            buffer_cols=sum(b.n_cols for b in program.buffers if b is not program.logits),
            n_vocab=program.n_vocab,
            tied=OUTPUT not in tensors,
            source_type=_main_type(tensors),
        )


def _main_type(tensors: Mapping[str, TensorInfo]) -> str | None:
    """The quantized type that holds most of the matrices' bytes."""
    held: dict[str, int] = {}
    for tensor in tensors.values():
        if len(tensor.shape) > 1:
            held[tensor.type.name] = held.get(tensor.type.name, 0) + tensor.n_bytes
    name = max(held, key=lambda name: held[name], default="F16")
    return None if name in ("F16", "BF16", "F32") else name


def _of_size(name: str, n_weights: float) -> ModelShape:
    size = typical_size(n_weights)
    plan = GGUFPlan()
    for tensor, shape in tensor_shapes(size):
        plan.add_tensor(tensor, shape, FORMATS["F16" if len(shape) > 1 else "F32"].id)
    n_kv = size.n_embd // size.n_head * size.n_head_kv
    return ModelShape(
        name=name,
        tensors={tensor.name: tensor for tensor in plan.tensors},
        header_bytes=size.n_vocab * _BYTES_PER_TOKEN_TEXT,
        n_ctx_train=1 << 17 if n_weights >= _LARGE else 8192,
        kv_rows=(n_kv,) * size.n_layer,
        buffer_cols=9 * size.n_embd + 2 * size.n_ff + 2 * n_kv,  # those of models/llama.py
        n_vocab=size.n_vocab,
        tied=size.tied,
        source_type=None,
    )


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
    n_embd = max(256, round(_between(n_weights, 1) / 256) * 256)
    n_layer = max(2, round(_between(n_weights, 2)))
    n_head = n_embd // head_dim
    n_head_kv = n_head // (4 if n_head % 4 == 0 and n_head <= 32 else 8 if n_head % 8 == 0 else 1)
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
