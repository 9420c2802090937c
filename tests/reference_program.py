"""What each operation of a program computes, in numpy: the reference for every architecture and for the C engine.

Weights are decoded to float64 and nothing is quantized on the way, so the engine's int8 activations show as a small
difference for quantized weights and as none for F32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iqrun import formats
from iqrun.program import Buffer, Op, Program, Weight


class ReferenceSession:
    """One sequence: evaluates a program's operations in order, with a KV cache of plain arrays."""

    def __init__(self, program: Program, dtype: Any = np.float64) -> None:
        self.program = program
        self.dtype = dtype
        self.n_past = 0
        self.buffers: dict[int, np.ndarray] = {}
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._decoded: dict[int, np.ndarray] = {}

    def evaluate(self, ids: Sequence[int], wanted: Sequence[bool] | None = None) -> np.ndarray:
        """Appends tokens; logits (wanted tokens, n_vocab), by default of all."""
        self.ids = np.asarray(ids)
        self.wanted = np.ones(len(self.ids), bool) if wanted is None else np.asarray(wanted)
        self.positions = self.n_past + np.arange(len(self.ids))
        for op in self.program.ops:
            getattr(self, f"_{op.kind}")(op)
        self.n_past += len(self.ids)
        return self.buffers[self.program.logits.index]

    def _get(self, buffer: Buffer) -> np.ndarray:
        value = self.buffers[buffer.index]
        n_rows = len(self.ids) if buffer.rows == "tokens" else int(self.wanted.sum())
        n_rows *= max(1, buffer.n_used)
        assert value.shape == (n_rows, buffer.n_cols), f"{buffer}: {value.shape}"
        return value

    def _set(self, buffer: Buffer, value: np.ndarray) -> None:
        self.buffers[buffer.index] = value

    def _weight(self, weight: Weight) -> np.ndarray:
        if weight.index not in self._decoded:
            decoded = formats.decode(np.asarray(weight.data), weight.type_id, weight.n_cols)
            self._decoded[weight.index] = decoded.astype(self.dtype)
        return self._decoded[weight.index]

    def _product(self, op: Op, i: int) -> np.ndarray:
        weight, x = op.weight[i], self._get(op.src[0])
        if weight.n_expert:
            matrices = self._weight(weight).reshape(weight.n_expert, weight.n_rows, weight.n_cols)
            return np.einsum("rc,rnc->rn", x, matrices[np.sort(self._experts.ravel())])
        y = x @ self._weight(weight).T
        bias = op.bias[i]
        return y if bias is None else y + self._weight(bias)[0]

    def _embed(self, op: Op) -> None:
        self._set(op.dst[0], self._weight(op.weight[0])[self.ids] * op.f)

    def _select(self, op: Op) -> None:
        self._set(op.dst[0], self._get(op.src[0])[self.wanted])

    def _rms_norm(self, op: Op) -> None:
        x = self._get(op.src[0])
        groups = x.reshape(len(x), -1, op.head_dim)
        scale = 1.0 / np.sqrt((groups**2).mean(axis=2, keepdims=True) + op.f)
        self._set(op.dst[0], (groups * scale * self._weight(op.weight[0])[0]).reshape(x.shape))

    def _matmul(self, op: Op) -> None:
        results = [self._product(op, i) for i in range(len(op.weight))]
        for dst, y in zip(op.dst, results, strict=True):
            self._set(dst, self._get(dst) + y if op.add else y)

    def _gated_matmul(self, op: Op) -> None:
        gate = self._product(op, 0)
        self._set(op.dst[0], gate / (1.0 + np.exp(-gate)) * self._product(op, 1))

    def _rope_table(self, op: Op) -> None:
        angles = self.positions[:, None] * self._weight(op.weight[0])
        self._set(op.dst[0], np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * op.f)

    def _rope(self, op: Op) -> None:
        table, half = self._get(op.src[0])[:, None, :], op.n_rot // 2
        cos, sin = table[..., :half], table[..., half:]
        heads = self._get(op.dst[0]).reshape(len(self.ids), op.n_head, op.head_dim).copy()
        first, second = (
            (np.s_[:half], np.s_[half : op.n_rot])
            if op.rope_halves
            else (np.s_[: op.n_rot : 2], np.s_[1 : op.n_rot : 2])
        )
        a, b = heads[..., first].copy(), heads[..., second].copy()
        heads[..., first], heads[..., second] = a * cos - b * sin, a * sin + b * cos
        self._set(op.dst[0], heads.reshape(len(self.ids), -1))

    def _attention(self, op: Op) -> None:
        q, k, v = (self._get(buffer).reshape(len(self.ids), -1, op.head_dim) for buffer in op.src)
        if op.layer in self._cache:
            past_k, past_v = self._cache[op.layer]
            k, v = np.concatenate([past_k, k]), np.concatenate([past_v, v])
        self._cache[op.layer] = (k, v)
        share = op.n_head // op.n_head_kv
        k, v = k.repeat(share, axis=1), v.repeat(share, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) * op.f
        future = np.arange(len(k))[None, :] > self.positions[:, None]
        scores = np.where(future, -np.inf, scores)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        self._set(op.dst[0], np.einsum("hqk,khd->qhd", weights, v).reshape(len(self.ids), -1))

    def _route(self, op: Op) -> None:
        scores = self._get(op.src[0])
        self._experts = np.argsort(-scores, axis=1, kind="stable")[:, : op.dst[0].n_cols]
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares = np.take_along_axis(shares, self._experts, axis=1)
        if op.norm_shares:
            shares /= shares.sum(axis=1, keepdims=True)
        self._set(op.dst[0], self._experts)
        self._set(op.dst[1], op.f * shares)
        self._order = np.argsort(self._experts.ravel(), kind="stable")  # dealt rows: by expert, then by row

    def _deal(self, op: Op) -> None:
        self._set(op.dst[0], self._get(op.src[0])[self._order // self._experts.shape[1]])

    def _collect(self, op: Op) -> None:
        y, shares = self._get(op.src[0]), self._get(op.src[1])
        back = np.empty_like(y)
        back[self._order] = y
        mixed = (back.reshape(*shares.shape, -1) * shares[..., None]).sum(axis=1)
        self._set(op.dst[0], self._get(op.dst[0]) + mixed)

    def _add(self, op: Op) -> None:
        self._set(op.dst[0], self._get(op.dst[0]) + self._get(op.src[0]))
