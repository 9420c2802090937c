"""Hyper-parameters that make no sense, or ask for what is not implemented, are refused before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import GGUFError, IqrunError, UnsupportedModelError
from iqrun.gguf import GGUFFile, ValueType
from iqrun.model import build_program
from iqrun.models import ARCHITECTURES
from tests.reference_models import CASES, gguf_tensors, metadata, write_case, write_gguf

UINT, REAL, TEXT, BOOL = ValueType.UINT32, ValueType.FLOAT32, ValueType.STRING, ValueType.BOOL
CASE_OF = {"llama": "llama_gqa", "qwen2": "qwen2_tied", "qwen3": "qwen3_wide_heads", "qwen3moe": "qwen3_moe"}


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(arch: str, tmp_path: Path) -> Callable[..., Any]:
    """Builds the program of a tiny model with some keys set (None drops one) and some tensors replaced."""

    def build_with(
        keys: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray | None] | None = None,
        tokens: int | None = None,
    ) -> Any:
        case = CASES[CASE_OF[arch]]
        values: dict[str, Any] = metadata(case)
        for key, value in (keys or {}).items():
            values[f"{arch}.{key}"] = value
        weights: dict[str, Any] = gguf_tensors(case) | (tensors or {})
        path = write_gguf(
            tmp_path / "model.gguf",
            {name: value for name, value in weights.items() if value is not None},
            {key: value for key, value in values.items() if value is not None},
            None if tokens is None else [f"t{i}" for i in range(tokens)],
        )
        with GGUFFile(path) as file:
            return build_program(file)

    return build_with


REQUIRED = "embedding_length block_count feed_forward_length context_length"
REQUIRED += " attention.head_count attention.layer_norm_rms_epsilon"


@pytest.mark.parametrize("missing", REQUIRED.split())
def test_missing_key_is_named(arch: str, build: Callable[..., Any], missing: str) -> None:
    """A required key that is not there: GGUFError with its name."""
    with pytest.raises(GGUFError, match=missing) as caught:
        build({missing: None})
    assert caught.value.key == f"{arch}.{missing}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count", (0, UINT), "head_count is 0"),
        ("attention.head_count_kv", (0, UINT), "head_count_kv is 0"),
        ("attention.head_count_kv", (3, UINT), "4 heads cannot share 3"),
        ("attention.head_count_kv", (8, UINT), "head_count_kv is 8"),
        ("attention.key_length", (15, UINT), "key_length gives heads of 15"),
        ("attention.value_length", (8, UINT), "value_length is 8"),
        ("block_count", (0, UINT), "block_count is 0"),
        ("block_count", (4, UINT), r"blk\.3\..* is missing"),
        ("block_count", (2_000_000_000, UINT), r"blk\.3\..* is missing"),
        ("context_length", (0, UINT), "context_length is 0"),
        ("embedding_length", (32, UINT), "token_embd.weight"),
        ("feed_forward_length", (111, UINT), r"ffn_gate(_exps)?\.weight"),
        ("attention.layer_norm_rms_epsilon", (0.0, REAL), "finite and above 0"),
        ("attention.layer_norm_rms_epsilon", (float("nan"), REAL), "finite and above 0"),
        ("rope.dimension_count", (0, UINT), "dimension_count is 0"),
        ("rope.dimension_count", (5, UINT), "even"),
        ("rope.dimension_count", (1000, UINT), "dimension_count is 1000"),
        ("rope.freq_base", (float("inf"), REAL), "finite and above 0"),
        ("rope.freq_base", (1.0, REAL), "above 1"),
        ("rope.scaling.type", ("longrope", TEXT), "'longrope'"),
        ("rope.scaling.factor", (-1.0, REAL), "finite and above 0"),
        ("attention.sliding_window", (16, UINT), "sliding_window = 16"),
        ("attention.causal", (True, BOOL), "attention.causal"),
        ("logit_scale", (0.5, REAL), "logit_scale"),
        ("attention.head_count", ("four", TEXT), "must be an integer"),
    ],
)
def test_nonsense_and_unimplemented_values_are_refused(
    arch: str, build: Callable[..., Any], key: str, value: tuple[Any, ValueType], message: str
) -> None:
    """One clear error that names the key or tensor; never a program that computes something else."""
    if (arch, key) == ("qwen3moe", "feed_forward_length"):
        key = "expert_feed_forward_length"  # the one that counts there
    with pytest.raises(IqrunError, match=message):
        build({key: value})


EXPERTS_REFUSED = {
    "llama": "expert_used_count. is missing",
    "qwen2": "expert_count = 8",
    "qwen3": "expert_used_count. is missing",
    "qwen3moe": "ffn_gate_inp",
}


def test_experts_that_the_file_does_not_have_are_refused(arch: str, build: Callable[..., Any]) -> None:
    """Of an architecture without experts by the key, of one with them by what is missing or has another shape."""
    with pytest.raises(IqrunError, match=EXPERTS_REFUSED[arch]):
        build({"expert_count": (8, UINT)})


def test_neutral_values_of_unknown_keys_are_accepted(arch: str, build: Callable[..., Any]) -> None:
    """``expert_count = 0`` and ``logit_scale = 0`` say that there is nothing special."""
    experts = {} if arch == "qwen3moe" else {"expert_count": (0, UINT)}
    build({**experts, "logit_scale": (0.0, REAL), "use_parallel_residual": (False, BOOL)})


def test_sliding_window_as_wide_as_the_context_is_accepted(build: Callable[..., Any]) -> None:
    """A window that nothing can leave changes nothing."""
    build({"attention.sliding_window": (64, UINT)})


def test_tensor_that_no_operation_uses_is_refused(build: Callable[..., Any]) -> None:
    """It would be computed wrongly without anybody noticing."""
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.attn_sinks\.weight"):
        build(tensors={"blk.0.attn_sinks.weight": np.zeros(4, np.float32)})


def test_missing_tensor_is_named(build: Callable[..., Any]) -> None:
    """The error has the tensor's name as its key."""
    with pytest.raises(GGUFError, match=r"blk\.2\.ffn_norm\.weight.*missing") as caught:
        build(tensors={"blk.2.ffn_norm.weight": None})
    assert caught.value.key == "blk.2.ffn_norm.weight"


def test_tensor_of_another_shape_is_named_with_both_shapes(build: Callable[..., Any]) -> None:
    """What the file has, and what the hyper-parameters ask for."""
    with pytest.raises(GGUFError, match=r"'blk\.1\.attn_norm\.weight' has 1 rows of 63 .* ask for 1 rows of 64"):
        build(tensors={"blk.1.attn_norm.weight": np.ones(63, np.float32)})


def test_vocabulary_and_embedding_must_agree(build: Callable[..., Any]) -> None:
    """A token without an embedding, or the reverse, is refused."""
    build(tokens=97)
    with pytest.raises(GGUFError, match=r"token_embd\.weight' has 97 rows of 64 .* ask for 96"):
        build(tokens=96)


def test_head_dim_defaults_to_an_equal_share(arch: str, build: Callable[..., Any]) -> None:
    """Without key_length, n_embd / n_head; where it does not fit the tensors, they tell."""
    keys = {"attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None}
    if arch == "qwen3":  # its case has wider heads
        with pytest.raises(GGUFError, match="attn_q"):
            build(keys)
    else:
        assert build(keys).ops[5].head_dim == 16


def test_damaged_header_is_an_error_or_a_model_that_runs(arch: str, tmp_path: Path) -> None:
    """Seeded random damage to keys, values and tensor descriptions: an IqrunError, or a step; never anything else."""
    case = CASES[CASE_OF[arch]]
    path = write_case(tmp_path / "model.gguf", case)
    whole = path.read_bytes()
    with GGUFFile(path) as file:
        n_header = min(info.offset for info in file.tensors.values())
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(24, n_header, rng.integers(1, 4)):
            damaged[place] = rng.choice([0, 1, 2, 128, 255, damaged[place] ^ (1 << rng.integers(8))])
        path.write_bytes(damaged)
        try:
            with GGUFFile(path) as file, Session(NativeProgram(build_program(file)), n_ctx=32, n_threads=1) as session:
                session.evaluate([1, 2, 3])
                session.evaluate([4])
        except IqrunError:
            refused += 1
    assert 30 < refused < 60
