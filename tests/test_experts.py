"""Mixtures of experts: quantized ones against numpy, the same bits whatever the company, and what is refused.

Float ones are checked against transformers in test_models_reference.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import GGUFError, UnsupportedModelError
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from iqrun.native import check, lib
from iqrun.program import Op, Program
from tests.gguf_builder import tiny_llama
from tests.reference_program import ReferenceSession

IDS = [1, 7, 9, 200, 13, 40, 8, 8, 77, 101, 5]
SIZES: dict[str, Any] = {"n_embd": 256, "n_ff": 256, "n_expert": 6, "n_used": 2}


@pytest.mark.parametrize("weight_type", ["IQ4_K", "IQ2_KS", "Q8_0", "F16"])
@pytest.mark.parametrize("arch", ["llama", "qwen3moe"])
def test_logits_are_those_of_the_decoded_weights(arch: str, weight_type: str, tmp_path: Path) -> None:
    """One batch and token by token. The few tokens whose experts are chosen by a hair may differ: most must not."""
    path = tiny_llama(tmp_path / "m.gguf", arch=arch, weight_type=weight_type, **SIZES)
    with iqrun.load(path, n_ctx=32, n_threads=2, kv_type="f32") as model:
        expected = ReferenceSession(model.program).evaluate(IDS)
        session = model.session()
        for rows in (session.evaluate(IDS, want="all"), _one_by_one(model.session())):
            error = np.abs(rows - expected).max(axis=1) / np.abs(expected).max()
            assert np.median(error) < 0.02
            assert np.sort(error)[: len(IDS) // 2].max() < 0.02


def _one_by_one(session: Any) -> np.ndarray:
    return np.stack([session.evaluate([token]) for token in IDS])


@pytest.mark.parametrize("way", ["decode", "prefill"])
def test_a_token_gets_the_same_bits_in_any_company(way: Any, tmp_path: Path) -> None:
    """Cut into steps of 1, 3 and 11 tokens, with 1 and 3 threads."""
    path = tiny_llama(tmp_path / "m.gguf", weight_type="IQ3_K", **SIZES)
    found = []
    for n_threads in (1, 3):
        with iqrun.load(path, n_ctx=32, n_threads=n_threads) as model:
            for size in (1, 3, 11):
                session = model.session()
                pieces = [IDS[i : i + size] for i in range(0, len(IDS), size)]
                found.append(np.concatenate([session.evaluate(p, want="all", way=way) for p in pieces]))
                session.close()
    assert all(np.array_equal(rows, found[0]) for rows in found)


def test_bytes_per_token_count_the_used_experts_only(tmp_path: Path) -> None:
    """What the roof is computed from."""
    few, all_ = (
        tiny_llama(tmp_path / f"{n}.gguf", n_expert=8, n_used=n, weight_type="F16", n_embd=256, n_ff=256)
        for n in (2, 8)
    )
    with iqrun.load(few) as one, iqrun.load(all_) as other:
        experts = 2 * 3 * 8 * 256 * 256 * 2
        difference = other.program.weight_bytes_per_token - one.program.weight_bytes_per_token
        assert difference == experts * 6 // 8


def test_scores_without_order_choose_valid_experts(tmp_path: Path) -> None:
    """NaN and infinite scores, all of them equal: every row still goes to different experts, and NaN comes out."""
    path = tiny_llama(tmp_path / "m.gguf", **SIZES)
    with GGUFFile(path) as file:
        program = build_program(file)
        weight = next(w for w in program.weights if w.name == "blk.0.ffn_gate_inp.weight")
        for value in (np.nan, np.inf, -np.inf, 0.0):
            values = np.full((weight.n_rows, weight.n_cols), value, np.float32)
            changed = program.with_weights([replace(weight, data=values.view(np.uint8).ravel())])
            with Session(NativeProgram(changed), n_ctx=32, n_threads=2) as session:
                seen: list[np.ndarray] = []
                ops = [i for i, op in enumerate(program.ops) if op.src and op.src[0].n_used and op.weight]
                session.trace(IDS, ops[:1], lambda _, x, experts, seen=seen: seen.extend([x, experts]))
                assert np.bincount(seen[1], minlength=6).sum() == 2 * len(IDS)
                assert seen[1].min() >= 0 and seen[1].max() < 6
                assert np.isfinite(session.evaluate([5])).all() == (value == 0)


def _is(kind: str) -> Callable[[Op], bool]:
    return lambda op: op.kind == kind


def _uses_experts(op: Op) -> bool:
    return bool(op.weight) and bool(op.src) and op.src[0].n_used > 0


def _without(program: Program, wanted: Callable[[Op], bool]) -> None:
    program.ops.remove(next(op for op in program.ops if wanted(op)))


def _more_experts(program: Program) -> None:
    op = next(op for op in program.ops if _uses_experts(op))
    program.weights[op.weight[0].index] = replace(op.weight[0], n_expert=7)


def _no_experts(program: Program) -> None:
    op = next(op for op in program.ops if _uses_experts(op))
    program.weights[op.weight[0].index] = replace(op.weight[0], n_expert=0)


def _other_width(program: Program) -> None:
    op = next(op for op in program.ops if op.kind == "deal")
    program.buffers[op.dst[0].index] = replace(op.dst[0], n_used=3)


BROKEN: dict[str, tuple[Callable[[Program], None], str]] = {
    "no route": (lambda p: _without(p, _is("route")), r"\(deal\): nothing was routed before it"),
    "no deal": (lambda p: _without(p, _is("deal")), r"src0 .* is read before any op writes it"),
    "weight with more experts": (_more_experts, r"weight0 .* has 7 experts, the route chooses among 6"),
    "weight without experts": (_no_experts, r"weight0 .* has 0 experts"),
    "rows for other experts": (_other_width, r"has rows for 3 experts of each token, 2 are needed"),
    "routed, not collected, routed": (lambda p: _without(p, _is("collect")), ""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_programs_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    """The core checks every shape; a second route without a collect is harmless."""
    change, message = BROKEN[name]
    with GGUFFile(tiny_llama(tmp_path / "m.gguf", **SIZES)) as file:
        program = build_program(file)
        change(program)
        if message:
            with pytest.raises(ValueError, match=message):
                NativeProgram(program)
        else:
            NativeProgram(program)


def test_a_step_cannot_begin_among_experts(tmp_path: Path) -> None:
    """What is dealt needs its route."""
    with iqrun.load(tiny_llama(tmp_path / "m.gguf", **SIZES), n_ctx=32) as model:
        session = model.session()
        deal = next(index for index, op in enumerate(model.program.ops) if op.kind == "deal")
        with session._context._using() as steps:
            from iqrun.engine.steps import Batch

            batch = Batch(np.array([1], np.int32), np.array([0], np.int32), np.array([True]))
            check(lib.iq_step_begin, steps.handle, batch.native)
            for op in (deal, deal + 1, deal + 3):
                with pytest.raises(ValueError, match="begin at the route op before it"):
                    check(lib.iq_step_seek, steps.handle, op)
            check(lib.iq_step_seek, steps.handle, deal - 1)
            lib.iq_step_end(steps.handle, 0)


def test_a_file_whose_experts_do_not_fit_its_keys_is_refused(tmp_path: Path) -> None:
    """Their number, and how many of them are used."""
    from tests.gguf_builder import UINT32, kv

    path = tiny_llama(tmp_path / "m.gguf", n_expert=4, n_used=5)
    with GGUFFile(path) as file, pytest.raises(UnsupportedModelError, match="expert_used_count is 5"):
        build_program(file)
    path = tiny_llama(tmp_path / "m.gguf", arch="qwen3moe", extra=[kv("qwen3moe.expert_count", UINT32, 4)])
    with GGUFFile(path) as file, pytest.raises((GGUFError, UnsupportedModelError), match="expert_used_count"):
        build_program(file)


def test_calibrating_along_a_text_is_refused_clearly(tmp_path: Path) -> None:
    """It does not follow experts yet."""
    with (
        iqrun.load(tiny_llama(tmp_path / "m.gguf", **SIZES), n_ctx=16) as model,
        pytest.raises(UnsupportedModelError, match="use an importance matrix"),
    ):
        iqrun.calibrated_encoder(model, "a text that is long enough for one chunk of sixteen tokens", n_ctx=16)
