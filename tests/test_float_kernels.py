"""The float operations of every instruction set against float64: odd lengths, extreme values, all head shapes.

Inputs reach an operation unchanged: an embedding row is the input of the token with its number, and matrices of zeros
and ones pick columns out of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iqrun import native
from iqrun.native import lib
from tests.engine_programs import (
    F16,
    F32,
    OUTPUTS,
    Q8_0,
    Context,
    Model,
    NativeProgram,
    cached,
    float_weight,
    int8_activations,
)

ISAS = [name for name, runs_here in native.built_isas().items() if runs_here]
EPS = 2.0**-23


def picking(n_cols: int, first: int, n: int) -> np.ndarray:
    """The matrix that picks columns [first, first + n)."""
    return np.eye(n, n_cols, first)


class Graph:
    """A program whose input x is any float32 matrix: one token per row."""

    def __init__(self, x: np.ndarray) -> None:
        self.model = Model(n_vocab=len(x))
        self.n_cols = x.shape[1]
        self.x = self.model.buffer(self.n_cols)
        self.model.op("embed", [self.x], weight=[self.weight(x)], f=1.0)

    def weight(self, values: np.ndarray) -> int:
        return self.model.weight(float_weight(values))

    def columns(self, first: int, n: int) -> int:
        out = self.model.buffer(n)
        self.model.op("matmul", [out], [self.x], [self.weight(picking(self.n_cols, first, n))])
        return out

    def op(self, kind: str, n_cols: int, src: list[int], weight: tuple[int, ...] = (), **fields: Any) -> int:
        out = self.model.buffer(n_cols)
        self.model.op(kind, [out], src, weight, **fields)
        return out

    def context(self, result: int, isa: str, **params: Any) -> Context:
        n_cols = self.model.buffers[result][0]
        self.model.output = self.model.buffer(n_cols, OUTPUTS)
        self.model.op("select", [self.model.output], [result])
        return Context(NativeProgram(self.model, isa), **params)

    def run(self, result: int, isa: str) -> np.ndarray:
        n = self.model.n_vocab
        return self.context(result, isa, n_ctx=n, n_batch=n).step(range(n), 0, [True] * n)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 17, 33, 63, 64, 65, 100, 257, 1000, 4099])
def test_rms_norm_of_any_length_and_size(isa: str, n: int) -> None:
    """Normal, huge, tiny and zero rows; the tail behind the last whole vector counts."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(6, n)) * np.array([1, 1e15, 1e-3, 1e-15, 0, 1])[:, None]
    x[5, -1] = 100
    x, weight = x.astype(np.float32), rng.normal(1, 0.3, n).astype(np.float32)
    graph = Graph(x)
    got = graph.run(graph.op("rms_norm", n, [graph.x], (graph.weight(weight),), head_dim=n, f=1e-6), isa)
    exact = x.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(1, keepdims=True) + np.float32(1e-6)) * weight
    assert np.allclose(got, expected, rtol=(n / 64 + 16) * EPS, atol=0)
    assert not got[4].any()


@pytest.mark.parametrize("isa", ISAS)
def test_rms_norm_of_heads_in_place(isa: str) -> None:
    """Each head alone, without a weight, into the same buffer."""
    x = np.random.default_rng(0).normal(size=(3, 5 * 24)).astype(np.float32) * np.repeat([1, 10, 0, 1e3, 1e-2], 24)
    graph = Graph(x.astype(np.float32))
    graph.model.op("rms_norm", [graph.x], [graph.x], head_dim=24, f=1e-5)
    heads = x.reshape(3, 5, 24).astype(np.float64)
    expected = heads / np.sqrt((heads**2).mean(2, keepdims=True) + 1e-5)
    assert np.allclose(graph.run(graph.x, isa), expected.reshape(3, -1), rtol=32 * EPS, atol=0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 100, 301])
def test_gate_is_silu_times_up(isa: str, n: int) -> None:
    """The whole range of exp, to a few units in the last place; far out it is 0 or the gate itself, never NaN."""
    rng = np.random.default_rng(n)
    gate = np.concatenate(
        [np.linspace(-85, 85, 40 * n), rng.normal(size=20 * n), [-3e38, -200, -100, -0.0, 0, 1e-30, 90, 3e38] * n]
    )
    gate = gate.reshape(-1, n).astype(np.float32)
    up = rng.uniform(0.5, 1, gate.shape).astype(np.float32)
    graph = Graph(np.hstack([gate, up]))
    weights = graph.weight(picking(2 * n, 0, n)), graph.weight(picking(2 * n, n, n))
    got = graph.run(graph.op("gated_matmul", n, [graph.x], weights), isa)
    with np.errstate(over="ignore"):
        expected = gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * up
    assert np.allclose(got, expected, rtol=8 * EPS, atol=2e-36)


@pytest.mark.parametrize("isa", ISAS)
def test_bad_numbers_stay_visible(isa: str) -> None:
    """NaN and infinity in a row come out as NaN or infinity, in that row only."""
    n = 40
    x = np.ones((4, n), np.float32)
    x[1, 37], x[2, 3] = np.nan, np.inf
    graph = Graph(np.hstack([x, np.ones_like(x)]))
    weights = graph.weight(np.eye(n, 2 * n)), graph.weight(np.eye(n, 2 * n, n))
    normed = graph.op("rms_norm", 2 * n, [graph.x], head_dim=2 * n, f=1e-5)
    for result in (normed, graph.op("gated_matmul", n, [graph.x], weights)):
        bad = ~np.isfinite(Graph.run(graph, result, isa)).all(1)
        assert bad.tolist() == [False, True, True, False]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 16, 31, 100])
def test_add_is_exact(isa: str, n: int) -> None:
    """dst += src, bit for bit."""
    x = np.random.default_rng(n).normal(size=(3, 2 * n)).astype(np.float32)
    graph = Graph(x)
    a, b = graph.columns(0, n), graph.columns(n, n)
    graph.model.op("add", [a], [b])
    assert np.array_equal(graph.run(a, isa), x[:, :n] + x[:, n:])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(("head_dim", "n_rot"), [(8, 2), (16, 6), (64, 64), (80, 32), (96, 96), (128, 128), (40, 34)])
def test_rope_turns_pairs_and_leaves_the_rest(isa: str, halves: bool, head_dim: int, n_rot: int) -> None:
    """Both pairings at every position; columns from n_rot on keep their bits."""
    n_head, half = 3, n_rot // 2
    x = np.random.default_rng(1).normal(size=(20, n_head * head_dim)).astype(np.float32)
    inv_freq = (50.0 ** -(np.arange(half) / half)).astype(np.float32)
    graph = Graph(x)
    table = graph.op("rope_table", n_rot, [], (graph.weight(inv_freq),), n_rot=n_rot, f=1.25)
    flags = lib.IQ_FLAG_ROPE_HALVES if halves else 0
    graph.model.op("rope", [graph.x], [table], head_dim=head_dim, n_rot=n_rot, flags=flags)
    got = graph.run(graph.x, isa).reshape(20, n_head, head_dim)
    heads = x.reshape(20, n_head, head_dim)
    angle = (np.arange(20, dtype=np.float32)[:, None] * inv_freq).astype(np.float64)
    turn = 1.25 * np.exp(1j * angle)[:, None]
    pairs = (slice(0, half), slice(half, n_rot)) if halves else (slice(0, n_rot, 2), slice(1, n_rot, 2))
    expected = (heads[..., pairs[0]] + 1j * heads[..., pairs[1]]) * turn
    assert np.allclose(got[..., pairs[0]], expected.real, atol=1e-6)
    assert np.allclose(got[..., pairs[1]], expected.imag, atol=1e-6)
    assert np.array_equal(got[..., n_rot:], heads[..., n_rot:])


def attention_graph(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, n_head: int, n_head_kv: int, scale: float
) -> tuple[Graph, int]:
    graph = Graph(np.hstack([q, k, v]))
    graph.model.n_layer = 1
    n_q, n_kv = q.shape[1], k.shape[1]
    sources = [graph.columns(0, n_q), graph.columns(n_q, n_kv), graph.columns(n_q + n_kv, n_kv)]
    heads = {"n_head": n_head, "n_head_kv": n_head_kv, "head_dim": n_q // n_head}
    return graph, graph.op("attention", n_q, sources, layer=0, f=scale, **heads)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, n_head: int, n_head_kv: int, scale: float) -> np.ndarray:
    n = len(q)
    heads = ((q, n_head), (k, n_head_kv), (v, n_head_kv))
    q, k, v = (x.astype(np.float64).reshape(n, h, -1).transpose(1, 0, 2) for x, h in heads)
    group = n_head // n_head_kv
    scores = q @ k.repeat(group, 0).transpose(0, 2, 1) * scale
    scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    return (weights @ v.repeat(group, 0)).transpose(1, 0, 2).reshape(n, -1)


def attend_cached(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, n_head: int, n_head_kv: int, scale: float, kv_type: int
) -> np.ndarray:
    """The same with keys and values as the cache keeps them, and a query as that cache reads it."""
    n, head_dim = len(q), q.shape[1] // n_head
    k, v = (cached(x.reshape(n, -1, head_dim), kv_type).reshape(n, -1) for x in (k, v))
    if kv_type == Q8_0:
        q = int8_activations(q.reshape(-1, head_dim)).reshape(q.shape)
    return attend(q, k, v, n_head, n_head_kv, scale)


# q8_0: weights are rounded to 2^-16 of the largest one of 64
TOLERANCE = {F32: 4e-6, F16: 4e-6, Q8_0: 3e-4}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_type", [F32, F16, Q8_0])
@pytest.mark.parametrize(
    ("head_dim", "n_head", "n_head_kv"),
    [
        (8, 1, 1),
        (16, 4, 2),
        (24, 3, 3),
        (40, 7, 1),
        (64, 8, 2),
        (72, 6, 2),
        (80, 4, 4),
        (96, 5, 1),
        (128, 2, 1),
        (248, 2, 2),
        (256, 4, 2),
        (512, 2, 1),
        (8, 70, 1),
    ],
)
def test_attention_of_every_head_shape(isa: str, kv_type: int, head_dim: int, n_head: int, n_head_kv: int) -> None:
    """Causal attention over several KV blocks, prefilled in one step; alone or in a tile, a row has the same bits."""
    rng, n = np.random.default_rng(head_dim), 150
    q, k, v = (rng.normal(size=(n, h * head_dim)).astype(np.float32) for h in (n_head, n_head_kv, n_head_kv))
    scale = float(np.float32(head_dim**-0.5))
    graph, result = attention_graph(q, k, v, n_head, n_head_kv, scale)
    context = graph.context(result, isa, n_ctx=n, n_batch=n, kv_type=kv_type, n_threads=2)
    got = context.step(range(n), 0, [True] * n)
    expected = attend_cached(q, k, v, n_head, n_head_kv, scale, kv_type)
    assert np.allclose(got, expected, atol=TOLERANCE[kv_type])
    context.truncate(0, 0)
    parts = [context.step(range(a, b), 0, [True] * (b - a)) for a, b in ((0, 1), (1, 70), (70, 75), (75, 76), (76, n))]
    assert np.array_equal(np.vstack(parts), got)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kv_type", "atol"), [(F32, 2e-6), (F16, 2e-6), (Q8_0, 3e-4)])
def test_attention_of_extreme_scores(isa: str, kv_type: int, atol: float) -> None:
    """Scores far apart pick one value, equal scores give the mean, and a growing maximum rescales what was summed."""
    n, head_dim = 140, 32
    rng = np.random.default_rng(2)
    v = rng.normal(size=(n, head_dim)).astype(np.float16).astype(np.float32)
    q = np.ones((n, head_dim), np.float32)
    for slope in (0.0, 1.0, -1.0, 100.0, -100.0, 1000.0):
        k = np.repeat(slope * np.arange(n, dtype=np.float32)[:, None], head_dim, 1)
        k = np.clip(k, -65504, 65504)
        graph, result = attention_graph(q, k, v, 1, 1, 1.0)
        got = graph.context(result, isa, n_ctx=n, n_batch=n, kv_type=kv_type).step(range(n), 0, [True] * n)
        assert np.allclose(got, attend_cached(q, k, v, 1, 1, 1.0, kv_type), atol=atol), slope


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_type", [F32, F16, Q8_0])
@pytest.mark.parametrize(("n_head", "n_head_kv"), [(6, 2), (2, 2), (5, 1)])
def test_attention_over_long_contexts_is_the_same_for_every_split(
    isa: str, kv_type: int, n_head: int, n_head_kv: int
) -> None:
    """Over several ranges of positions: prefilled by one thread, or token after token with ranges dealt to threads."""
    rng, n, head_dim = np.random.default_rng(n_head), 1100, 16
    q, k, v = (rng.normal(size=(n, h * head_dim)).astype(np.float32) * 2 for h in (n_head, n_head_kv, n_head_kv))
    graph, result = attention_graph(q, k, v, n_head, n_head_kv, 0.25)
    context = graph.context(result, isa, n_ctx=n, n_batch=n)
    program, tail = context.program, [1, 2, 1, 4, 1, 8, 1]
    whole = Context(program, n_ctx=n, n_batch=n, kv_type=kv_type).step(range(n), 0, [True] * n)
    expected = attend_cached(q, k, v, n_head, n_head_kv, 0.25, kv_type)
    assert np.allclose(whole, expected, atol=2 * TOLERANCE[kv_type])
    for n_threads in (2, 3, 5):
        context = Context(program, n_ctx=2 * n + 64, n_batch=n, n_threads=n_threads, kv_type=kv_type)
        context.step(range(515), 1)  # shares the last steps, with fewer ranges
        done = n - sum(tail)
        rows = [context.step(range(done), 0, [True] * done)]
        for size in tail[:-1]:
            rows.append(context.step(range(done, done + size), 0, [True] * size))
            done += size
        both = context.step([done, 515], [0, 1], [True, True])
        assert np.array_equal(np.vstack([*rows, both[:1]]), whole)
        assert np.array_equal(both[1], whole[515])


@pytest.mark.parametrize("isa", ISAS)
def test_values_beyond_float16_are_clamped_in_a_float16_cache(isa: str) -> None:
    """A K or V too large for the cache becomes its largest number: nothing turns into NaN."""
    rng, n = np.random.default_rng(3), 70
    q, k, v = (rng.normal(size=(n, 16)).astype(np.float32) for _ in range(3))
    v[60], k[65, 3] = 1e6, -1e9
    graph, result = attention_graph(q, k, v, 1, 1, 1e-3)
    got = graph.context(result, isa, n_ctx=n, n_batch=n, kv_type=F16).step(range(n), 0, [True] * n)
    k, v = (np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32) for x in (k, v))
    assert np.isfinite(got).all()
    assert np.allclose(got, attend(q, k, v, 1, 1, 1e-3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_embedding_rows_are_scaled(isa: str) -> None:
    """A row of the table times the factor."""
    x = np.random.default_rng(4).normal(size=(9, 21)).astype(np.float32)
    graph = Graph(x)
    graph.model.ops[0]["f"] = 3.5
    assert np.array_equal(graph.run(graph.x, isa), x * np.float32(3.5))
