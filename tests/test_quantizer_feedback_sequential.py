"""Quantizing along a text: the walk through a program, what inputs ask of weights, and the files that come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.engine.lowering import NativeProgram
from iqrun.evaluation.evaluate import text_chunks
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from iqrun.program import Buffer, Op
from iqrun.quantizer import quantize
from iqrun.quantizer.feedback import SequentialEncoder, bytes_per_token
from iqrun.quantizer.feedback.factors import damped
from iqrun.quantizer.feedback.inputs import of_both_models, of_one_model
from iqrun.quantizer.feedback.walk import Walk, live_buffers
from tests.gguf_builder import tiny_llama
from tests.reference_models import CASES, write_case
from tests.test_calibration import OTHER, TEXT

N_CTX = 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=2, weight_type="F16")


@pytest.fixture
def model(path: Path) -> Iterator[iqrun.Model]:
    with iqrun.load(path, n_ctx=N_CTX, n_threads=2) as model:
        yield model


def chunks(model: iqrun.Model, text: str = f"{TEXT} {OTHER} {TEXT}") -> list[np.ndarray]:
    return text_chunks(model, text, N_CTX, None, min_chunks=1)


# ---- the walk ----


def test_walk_in_parts_gives_the_logits_of_a_whole_step(model: iqrun.Model) -> None:
    """Stopping before every operation and going on from the kept buffers changes no bit."""
    native = NativeProgram(model.program)
    walk = Walk(model.program, chunks(model), n_threads=2)
    end = len(model.program.ops)
    for op in range(end):
        walk.advance(native, op)
    logits = model.program.logits
    last = model.program.ops[end - 1]
    walk_through = Walk(model.program, chunks(model), n_threads=2)
    walk_through.advance(native, end - 1)
    for one, other in zip(walk.states(), walk_through.states(), strict=True):
        assert set(one) == set(other) == live_buffers(model.program)[end - 1]
        assert all(np.array_equal(one[buffer], other[buffer]) for buffer in one)
    assert last.dst == (logits,)
    weights = np.frombuffer(last.weight[0].data, np.float16).reshape(last.weight[0].n_rows, -1).astype(np.float32)
    for chunk, state in zip(chunks(model), walk.states(), strict=True):
        with model.session(n_ctx=N_CTX) as session:
            expected = session.evaluate(chunk, want="all")
        np.testing.assert_allclose(state[last.src[0]] @ weights.T, expected, rtol=2e-3, atol=2e-3)


def test_only_what_will_be_read_is_kept(model: iqrun.Model) -> None:
    """Between layers that is the residual stream and the rotation's table."""
    ops = model.program.ops
    second = next(i for i, op in enumerate(ops) if op.kind == "rms_norm" and "blk.1" in op.weight[0].name)
    assert {buffer.name for buffer in live_buffers(model.program)[second]} == {"x", "rope"}
    assert live_buffers(model.program)[0] == set()
    widest = max(sum(buffer.n_cols for buffer in live) for live in live_buffers(model.program))
    assert bytes_per_token(model.program) == 8 * widest


# ---- what the inputs ask for ----


def states(rows: int, n: int, m: int, seed: int) -> tuple[Op, dict[Buffer, np.ndarray], dict[Buffer, np.ndarray]]:
    """A matmul into a residual stream of m columns, and its buffers in two models."""
    rng = np.random.default_rng(seed)
    source, stream = Buffer(0, "in", n, "tokens"), Buffer(1, "x", m, "tokens")
    x, r = rng.standard_normal((rows, n)), rng.standard_normal((rows, m))
    theirs = {source: x.astype(np.float32), stream: r.astype(np.float32)}
    y = x + 0.1 * rng.standard_normal((rows, n))
    ours = {source: y.astype(np.float32), stream: (r + 0.1 * rng.standard_normal((rows, m))).astype(np.float32)}
    return Op("matmul", (stream,), (source,), add=True), theirs, ours


def test_stand_in_is_the_least_squares_answer() -> None:
    """W' minimizes |W x + r - r' - W' y|^2 + damping |W' - W|^2 over all tokens."""
    n, m = 256, 8
    op, theirs, ours = states(600, n, m, 1)
    inputs = of_both_models(op, [theirs], [ours])
    source, stream = op.src[0], op.dst[0]
    weights = np.random.default_rng(2).standard_normal((m, n)).astype(np.float32)
    found = inputs.stand_in(weights, 0)
    x, y = theirs[source].astype(np.float64), ours[source].astype(np.float64)
    damping = 0.01 * np.trace(y.T @ y) / n
    gap = (x - y) @ weights.T + theirs[stream] - ours[stream]
    expected = weights + np.linalg.solve(y.T @ y + damping * np.eye(n), y.T @ gap).T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(inputs.stand_in(weights[3:5], 3), found[3:5])


def test_equal_models_ask_for_the_weights_themselves() -> None:
    """Without drift W' is W; the importance is the mean square of each column."""
    op, theirs, _ = states(300, 256, 8, 3)
    inputs = of_both_models(op, [theirs], [theirs])
    weights = np.random.default_rng(4).standard_normal((8, 256)).astype(np.float32)
    np.testing.assert_allclose(inputs.stand_in(weights, 0), weights, atol=1e-6)
    alone = of_one_model(op, [theirs])
    x = theirs[op.src[0]].astype(np.float64)
    np.testing.assert_allclose(alone.h, damped(x.T @ x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone.importance, (x**2).mean(axis=0), rtol=1e-4)
    assert alone.stand_in(weights, 0) is weights


# ---- files ----


def encoder(model: iqrun.Model, effort: str = "fast", n_threads: int = 2) -> SequentialEncoder:
    return SequentialEncoder(model.program, chunks(model), effort, n_threads)  # type: ignore[arg-type]


def logit_error(model: iqrun.Model, out: Path) -> float:
    """Mean squared difference of the logits on the calibration text."""
    total = 0.0
    with iqrun.load(out, n_ctx=N_CTX, n_threads=1) as ours:
        for chunk in chunks(model):
            with model.session(n_ctx=N_CTX) as a, ours.session(n_ctx=N_CTX) as b:
                total += float(np.square(a.evaluate(chunk, want="all") - b.evaluate(chunk, want="all")).mean())
    return total


def test_file_is_closer_to_the_original_than_a_plain_one(path: Path, model: iqrun.Model, tmp_path: Path) -> None:
    """The same types and size, half the squared error of the logits at most."""
    plain, ours = tmp_path / "plain.gguf", tmp_path / "ours.gguf"
    quantize(path, plain, "IQ3_K", pure=True)
    report = quantize(path, ours, "IQ3_K", pure=True, encoder=encoder(model))
    assert plain.stat().st_size == ours.stat().st_size == report.n_bytes
    with GGUFFile(plain) as a, GGUFFile(ours) as b:
        assert [t.type.name for t in a.tensors.values()] == [t.type.name for t in b.tensors.values()]
    assert logit_error(model, ours) < 0.5 * logit_error(model, plain)


def test_progress_counts_each_matrix_as_it_is_encoded(path: Path, model: iqrun.Model, tmp_path: Path) -> None:
    """In the model's order, before the file has its first tensor; the counts end at all weights that are encoded."""
    seen: list[tuple[int, int, str]] = []
    follower = SequentialEncoder(model.program, chunks(model), "fast", 2, lambda *state: seen.append(state))
    report = quantize(path, tmp_path / "out.gguf", "IQ3_K", pure=True, encoder=follower)
    encoded = [tensor for tensor in report.tensors if tensor.target == "IQ3_K"]
    total = sum(int(np.prod(tensor.shape)) for tensor in encoded)
    assert seen[0][0] == 0 and seen[-1][0] == total
    assert {state[1] for state in seen} == {total}
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    matrices = [weight.name for op in model.program.ops for weight in op.weight]
    order = [name for _, _, name in seen[::2]]
    assert sorted(order) == sorted(tensor.name for tensor in encoded)
    assert order == sorted(order, key=matrices.index)


@pytest.mark.parametrize("name", ["llama_mha_tied_biases", "qwen2_tied", "qwen3_wide_heads"])
def test_every_architecture(name: str, tmp_path: Path) -> None:
    """Biases, norms inside heads, tied and own outputs: the last hidden state is nearer to the original's."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 2}
    case = replace(CASES[name], config=CASES[name].config | sizes)
    source, plain, ours = (tmp_path / f"{which}.gguf" for which in ("in", "plain", "ours"))
    write_case(source, case)
    ids = [np.random.default_rng(i).integers(0, 97, N_CTX) for i in range(40)]
    quantize(source, plain, "IQ3_K")
    with GGUFFile(source) as file:
        quantize(source, ours, "IQ3_K", encoder=SequentialEncoder(build_program(file), ids, "fast", 2))
    hidden = [last_state(path, ids) for path in (source, plain, ours)]
    assert np.square(hidden[2] - hidden[0]).sum() < 0.8 * np.square(hidden[1] - hidden[0]).sum()


def last_state(path: Path, ids: list[np.ndarray]) -> np.ndarray:
    """What the output matrix meets."""
    with GGUFFile(path) as file:
        program = build_program(file)
        walk = Walk(program, ids, n_threads=2)
        walk.advance(NativeProgram(program), len(program.ops) - 1)
        return np.concatenate([state[program.ops[-1].src[0]] for state in walk.states()])


def test_types_without_feedback_are_fitted_too(path: Path, model: iqrun.Model, tmp_path: Path) -> None:
    """Matrices in other types, or left as they are, take their place in the walk."""
    types = [("attn_q", "Q4_0"), ("ffn_down", "F16"), ("attn_k", "IQ4_NL")]
    plain, ours = tmp_path / "plain.gguf", tmp_path / "ours.gguf"
    quantize(path, plain, "IQ2_KS", pure=True, tensor_types=types)
    quantize(path, ours, "IQ2_KS", pure=True, tensor_types=types, encoder=encoder(model))
    assert logit_error(model, ours) < 0.7 * logit_error(model, plain)


def test_bytes_do_not_depend_on_threads(path: Path, model: iqrun.Model, tmp_path: Path) -> None:
    """One thread or three: the same file; another text: another one."""
    files = []
    for name, threads in (("one.gguf", 1), ("three.gguf", 3)):
        quantize(path, tmp_path / name, "IQ2_K", encoder=encoder(model, n_threads=threads), n_threads=threads)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert encoder(model).identity == encoder(model, n_threads=1).identity
    other = SequentialEncoder(model.program, chunks(model, OTHER + OTHER), "fast", 1)
    assert other.identity != encoder(model).identity


def test_calibrated_encoder_takes_as_much_text_as_fits(model: iqrun.Model) -> None:
    """The memory limit decides how many chunks are used, one at least."""
    everything = iqrun.calibrated_encoder(model, f"{TEXT} {OTHER}", n_ctx=N_CTX)
    one = iqrun.calibrated_encoder(model, f"{TEXT} {OTHER}", n_ctx=N_CTX, max_bytes=1)
    assert len(one.chunks) == 1 < len(everything.chunks)
    with pytest.raises(ValueError, match="chunk"):
        iqrun.calibrated_encoder(model, "short", n_ctx=N_CTX)
