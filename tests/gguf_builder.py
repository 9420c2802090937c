"""Builds small GGUF files in memory, independently of iqrun's writer.

`RawGGUF` is a file field by field, so that a test can break any one of them; `tiny_llama` writes a complete,
valid model with random weights and a small SentencePiece vocabulary.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
CODES = {UINT8: "B", INT8: "b", UINT16: "H", INT16: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?"}
CODES |= {UINT64: "Q", INT64: "q", FLOAT64: "d"}
F32, F16 = 0, 1


def string(raw: str | bytes, n_bytes: int | None = None) -> bytes:
    """A GGUF string; `n_bytes` lies about its length."""
    raw = raw.encode() if isinstance(raw, str) else raw
    return struct.pack("<Q", len(raw) if n_bytes is None else n_bytes) + raw


def scalar(kind: int, value: object) -> bytes:
    """A value of a fixed-size type, or a string."""
    return string(value) if isinstance(value, (str, bytes)) else struct.pack("<" + CODES[kind], value)


def kv(key: str | bytes, kind: int, value: object) -> bytes:
    """A key with a scalar value."""
    return string(key) + struct.pack("<I", kind) + scalar(kind, value)


def kv_raw(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """A key with any bytes as its value."""
    return string(key) + struct.pack("<I", kind) + payload


def kv_array(key: str, item: int, values: Sequence[object], count: int | None = None) -> bytes:
    """A key with an array value; `count` lies about its length."""
    header = struct.pack("<IQ", item, len(values) if count is None else count)
    return kv_raw(key, ARRAY, header + b"".join(scalar(item, value) for value in values))


def tensor_info(name: str | bytes, dims: Sequence[int], type_id: int, offset: int, n_dims: int | None = None) -> bytes:
    """A tensor description; dims are taken modulo 2^64."""
    packed = struct.pack(f"<{len(dims)}Q", *(dim % (1 << 64) for dim in dims))
    count = len(dims) if n_dims is None else n_dims
    return string(name) + struct.pack("<I", count) + packed + struct.pack("<IQ", type_id, offset)


@dataclass
class RawGGUF:
    """A file as its fields; `None` counts are the true ones."""

    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_kv: int | None = None
    kvs: list[bytes] = field(default_factory=list)
    infos: list[bytes] = field(default_factory=list)
    data: bytes = b""
    alignment: int = 32

    def encode(self) -> bytes:
        """The file's bytes."""
        n_tensors = len(self.infos) if self.n_tensors is None else self.n_tensors
        n_kv = len(self.kvs) if self.n_kv is None else self.n_kv
        head = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_kv) + b"".join(self.kvs + self.infos)
        return head + bytes(-len(head) % self.alignment) + self.data

    def write(self, path: Path) -> Path:
        """Writes the file and returns its path."""
        path.write_bytes(self.encode())
        return path

    def add_tensor(self, name: str, dims: Sequence[int], type_id: int, data: bytes) -> None:
        """Appends a tensor with its data, padded to the alignment."""
        self.infos.append(tensor_info(name, dims, type_id, len(self.data)))
        self.data += data + bytes(-len(data) % self.alignment)


# ---- a whole model --------------------------------------------------------------------------------------------

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_WORDS = ("the", "and", "he", "in", "er", "an", "re", "on", "at", "en", "or", "ing", "is", "it", "cat", "dog", "fox")


def spm_vocabulary(n_vocab: int) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types of a SentencePiece vocabulary: controls, 256 bytes, characters and a few words.

    Every word is reachable by merges: all its prefixes are pieces too. `n_vocab` is at least 300, or the first so many
    pieces are given, which is enough for a file that no text is meant for.
    """
    special = ["<unk>", "<s>", "</s>"]
    byte_pieces = [f"<0x{value:02X}>" for value in range(256)]
    letters = ["▁", *"etaoinshrdlucmfwypvbgkjqxz", *".,!?'"]
    prefixes = [start + word[:end] for word in _WORDS for start in ("", "▁") for end in range(1, len(word) + 1)]
    normal = list(dict.fromkeys(letters + [piece for piece in prefixes if len(piece) > 1]))
    normal += [f"piece{index}" for index in range(n_vocab)]
    normal = normal[: max(0, n_vocab - 259)]
    merged_first = sorted(range(len(normal)), key=lambda index: (len(normal[index]) < 2, index))
    scores = [0.0] * n_vocab
    for rank, index in enumerate(merged_first):
        scores[259 + index] = -float(rank)
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(normal)
    return (special + byte_pieces + normal)[:n_vocab], scores, types[:n_vocab]


def tiny_llama(
    path: Path,
    *,
    arch: str = "llama",
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_dim: int | None = None,
    n_ff: int = 128,
    n_vocab: int = 320,
    n_ctx: int = 128,
    tied: bool = False,
    qkv_bias: bool | None = None,
    qk_norm: bool | None = None,
    weight_type: str = "F32",
    n_expert: int = 0,
    n_used: int = 2,
    seed: int = 0,
    extra: Sequence[bytes] = (),
) -> Path:
    """Writes a complete model with random weights (matrices as `weight_type`, vectors F32) and returns its path.

    `qkv_bias` is on for qwen2, `qk_norm` for qwen3 and qwen3moe, unless said; `extra` holds more `kv(...)` entries.
    With `n_expert`, each layer has so many experts of `n_ff` hidden units, and a token uses `n_used` of them.
    """
    head_dim = head_dim or n_embd // n_head
    qkv_bias = arch == "qwen2" if qkv_bias is None else qkv_bias
    qk_norm = arch.startswith("qwen3") if qk_norm is None else qk_norm
    file = RawGGUF(kvs=_model_keys(arch, n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx))
    file.kvs += _vocabulary_keys(n_vocab) + list(extra)
    if n_expert:
        file.kvs += [kv(f"{arch}.expert_count", UINT32, n_expert), kv(f"{arch}.expert_used_count", UINT32, n_used)]
    type_id, encode = encoder(weight_type)
    rng = np.random.default_rng(seed)
    for name, n_rows, n_cols in _matrices(n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff, n_vocab, tied):
        if n_expert and ".ffn_" in name:
            weights = rng.standard_normal((n_expert * n_rows, n_cols), np.float32) / np.float32(n_cols**0.5)
            file.add_tensor(
                name.replace(".weight", "_exps.weight"), (n_cols, n_rows, n_expert), type_id, encode(weights)
            )
            continue
        weights = rng.standard_normal((n_rows, n_cols), np.float32) / np.float32(n_cols**0.5)
        file.add_tensor(name, (n_cols, n_rows), type_id, encode(weights))
    for index in range(n_layer if n_expert else 0):
        scores = rng.standard_normal((n_expert, n_embd), np.float32) / np.float32(n_embd**0.5)
        file.add_tensor(f"blk.{index}.ffn_gate_inp.weight", (n_embd, n_expert), F32, scores.tobytes())
    for name, size, mean in _vectors(n_embd, n_layer, n_head, n_head_kv, head_dim, qkv_bias, qk_norm):
        values = np.float32(mean) + np.float32(0.1) * rng.standard_normal(size, np.float32)
        file.add_tensor(name, (size,), F32, values.tobytes())
    return file.write(path)


def encoder(type_name: str) -> tuple[int, Callable[[npt.NDArray[np.float32]], bytes]]:
    """Type id and encoder of a storage type; F32 and F16 need no native code."""
    if type_name == "F32":
        return F32, lambda weights: weights.tobytes()
    if type_name == "F16":
        return F16, lambda weights: weights.astype("<f2").tobytes()
    from iqrun import formats

    return formats.by_name(type_name).id, lambda weights: formats.encode(weights, type_name).tobytes()


def _model_keys(
    arch: str,
    n_embd: int,
    n_layer: int,
    n_head: int,
    n_head_kv: int,
    head_dim: int,
    n_ff: int,
    n_vocab: int,
    n_ctx: int,
) -> list[bytes]:
    counts = {
        "context_length": n_ctx,
        "embedding_length": n_embd,
        "block_count": n_layer,
        "feed_forward_length": n_ff,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.dimension_count": head_dim,
        "vocab_size": n_vocab,
    }
    return [
        kv("general.architecture", STRING, arch),
        kv("general.name", STRING, f"tiny {arch}"),
        *(kv(f"{arch}.{key}", UINT32, value) for key, value in counts.items()),
        kv(f"{arch}.rope.freq_base", FLOAT32, 10000.0),
        kv(f"{arch}.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
    ]


def _vocabulary_keys(n_vocab: int) -> list[bytes]:
    tokens, scores, types = spm_vocabulary(n_vocab)
    return [
        kv("tokenizer.ggml.model", STRING, "llama"),
        kv("tokenizer.ggml.pre", STRING, "default"),
        kv_array("tokenizer.ggml.tokens", STRING, tokens),
        kv_array("tokenizer.ggml.scores", FLOAT32, scores),
        kv_array("tokenizer.ggml.token_type", INT32, types),
        kv("tokenizer.ggml.bos_token_id", UINT32, 1),
        kv("tokenizer.ggml.eos_token_id", UINT32, 2),
        kv("tokenizer.ggml.unknown_token_id", UINT32, 0),
        kv("tokenizer.ggml.add_bos_token", BOOL, True),
        kv("tokenizer.ggml.add_space_prefix", BOOL, True),
    ]


def _matrices(
    n_embd: int, n_layer: int, n_head: int, n_head_kv: int, head_dim: int, n_ff: int, n_vocab: int, tied: bool
) -> list[tuple[str, int, int]]:
    """Name, rows and columns of every matrix."""
    found = [("token_embd.weight", n_vocab, n_embd)]
    found += [] if tied else [("output.weight", n_vocab, n_embd)]
    for index in range(n_layer):
        layer = f"blk.{index}."
        found += [
            (f"{layer}attn_q.weight", n_head * head_dim, n_embd),
            (f"{layer}attn_k.weight", n_head_kv * head_dim, n_embd),
            (f"{layer}attn_v.weight", n_head_kv * head_dim, n_embd),
            (f"{layer}attn_output.weight", n_embd, n_head * head_dim),
            (f"{layer}ffn_gate.weight", n_ff, n_embd),
            (f"{layer}ffn_up.weight", n_ff, n_embd),
            (f"{layer}ffn_down.weight", n_embd, n_ff),
        ]
    return found


def _vectors(
    n_embd: int, n_layer: int, n_head: int, n_head_kv: int, head_dim: int, qkv_bias: bool, qk_norm: bool
) -> list[tuple[str, int, float]]:
    """Name, length and mean of every vector."""
    found = [("output_norm.weight", n_embd, 1.0)]
    for index in range(n_layer):
        layer = f"blk.{index}."
        found += [(f"{layer}attn_norm.weight", n_embd, 1.0), (f"{layer}ffn_norm.weight", n_embd, 1.0)]
        if qkv_bias:
            found += [(f"{layer}attn_q.bias", n_head * head_dim, 0.0)]
            found += [(f"{layer}attn_{which}.bias", n_head_kv * head_dim, 0.0) for which in "kv"]
        if qk_norm:
            found += [(f"{layer}attn_{which}_norm.weight", head_dim, 1.0) for which in "qk"]
    return found
