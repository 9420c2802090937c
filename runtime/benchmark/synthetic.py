"""Models of random weights in any storage type, for measuring speed without a file at hand.

Speed does not depend on what the weights are, so a few rows of each shape are made and repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.formats import FORMATS, Format
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, TensorInfo, ValueType, keys
from iqrun.quantizer.recipes import OUTPUT, TOKEN_EMBEDDING, Recipe, Traits, fitting

_N_ROWS = 32  # rows made of each type and length; a matrix repeats them
_PIECE_BYTES = 1 << 24

# Types that iqrun reads but does not write: where their blocks hold float16 scales. The rest may be any bytes.
_SCALES = MappingProxyType({"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "IQ4_XS": (0,)})


@dataclass(frozen=True, slots=True)
class Size:
    """Hyper-parameters of a Llama-like model, by their GGUF names."""

    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    tied: bool = False


SIZES = MappingProxyType(
    {
        "llama-13m": Size(512, 5, 8, 2, 1024, 4096, tied=True),
        "llama-160m": Size(768, 12, 12, 12, 3072, 32000),
        "llama-1b": Size(2048, 16, 32, 8, 8192, 32000),
        "llama-3b": Size(3072, 28, 24, 8, 8192, 128256, tied=True),
        "llama-7b": Size(4096, 32, 32, 32, 11008, 32000),
        "llama-8b": Size(4096, 32, 32, 8, 14336, 128256),
    }
)


def parse(text: str) -> list[tuple[str, str]]:
    """Pairs of size and type from ``llama-1b:IQ2_K``, ``llama-1b:IQ2_K,IQ4_K`` or ``llama-1b:all``.

    Raises:
        FormatError: a type is unknown.
        ValueError: it is not SIZE:TYPE, or the size is unknown.
    """
    size, colon, names = text.partition(":")
    if not colon or size not in SIZES:
        raise ValueError(f"{text!r} is not SIZE:TYPE such as llama-1b:IQ2_K; sizes: {', '.join(SIZES)}")
    if names == "all":
        return [(size, name) for name, row in FORMATS.items() if row.block_weights > 1]
    return [(size, formats.by_name(name).name) for name in names.split(",")]


def write_synthetic(
    path: str | PathLike[str],
    size: str | Size,
    type_name: str,
    *,
    vocabulary: str | PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Writes a GGUF file of random weights.

    Args:
        path: the file to write.
        size: a key of `SIZES`, or hyper-parameters.
        type_name: storage type; where iqrun writes it itself, its usual mix of types is used.
        vocabulary: a GGUF file whose vocabulary to take; by default words are made up.
        progress: called as ``progress(bytes_done, bytes_total)``.

    Raises:
        GGUFError: the file exists, or cannot be written.
        ResourceError: the disk is full.
    """
    plan = GGUFPlan()
    found = SIZES[size] if isinstance(size, str) else size
    if vocabulary is None:
        _add_vocabulary(plan, found.n_vocab)
    else:
        found = replace(found, n_vocab=_copy_vocabulary(plan, vocabulary))
    describe(plan, found, formats.by_name(type_name))
    rows = _Rows()
    total, done = sum(tensor.n_bytes for tensor in plan.tensors), 0
    with GGUFWriter(path, plan) as writer:
        for tensor in plan.tensors:
            for piece in rows.of(tensor):
                writer.write(piece)
            done += tensor.n_bytes
            if progress is not None:
                progress(done, total)


def describe(plan: GGUFPlan, size: Size, main: Format) -> None:
    """Adds the hyper-parameters and tensors of a model to the header of a file to be."""
    plan.set(keys.ARCHITECTURE, "llama", ValueType.STRING)
    plan.set("general.name", "random weights", ValueType.STRING)
    for key, value in _hyper_parameters(size).items():
        plan.set(f"llama.{key}", value, ValueType.UINT32)
    plan.set("llama.attention.layer_norm_rms_epsilon", 1e-5, ValueType.FLOAT32)
    shapes = GGUFPlan()  # the tensors as a recipe wants to see them
    for name, shape in _tensor_shapes(size):
        tensor = shapes.add_tensor(name, shape, FORMATS["F32"].id)
        plan.add_tensor(name, shape, _format(tensor, main, size.tied).id)


def _hyper_parameters(size: Size) -> dict[str, int]:
    return {
        "context_length": 1 << 17,
        "embedding_length": size.n_embd,
        "block_count": size.n_layer,
        "feed_forward_length": size.n_ff,
        "attention.head_count": size.n_head,
        "attention.head_count_kv": size.n_head_kv,
        "rope.dimension_count": size.n_embd // size.n_head,
        "vocab_size": size.n_vocab,
    }


def _add_vocabulary(plan: GGUFPlan, n_vocab: int) -> None:
    """A SentencePiece vocabulary of controls, bytes and made-up words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    tokens += [f"\u2581w{index}" for index in range(n_vocab - len(tokens))]
    types = [2, 3, 3] + [6] * 256 + [1] * (n_vocab - 259)
    plan.set(keys.TOKENIZER_MODEL, "llama", ValueType.STRING)
    plan.set_array(keys.TOKENS, tokens, ValueType.STRING)
    plan.set_array(keys.SCORES, [-float(index) for index in range(n_vocab)], ValueType.FLOAT32)
    plan.set_array(keys.TOKEN_TYPES, types, ValueType.INT32)
    plan.set(keys.BOS_TOKEN_ID, 1, ValueType.UINT32)
    plan.set(keys.EOS_TOKEN_ID, 2, ValueType.UINT32)


def _copy_vocabulary(plan: GGUFPlan, path: str | PathLike[str]) -> int:
    """Takes over another file's vocabulary; returns the number of its tokens."""
    with GGUFFile(path) as file:
        for key in file.metadata:
            if key.startswith("tokenizer."):
                plan.copy(file.metadata, key)
        return len(file.metadata.get_array(keys.TOKENS, "str"))


def _tensor_shapes(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape (row length first) of every tensor."""
    n_embd, n_kv = size.n_embd, size.n_embd // size.n_head * size.n_head_kv
    yield "token_embd.weight", (n_embd, size.n_vocab)
    yield "output_norm.weight", (n_embd,)
    if not size.tied:
        yield "output.weight", (n_embd, size.n_vocab)
    for layer in range(size.n_layer):
        for name, shape in (
            ("attn_norm", (n_embd,)),
            ("attn_q", (n_embd, n_embd)),
            ("attn_k", (n_embd, n_kv)),
            ("attn_v", (n_embd, n_kv)),
            ("attn_output", (n_embd, n_embd)),
            ("ffn_norm", (n_embd,)),
            ("ffn_gate", (n_embd, size.n_ff)),
            ("ffn_up", (n_embd, size.n_ff)),
            ("ffn_down", (size.n_ff, n_embd)),
        ):
            yield f"blk.{layer}.{name}.weight", shape


def _format(tensor: TensorInfo, main: Format, tied: bool) -> Format:
    """The type's usual mix; what iqrun does not write itself gets the output matrix in Q6_K, as is the custom."""
    if len(tensor.shape) < 2:
        return FORMATS["F32"]
    if main.can_encode:
        return Recipe(main).choose(tensor, Traits(tied=tied)).target or main
    is_output = tensor.name == OUTPUT or (tied and tensor.name == TOKEN_EMBEDDING)
    return fitting(FORMATS["Q6_K"] if is_output else main, tensor.n_cols)


class _Rows:
    """Makes stored rows, and keeps them: each type and length is made once."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._made: dict[tuple[str, int], npt.NDArray[np.uint8]] = {}

    def of(self, tensor: TensorInfo) -> Iterator[npt.NDArray[np.uint8]]:
        """A tensor's rows, in pieces."""
        if len(tensor.shape) < 2:  # a norm
            yield np.ones(tensor.n_cols, np.float32).view(np.uint8)
            return
        key = (tensor.type.name, tensor.n_cols)
        if key not in self._made:
            self._made[key] = self._make(FORMATS[tensor.type.name], tensor.n_cols)
        rows = self._made[key]
        n_piece = _N_ROWS * max(1, _PIECE_BYTES // rows.nbytes)
        piece = np.tile(rows, (n_piece // _N_ROWS, 1))
        for first in range(0, tensor.n_rows, n_piece):
            yield piece[: tensor.n_rows - first]

    def _make(self, format_: Format, n_cols: int) -> npt.NDArray[np.uint8]:
        """`_N_ROWS` rows of weights, normally distributed as after training."""
        if format_.can_encode:
            weights = self._rng.standard_normal((_N_ROWS, n_cols), np.float32) / np.float32(n_cols**0.5)
            return formats.encode(weights, format_, effort="fast")
        n_blocks = n_cols // format_.block_weights
        blocks = self._rng.integers(0, 256, (_N_ROWS, n_blocks, format_.block_bytes), np.uint8)
        scale = np.array([n_cols**-0.5 / 1000], np.float16).view(np.uint8)  # of sub-scales up to 63, codes up to 31
        for offset in _SCALES[format_.name]:
            blocks[..., offset : offset + 2] = scale
        return blocks.reshape(_N_ROWS, -1)
