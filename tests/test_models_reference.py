"""Every architecture against transformers: the program alone (numpy), then program and engine together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import UnsupportedModelError
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from iqrun.program import Program
from tests.reference_models import CASES, gguf_tensors, metadata, token_ids, write_case, write_gguf
from tests.reference_program import ReferenceSession

# tests/make_reference.py writes it and says how
GOLDEN = np.load(Path(__file__).parent / "data" / "reference_logits.npz")


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def program(name: str, tmp_path: Path) -> Iterator[Program]:
    with GGUFFile(write_case(tmp_path / "model.gguf", CASES[name])) as file:
        yield build_program(file)


def relative_error(logits: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def test_program_computes_what_transformers_computes(name: str, program: Program) -> None:
    """In float64 the two differ by the rounding of the stored float32 logits only."""
    logits = ReferenceSession(program).evaluate(token_ids(CASES[name]))
    assert relative_error(logits, GOLDEN[name]) < 1e-5


@pytest.mark.parametrize("n_threads", [1, 3])
def test_engine_computes_what_transformers_computes(name: str, program: Program, n_threads: int) -> None:
    """Float32 weights and KV cache: within 1e-3, evaluated as one batch."""
    with Session(NativeProgram(program), n_ctx=64, n_threads=n_threads, kv_type="f32") as session:
        logits = session.evaluate(token_ids(CASES[name]), want="all")
    assert relative_error(logits, GOLDEN[name]) < 1e-3


def test_engine_computes_the_same_token_by_token(name: str, program: Program) -> None:
    """Decode equals prefill: a prompt of 20 in pieces of 7, then single tokens."""
    ids = token_ids(CASES[name])
    with Session(NativeProgram(program), n_ctx=64, n_threads=2, kv_type="f32", n_batch=7) as session:
        rows = [session.evaluate(ids[:20], want="all")] + [session.evaluate([token])[None] for token in ids[20:]]
    assert relative_error(np.concatenate(rows), GOLDEN[name]) < 1e-3


def test_engine_with_half_precision_cache(name: str, program: Program) -> None:
    """An f16 KV cache costs accuracy, but not much."""
    with Session(NativeProgram(program), n_ctx=64, n_threads=1, kv_type="f16") as session:
        logits = session.evaluate(token_ids(CASES[name]), want="all")
    assert relative_error(logits, GOLDEN[name]) < 1e-2


def test_golden_logits_are_what_transformers_computes_today(name: str) -> None:
    """Where transformers is installed, the stored logits are made anew and compared."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests.make_reference import reference_logits

    assert relative_error(reference_logits(CASES[name]), GOLDEN[name]) < 1e-6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama3_rope", "rope_freqs.weight"),
        ("llama_linear_rope", "llama.rope.scaling.factor"),
        ("llama_yarn_rope", "llama.rope.scaling.original_context_length"),
        ("llama_mha_tied_biases", "blk.1.attn_k.bias"),
    ],
)
def test_what_a_case_is_about_matters(name: str, change: str, tmp_path: Path) -> None:
    """Without the part that a case exists for, the logits are far off: the comparison would notice."""
    tensors, values = gguf_tensors(CASES[name]), metadata(CASES[name])
    tensors.pop(change, None)
    values.pop(change, None)
    with GGUFFile(write_gguf(tmp_path / "model.gguf", tensors, values)) as file:
        logits = ReferenceSession(build_program(file)).evaluate(token_ids(CASES[name]))
    assert relative_error(logits, GOLDEN[name]) > 1e-2


def test_legacy_linear_scaling_key_means_the_same(tmp_path: Path) -> None:
    """``rope.scale_linear`` of old files is ``rope.scaling.factor`` of new ones."""
    case = CASES["llama_linear_rope"]
    values = metadata(case)
    values["llama.rope.scale_linear"] = values.pop("llama.rope.scaling.factor")
    del values["llama.rope.scaling.type"]
    with GGUFFile(write_gguf(tmp_path / "model.gguf", gguf_tensors(case), values)) as file:
        logits = ReferenceSession(build_program(file)).evaluate(token_ids(case))
    assert relative_error(logits, GOLDEN["llama_linear_rope"]) < 1e-5


def test_unknown_architecture_is_named_with_the_known_ones(tmp_path: Path) -> None:
    """The message says what the file asks for and what iqrun runs."""
    case = CASES["llama_gqa"]
    values = metadata(case)
    values["general.architecture"] = ("mamba", values["general.architecture"][1])
    path = write_gguf(tmp_path / "model.gguf", gguf_tensors(case), values)
    with GGUFFile(path) as file, pytest.raises(UnsupportedModelError, match=r"'mamba'.*llama, qwen2, qwen3"):
        build_program(file)
