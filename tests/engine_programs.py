"""Tiny random programs for tests of the engine, and what they must compute, in numpy.

A `Model` is described with plain dictionaries, one per operation, so that tests can break any field of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iqrun import native
from iqrun.native import check, ffi, lib, pointer

F32, F16, Q8_0, IQ2_K, IQ3_K, IQ4_K, IQ5_K, IQ4_KS = 0, 1, 8, 137, 138, 139, 140, 144
TOKENS, OUTPUTS = 0, 1


@dataclass
class Weight:
    type_id: int
    data: np.ndarray  # uint8 (n_rows, row_bytes)
    values: np.ndarray  # float64 (n_rows, n_cols), what the data mean


def float_weight(values: np.ndarray) -> Weight:
    values = np.atleast_2d(values).astype(np.float32)
    return Weight(F32, values.view(np.uint8).reshape(len(values), -1), values.astype(np.float64))


def random_weight(rng: np.random.Generator, type_id: int, n_rows: int, n_cols: int) -> Weight:
    """Random valid bytes of a type, with scales that make weights of about 1 / sqrt(n_cols)."""
    size = n_cols**-0.5
    if type_id == F32:
        return float_weight(rng.normal(0, size, (n_rows, n_cols)))
    if type_id == F16:
        half = rng.normal(0, size, (n_rows, n_cols)).astype(np.float16)
        return Weight(F16, half.view(np.uint8).reshape(n_rows, -1), half.astype(np.float64))
    info = lib.iq_format_find(type_id)
    n_block = n_cols // info.block_weights
    row_bytes = lib.iq_row_bytes(type_id, n_cols)
    data = rng.integers(0, 256, (n_rows, row_bytes), dtype=np.uint8)
    blocks = data[:, info.row_meta_bytes :].reshape(n_rows, n_block, info.block_bytes)
    scale = (
        size * {Q8_0: 1 / 64, IQ2_K: 1 / 100, IQ3_K: 1 / 400, IQ4_K: 1 / 900, IQ5_K: 1 / 900, IQ4_KS: 1 / 4000}[type_id]
    )
    scales = (scale * rng.uniform(0.5, 1.5, (n_rows, n_block))).astype(np.float16)
    if info.row_meta_bytes:
        data[:, :4] = scales[:, :1].astype(np.float32).view(np.uint8)
    else:
        blocks[:, :, :2] = scales.view(np.uint8).reshape(n_rows, n_block, 2)
    values = np.empty((n_rows, n_cols), np.float32)
    data = np.ascontiguousarray(data)
    check(
        lib.iq_dequantize_rows,
        type_id,
        pointer(data, "const void *"),
        n_rows,
        n_cols,
        pointer(values, "float *", writable=True),
    )
    return Weight(type_id, data, values.astype(np.float64))


@dataclass
class Model:
    buffers: list[list[int]] = field(default_factory=list)  # n_cols, domain
    weights: list[Weight] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    n_layer: int = 0
    n_vocab: int = 0
    output: int = 0

    def buffer(self, n_cols: int, domain: int = TOKENS) -> int:
        self.buffers.append([n_cols, domain])
        return len(self.buffers) - 1

    def weight(self, weight: Weight) -> int:
        self.weights.append(weight)
        return len(self.weights) - 1

    def op(
        self, kind: str, dst: Sequence[int], src: Sequence[int] = (), weight: Sequence[int] = (), **fields: Any
    ) -> None:
        self.ops.append(
            {"kind": kind, "dst": list(dst), "src": list(src), "weight": list(weight), "bias": [], **fields}
        )

    def copy(self) -> Model:
        return Model(
            copy.deepcopy(self.buffers),
            list(self.weights),
            copy.deepcopy(self.ops),
            self.n_layer,
            self.n_vocab,
            self.output,
        )


def transformer(
    seed: int = 0,
    types: Sequence[int] = (F32,),
    *,
    n_layer: int = 2,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_dim: int = 64,
    n_rot: int | None = None,
    n_ff: int = 512,
    n_vocab: int = 96,
    halves: bool = False,
    qk_norm: bool = False,
    bias: bool = False,
) -> Model:
    """A llama-like model with random weights; weight types are taken in turn from `types`."""
    rng = np.random.default_rng(seed)
    m = Model(n_layer=n_layer, n_vocab=n_vocab)
    n_embd, n_q, n_kv, n_rot = n_head * head_dim, n_head * head_dim, n_head_kv * head_dim, n_rot or head_dim
    flags = lib.IQ_FLAG_ROPE_HALVES if halves else 0
    counter = iter(range(10**6))

    def matrix(n_rows: int, n_cols: int) -> int:
        return m.weight(random_weight(rng, types[next(counter) % len(types)], n_rows, n_cols))

    def vector(n: int, mean: float = 1.0) -> int:
        return m.weight(float_weight(rng.normal(mean, 0.2, n)))

    def biases(*sizes: int) -> list[int]:
        return [vector(n, 0.0) if bias else -1 for n in sizes]

    x, normed, q, k, v = (m.buffer(n) for n in (n_embd, n_embd, n_q, n_kv, n_kv))
    attended, gated, table = m.buffer(n_q), m.buffer(n_ff), m.buffer(n_rot)
    m.op("embed", [x], weight=[matrix(n_vocab, n_embd)], f=1.5)
    inv_freq = 100.0 ** (-np.arange(n_rot // 2) * 2 / n_rot)
    m.op("rope_table", [table], weight=[m.weight(float_weight(inv_freq))], n_rot=n_rot, f=1.0)
    for layer in range(n_layer):
        m.op("rms_norm", [normed], [x], [vector(n_embd)], head_dim=n_embd, f=1e-5)
        weights = [matrix(n, n_embd) for n in (n_q, n_kv, n_kv)]
        m.op("matmul", [q, k, v], [normed], weights, bias=biases(n_q, n_kv, n_kv))
        for buffer in (q, k):
            if qk_norm:
                m.op("rms_norm", [buffer], [buffer], [vector(head_dim)], head_dim=head_dim, f=1e-6)
            m.op("rope", [buffer], [table], head_dim=head_dim, n_rot=n_rot, flags=flags)
        heads = {"n_head": n_head, "n_head_kv": n_head_kv, "head_dim": head_dim}
        m.op("attention", [attended], [q, k, v], layer=layer, f=head_dim**-0.5, **heads)
        m.op("matmul", [x], [attended], [matrix(n_embd, n_q)], flags=lib.IQ_FLAG_ADD, bias=biases(n_embd))
        m.op("rms_norm", [normed], [x], [vector(n_embd)], head_dim=n_embd, f=1e-5)
        m.op("gated_matmul", [gated], [normed], [matrix(n_ff, n_embd), matrix(n_ff, n_embd)], bias=biases(n_ff, n_ff))
        m.op("matmul", [normed], [gated], [matrix(n_embd, n_ff)])
        m.op("add", [x], [normed])
    chosen, out_normed = m.buffer(n_embd, OUTPUTS), m.buffer(n_embd, OUTPUTS)
    m.output = m.buffer(n_vocab, OUTPUTS)
    m.op("select", [chosen], [x])
    m.op("rms_norm", [out_normed], [chosen], [vector(n_embd)], head_dim=n_embd, f=1e-5)
    m.op("matmul", [m.output], [out_normed], [matrix(n_vocab, n_embd)])
    return m


class NativeProgram:
    """The model inside the native core."""

    def __init__(self, model: Model, isa: str | None = None) -> None:
        self.model = model
        self._keep = [model.weights]
        spec = ffi.new("iq_program_spec *")
        for name, items in (
            ("op", [_op(op) for op in model.ops]),
            ("buffer", [{"n_cols": n, "domain": d} for n, d in model.buffers]),
            ("weight", [_weight(w) for w in model.weights]),
        ):
            array = ffi.new(f"iq_{name}[]", items)
            self._keep.append(array)
            setattr(spec, name + "s", array)
            setattr(spec, "n_" + name, len(items))
        spec.n_layer, spec.n_vocab, spec.output = model.n_layer, model.n_vocab, model.output
        out = ffi.new("iq_program **")
        check(lib.iq_program_create, spec, native.kernels(isa), out)
        self.handle = ffi.gc(out[0], lib.iq_program_free)


def _slots(indices: Sequence[int]) -> list[int]:
    return list(indices) + [-1] * (4 - len(indices))


def _op(op: dict[str, Any]) -> dict[str, Any]:
    kind = op["kind"]
    return {
        "kind": getattr(lib, "IQ_OP_" + kind.upper()) if isinstance(kind, str) else kind,
        "flags": op.get("flags", 0),
        "n": op.get("n", len(op["weight"])),
        "layer": op.get("layer", -1),
        "f": [op.get("f", 0.0), 0, 0, 0],
        **{name: _slots(op[name]) for name in ("dst", "src", "weight", "bias")},
        **{name: op.get(name, 0) for name in ("n_head", "n_head_kv", "head_dim", "n_rot")},
    }


def _weight(weight: Weight) -> dict[str, Any]:
    n_rows, n_cols = weight.values.shape
    return {"data": pointer(weight.data, "const void *"), "type": weight.type_id, "n_rows": n_rows, "n_cols": n_cols}


class Context:
    """A running model; methods are the calls of iqrun.h."""

    def __init__(
        self,
        program: NativeProgram,
        *,
        n_ctx: int = 256,
        n_batch: int = 128,
        n_seq: int = 4,
        n_threads: int = 1,
        kv_type: int = F32,
    ) -> None:
        self.program = program
        self.params = ffi.new("iq_context_params *", [n_ctx, n_batch, n_seq, n_threads, kv_type])
        out = ffi.new("iq_context **")
        check(lib.iq_context_create, program.handle, self.params, out)
        self.handle = ffi.gc(out[0], lib.iq_context_free)

    def batch(self, tokens: Sequence[int], seqs: Sequence[int] | int = 0, want: Sequence[bool] | None = None) -> Any:
        token = np.array(tokens, np.int32)
        seq = np.full(len(token), seqs, np.int32) if isinstance(seqs, int) else np.array(seqs, np.int32)
        wanted = None if want is None else np.array(want, np.uint8)
        self._keep = token, seq, wanted
        batch = ffi.new("iq_batch *")
        batch.n_tokens = len(token)
        batch.token, batch.seq = pointer(token, "int32_t *"), pointer(seq, "int32_t *")
        batch.want = ffi.NULL if wanted is None else pointer(wanted, "uint8_t *")
        return batch

    def step(
        self, tokens: Sequence[int], seqs: Sequence[int] | int = 0, want: Sequence[bool] | None = None, way: int = 0
    ) -> np.ndarray:
        """Logits (number of wanted tokens, n_vocab)."""
        batch = self.batch(tokens, seqs, want)
        batch.way = way
        n_out = 1 if want is None else int(np.sum(want))
        out = np.full((n_out, self.program.model.buffers[self.program.model.output][0]), np.nan, np.float32)
        check(lib.iq_step, self.handle, batch, pointer(out, "float *", writable=True))
        return out

    def begin(self, tokens: Sequence[int], seqs: Sequence[int] | int = 0, want: Sequence[bool] | None = None) -> None:
        check(lib.iq_step_begin, self.handle, self.batch(tokens, seqs, want))

    def run(self, first: int, last: int) -> None:
        check(lib.iq_step_run, self.handle, first, last)

    def end(self, commit: bool) -> None:
        lib.iq_step_end(self.handle, commit)

    def buffer(self, index: int) -> np.ndarray:
        n_rows = ffi.new("uint32_t *")
        stride = ffi.new("size_t *")
        data = lib.iq_context_buffer(self.handle, index, n_rows, stride)
        n_cols = self.program.model.buffers[index][0]
        raw = ffi.buffer(data, n_rows[0] * stride[0] * 4)
        return np.frombuffer(raw, np.float32).reshape(n_rows[0], stride[0])[:, :n_cols].copy()

    def length(self, seq: int = 0) -> int:
        return int(lib.iq_seq_length(self.handle, seq))

    def kv_free(self) -> int:
        return int(lib.iq_kv_free(self.handle))

    def truncate(self, seq: int, length: int) -> None:
        check(lib.iq_seq_truncate, self.handle, seq, length)

    def copy_seq(self, src: int, dst: int, length: int) -> None:
        check(lib.iq_seq_copy, self.handle, src, dst, length)

    def export_state(self, seq: int, length: int, size: int | None = None) -> np.ndarray:
        data = np.empty(lib.iq_seq_state_bytes(self.handle, length) if size is None else size, np.uint8)
        check(lib.iq_seq_export, self.handle, seq, length, pointer(data, "void *", writable=True), data.size)
        return data

    def import_state(self, seq: int, length: int, data: np.ndarray) -> None:
        check(lib.iq_seq_import, self.handle, seq, length, pointer(data, "const void *"), data.size)


class Reference:
    """One sequence of the model in numpy, float64; keys and values are kept for the whole of it."""

    def __init__(self, model: Model, kv_type: int = F32) -> None:
        self.model = model
        self.kv_type = kv_type
        self.cache: list[Any] = [None] * model.n_layer
        self.n_past = 0

    def step(self, tokens: Sequence[int], want: Sequence[bool] | None = None) -> np.ndarray:
        self.start(tokens, want)
        for op in self.model.ops:
            self.run(op)
        self.n_past += len(tokens)
        return self.buffers[self.model.output]

    def start(self, tokens: Sequence[int], want: Sequence[bool] | None) -> None:
        self.tokens = np.array(tokens)
        self.want = np.array([False] * (len(tokens) - 1) + [True] if want is None else want, bool)
        self.pos = self.n_past + np.arange(len(tokens))
        self.buffers: dict[int, np.ndarray] = {}

    def run(self, op: dict[str, Any]) -> None:
        getattr(self, "_" + op["kind"])(op)

    def _values(self, index: int) -> np.ndarray:
        return self.model.weights[index].values

    def _product(self, op: dict[str, Any], i: int) -> np.ndarray:
        weight, x = self.model.weights[op["weight"][i]], self.buffers[op["src"][0]]
        y = (x if weight.type_id in (F32, F16) else int8_activations(x)) @ weight.values.T
        bias = op["bias"][i] if op["bias"] else -1
        return y if bias < 0 else y + self._values(bias)[0]

    def _embed(self, op: dict[str, Any]) -> None:
        self.buffers[op["dst"][0]] = self._values(op["weight"][0])[self.tokens] * op["f"]

    def _select(self, op: dict[str, Any]) -> None:
        self.buffers[op["dst"][0]] = self.buffers[op["src"][0]][self.want]

    def _rms_norm(self, op: dict[str, Any]) -> None:
        x = self.buffers[op["src"][0]]
        groups = x.reshape(len(x), x.shape[1] // op["head_dim"], op["head_dim"])
        scale = 1 / np.sqrt((groups**2).mean(2, keepdims=True) + op["f"])
        weight = self._values(op["weight"][0])[0] if op["weight"] else 1.0
        self.buffers[op["dst"][0]] = (groups * scale * weight).reshape(x.shape)

    def _matmul(self, op: dict[str, Any]) -> None:
        for i, dst in enumerate(op["dst"]):
            y = self._product(op, i)
            self.buffers[dst] = self.buffers[dst] + y if op.get("flags", 0) & lib.IQ_FLAG_ADD else y

    def _gated_matmul(self, op: dict[str, Any]) -> None:
        gate = self._product(op, 0)
        self.buffers[op["dst"][0]] = gate / (1 + np.exp(-gate)) * self._product(op, 1)

    def _rope_table(self, op: dict[str, Any]) -> None:
        angle = self.pos[:, None] * self._values(op["weight"][0])
        self.buffers[op["dst"][0]] = np.hstack([np.cos(angle), np.sin(angle)]) * op["f"]

    def _rope(self, op: dict[str, Any]) -> None:
        table, half = self.buffers[op["src"][0]][:, None], op["n_rot"] // 2
        x = self.buffers[op["dst"][0]]
        heads = x.reshape(len(x), -1, op["head_dim"]).copy()
        halves = op.get("flags", 0) & lib.IQ_FLAG_ROPE_HALVES
        first, second = (
            (slice(0, half), slice(half, 2 * half)) if halves else (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
        )
        a, b, cos, sin = heads[..., first].copy(), heads[..., second].copy(), table[..., :half], table[..., half:]
        heads[..., first], heads[..., second] = a * cos - b * sin, a * sin + b * cos
        self.buffers[op["dst"][0]] = heads.reshape(x.shape)

    def _attention(self, op: dict[str, Any]) -> None:
        q, k, v = (self.buffers[i].reshape(len(self.tokens), -1, op["head_dim"]) for i in op["src"])
        k, v = (cached(x, self.kv_type).astype(np.float64) for x in (k, v))
        if self.kv_type == Q8_0:
            q = int8_activations(q.reshape(-1, op["head_dim"])).reshape(q.shape)
        if self.cache[op["layer"]]:
            k, v = (np.concatenate([old, new]) for old, new in zip(self.cache[op["layer"]], (k, v), strict=True))
        self.cache[op["layer"]] = k, v
        group = op["n_head"] // op["n_head_kv"]
        scores = np.einsum("qhd,khd->hqk", q, k.repeat(group, 1)) * op["f"]
        scores = np.where(np.arange(len(k)) > self.pos[:, None], -np.inf, scores)
        weights = np.exp(scores - scores.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        self.buffers[op["dst"][0]] = np.einsum("hqk,khd->qhd", weights, v.repeat(group, 1)).reshape(len(q), -1)

    def _add(self, op: dict[str, Any]) -> None:
        self.buffers[op["dst"][0]] = self.buffers[op["dst"][0]] + self.buffers[op["src"][0]]


def cached(x: np.ndarray, kv_type: int) -> np.ndarray:
    """What is left of keys or values (..., head_dim) in a cache of this type."""
    if kv_type == Q8_0:
        blocks = np.pad(x.reshape(-1, x.shape[-1]), ((0, 0), (0, -x.shape[-1] % 32))).reshape(-1, 32)
        blocks = blocks.astype(np.float32)
        d = (np.abs(blocks).max(1, keepdims=True) / np.float32(127)).astype(np.float16).astype(np.float32)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
        rounded = np.clip(np.rint(blocks * inverse), -127, 127) * d
        rows = rounded.astype(np.float64).reshape(*x.shape[:-1], -1)
        return rows[..., : x.shape[-1]]
    return x.astype(np.float32).astype(np.float16 if kv_type == F16 else np.float32).astype(x.dtype)


def int8_activations(x: np.ndarray) -> np.ndarray:
    """What is left of x after rounding to int8 with one scale per 32 columns, as quantized matmuls read it."""
    blocks = np.pad(x, ((0, 0), (0, -x.shape[1] % 32))).reshape(len(x), -1, 32).astype(np.float32)
    most = np.abs(blocks).max(2, keepdims=True)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    rounded = np.rint(blocks * inverse).astype(np.float64) * (most / 127)
    return rounded.reshape(len(x), -1)[:, : x.shape[1]]
