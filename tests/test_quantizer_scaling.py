"""Activation-aware scaling: where it is possible, that it changes nothing, and when it is worth it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqrun import formats
from iqrun.errors import QuantizeError
from iqrun.gguf import GGUFFile, keys
from iqrun.model import build_program
from iqrun.quantizer import Imatrix, quantize
from iqrun.quantizer.grams import pack, unpack
from iqrun.quantizer.recipes import Recipe
from iqrun.quantizer.scaling import (
    Pair,
    ScaledGrams,
    ScaledModel,
    Scaling,
    find_pairs,
    find_scaling,
    recipe_like,
    scaled_model,
)
from iqrun.quantizer.scaling.copy import write_scaled
from iqrun.quantizer.scaling.search import factors
from tests.gguf_builder import tiny_llama
from tests.reference_models import CASES, token_ids, write_case
from tests.reference_program import ReferenceSession

CASE_NAMES = ["llama_gqa", "llama_mha_tied_biases", "mistral_wide_heads", "qwen2_tied", "qwen3_wide_heads"]
RECIPE = Recipe(formats.by_name("IQ4_K"), pure=True)


def pairs_of(path: Path) -> list[Pair]:
    with GGUFFile(path) as file:
        return find_pairs(build_program(file))


def logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    """In float64, so that nothing but the scaling shows."""
    with GGUFFile(path) as file:
        return ReferenceSession(build_program(file)).evaluate(tokens)


def matrix_of(path: Path, spread: float, seed: int = 3) -> Imatrix:
    """Log-normal mean squares; matrices with the same input have the same."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    entries = {}
    with GGUFFile(path) as file:
        for name, info in file.tensors.items():
            if info.n_rows > 1:
                key = name.replace("attn_k", "attn_q").replace("attn_v", "attn_q").replace("ffn_up", "ffn_gate")
                inputs.setdefault(key, np.exp(spread * rng.standard_normal(info.n_cols)).astype(np.float32))
                entries[name] = inputs[key]
    counts = {name: np.ones(1, np.float32) for name in entries}
    return Imatrix(str(path) + ".imatrix", entries, counts, ("text",), 1, is_legacy=False)


def scaling_of(path: Path, matrix: Imatrix, recipe: Recipe = RECIPE) -> Scaling:
    with GGUFFile(path) as file:
        return find_scaling(file, build_program(file), recipe.choose_all(file), matrix, 2, lambda *_: None)


@contextmanager
def scaled_copy(path: Path, out: Path, matrix: Imatrix, *, overwrite: bool = True) -> Iterator[ScaledModel]:
    with (
        GGUFFile(path) as source,
        scaled_model(source, build_program(source), out, RECIPE, matrix, overwrite=overwrite) as scaled,
    ):
        yield scaled


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=1, weight_type="F16")


# ---- where ----


@pytest.mark.parametrize("name", CASE_NAMES)
def test_every_place_of_a_model_is_found(tmp_path: Path, name: str) -> None:
    """Four pairs per layer and the output norm's, unless the output matrix is also the embedding."""
    case = CASES[name]
    found = {pair.consumers: pair.producers for pair in pairs_of(write_case(tmp_path / "m.gguf", case))}
    tied = case.full_config()["tie_word_embeddings"]
    assert len(found) == 4 * case.full_config()["num_hidden_layers"] + (not tied)
    block = "blk.1."
    v_bias = [f"{block}attn_v.bias"] if "v_proj" in case.bias else []
    up_bias = [f"{block}ffn_up.bias"] if "up_proj" in case.bias else []
    assert found[tuple(f"{block}attn_{x}.weight" for x in "qkv")] == (f"{block}attn_norm.weight",)
    assert found[f"{block}ffn_gate.weight", f"{block}ffn_up.weight"] == (f"{block}ffn_norm.weight",)
    assert found[f"{block}attn_output.weight",] == (f"{block}attn_v.weight", *v_bias)
    assert found[f"{block}ffn_down.weight",] == (f"{block}ffn_up.weight", *up_bias)


@pytest.mark.parametrize("name", CASE_NAMES)
def test_scaling_leaves_the_logits_as_they_are(tmp_path: Path, name: str) -> None:
    """Random factors everywhere: the same model but for rounding, though nearly every tensor is another."""
    source, scaled = write_case(tmp_path / "m.gguf", CASES[name]), tmp_path / "scaled.gguf"
    rng = np.random.default_rng(9)
    pairs = pairs_of(source)
    values = [np.exp(0.7 * rng.standard_normal(pair.n_factors)) for pair in pairs]
    with GGUFFile(source) as file:
        scaling = Scaling.of(pairs, values, file.tensors)
        assert {f"blk.0.{kind}.weight" for kind in ("attn_norm", "attn_v", "ffn_up", "ffn_down")} <= scaling.names
        write_scaled(file, scaling, scaled)
    tokens = token_ids(CASES[name])
    expected = logits(source, tokens)
    np.testing.assert_allclose(logits(scaled, tokens), expected, atol=1e-5 * np.abs(expected).max())


def test_a_missing_bias_or_a_wrong_head_would_be_seen(tmp_path: Path) -> None:
    """The comparison above is sharp: one pair with its factors in the wrong order moves the logits."""
    source, scaled = write_case(tmp_path / "m.gguf", CASES["llama_gqa"]), tmp_path / "scaled.gguf"
    pair = next(pair for pair in pairs_of(source) if "blk.0.attn_output.weight" in pair.consumers)
    values = np.exp(0.7 * np.random.default_rng(9).standard_normal(pair.n_factors))
    with GGUFFile(source) as file:
        write_scaled(file, Scaling.of([replace(pair, factor_of=pair.factor_of[::-1])], [values], file.tensors), scaled)
    tokens = token_ids(CASES["llama_gqa"])
    expected = logits(source, tokens)
    assert np.abs(logits(scaled, tokens) - expected).max() > 1e-2 * np.abs(expected).max()


# ---- which factors ----


def test_factors_follow_the_strength() -> None:
    """Powers of the mean square with geometric mean 1; silent columns keep theirs, extremes are bounded."""
    strength = np.array([1.0, 16.0, 0.0, 256.0])
    found = factors(strength, 0.5)
    assert found[2] == 1.0
    np.testing.assert_allclose(found[[1, 3]] / found[0], [2.0, 4.0])
    np.testing.assert_allclose(np.prod(found), 1.0)
    assert (factors(strength, 0.0) == 1).all()
    assert (factors(np.zeros(3), 1.0) == 1).all()
    wild = factors(np.array([1e-30, 1.0, 1e30]), 1.0)
    np.testing.assert_allclose(wild, [1 / 16, 1, 16])


def test_inputs_of_equal_strength_are_left_alone(path: Path) -> None:
    """Where every alpha gives the same, nothing is scaled."""
    assert scaling_of(path, matrix_of(path, 0.0)).names == set()


def test_importance_of_zeros_or_none_is_left_alone(path: Path) -> None:
    """What the matrix knows nothing about stays; the rest does not."""
    matrix = matrix_of(path, 2.0)
    entries = dict(matrix.entries)
    del entries["blk.0.ffn_down.weight"]
    entries |= {f"blk.0.attn_{x}.weight": np.zeros(256, np.float32) for x in "qkv"}
    entries["blk.0.ffn_gate.weight"] = entries["blk.0.ffn_up.weight"] = np.where(np.arange(256) % 5, 0, 1e20)
    names = scaling_of(path, replace(matrix, entries=entries)).names
    assert "blk.0.attn_output.weight" in names
    assert not names & {"blk.0.ffn_down.weight", "blk.0.attn_q.weight", "blk.0.attn_norm.weight"}


def test_types_that_are_not_blocks_are_left_alone(path: Path) -> None:
    """A matrix that stays a float gains nothing from it."""
    assert scaling_of(path, matrix_of(path, 2.0), Recipe(formats.by_name("F16"))).names == set()


def test_matrix_of_another_model_is_refused(path: Path) -> None:
    """An entry of the wrong length is named."""
    matrix = matrix_of(path, 1.0)
    wrong = replace(matrix, entries={**matrix.entries, "blk.0.attn_q.weight": np.ones(7, np.float32)})
    with pytest.raises(QuantizeError, match=r"blk\.0\.attn_q\.weight.*7 values"):
        scaling_of(path, wrong)


def test_threads_do_not_matter(path: Path) -> None:
    """One thread finds what two find."""
    matrix = matrix_of(path, 2.0)
    with GGUFFile(path) as file:
        one = find_scaling(file, build_program(file), RECIPE.choose_all(file), matrix, 1, lambda *_: None)
    two = scaling_of(path, matrix)
    assert one.names == two.names
    assert all(np.array_equal(one.columns[name], two.columns[name]) for name in one.columns)


# ---- files ----


def test_uneven_inputs_gain(path: Path, tmp_path: Path) -> None:
    """With inputs of very different strength the weighted error falls; the copy goes, the key stays."""
    matrix, plain, ours = matrix_of(path, 3.0), tmp_path / "plain.gguf", tmp_path / "ours.gguf"
    before = quantize(path, plain, "IQ4_K", pure=True, imatrix=matrix)
    with scaled_copy(path, ours, matrix) as scaled:
        assert scaled.source == str(path) and Path(scaled.path).stat().st_mtime_ns == path.stat().st_mtime_ns
        after = quantize(scaled.path, ours, "IQ4_K", pure=True, imatrix=scaled.imatrix, scaled=True)
        consumers = set(scaled.scaling.columns)
    assert not Path(scaled.path).exists()
    errors = {tensor.name: tensor.relative_error for tensor in before.tensors}
    better = [tensor for tensor in after.tensors if tensor.name in consumers and tensor.relative_error]
    assert len(better) >= 5
    assert sum(t.relative_error for t in better) < 0.97 * sum(errors[t.name] for t in better)  # type: ignore[misc]
    with GGUFFile(ours) as file, GGUFFile(plain) as other:
        assert file.metadata.get_str(keys.IQRUN_SCALING) == "activation-aware"
        assert keys.IQRUN_SCALING not in other.metadata
        assert [t.type_id for t in file.tensors.values()] == [t.type_id for t in other.tensors.values()]


def test_resume_goes_on_with_a_new_copy(path: Path, tmp_path: Path) -> None:
    """The copy of an interrupted run is gone; the next one is the same, so the finished tensors count."""
    matrix, whole, ours = matrix_of(path, 3.0), tmp_path / "whole.gguf", tmp_path / "ours.gguf"
    with scaled_copy(path, whole, matrix) as scaled:
        quantize(scaled.path, whole, "IQ4_K", imatrix=scaled.imatrix, scaled=True)

    def stop(done: int, total: int, name: str) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), scaled_copy(path, ours, matrix) as scaled:
        quantize(scaled.path, ours, "IQ4_K", imatrix=scaled.imatrix, scaled=True, resume=True, progress=stop)
    first_done: list[int] = []
    with scaled_copy(path, ours, matrix) as scaled:
        done = lambda count, *_: first_done.append(count)  # noqa: E731
        quantize(scaled.path, ours, "IQ4_K", imatrix=scaled.imatrix, scaled=True, resume=True, progress=done)
    with GGUFFile(path) as file:
        assert first_done[0] > sum(info.n_weights for info in file.tensors.values()) / 3
    assert ours.read_bytes() == whole.read_bytes()


def test_only_a_copy_of_ours_is_replaced(path: Path, tmp_path: Path) -> None:
    """A file of the user's that happens to have the name stays; a copy that a killed process left does not."""
    matrix, place = matrix_of(path, 3.0), tmp_path / "out.gguf.scaled"
    for content in (b"mine", path.read_bytes()):
        place.write_bytes(content)
        with pytest.raises(QuantizeError, match="in the way"), scaled_copy(path, tmp_path / "out.gguf", matrix):
            pass
        assert place.read_bytes() == content
    place.unlink()
    with scaled_copy(path, tmp_path / "out.gguf", matrix) as scaled:
        left = Path(scaled.path).read_bytes()
    place.write_bytes(left)
    with scaled_copy(path, tmp_path / "out.gguf", matrix) as scaled:
        assert Path(scaled.path).read_bytes() == left
    assert not place.exists()


def test_bf16_is_scaled_in_float32(tmp_path: Path) -> None:
    """Eight bits of mantissa are too few to round to a second time; what is not scaled stays."""
    source = tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=256, n_layer=1, weight_type="BF16")
    with scaled_copy(source, tmp_path / "o", matrix_of(source, 3.0)) as scaled, GGUFFile(scaled.path) as file:
        for name, info in file.tensors.items():
            expected = "F32" if name in scaled.scaling.names or info.n_rows == 1 else "BF16"
            assert info.type.name == expected


def test_quantized_models_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    """Naming the tensor; no copy stays behind."""
    source = tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=256, n_layer=1, weight_type="Q8_0")
    out = tmp_path / "out.gguf"
    with (
        pytest.raises(QuantizeError, match="quantized already"),
        scaled_copy(source, out, matrix_of(source, 3.0)),
    ):
        pass
    damaged = tiny_llama(tmp_path / "nan.gguf", n_embd=256, n_ff=256, n_layer=1, weight_type="F16")
    with GGUFFile(damaged) as file:
        at = damaged.read_bytes().find(file.tensor_bytes("blk.0.ffn_down.weight")[:64].tobytes())
    with damaged.open("r+b") as raw:
        raw.seek(at)
        raw.write(b"\x00\x7e")
    with (
        pytest.raises(QuantizeError, match=r"blk\.0\.ffn_down"),
        scaled_copy(damaged, out, matrix_of(source, 3.0)),
    ):
        pass
    out.write_bytes(b"there")
    with (
        pytest.raises(QuantizeError, match="exists"),
        scaled_copy(source, out, matrix_of(source, 3.0), overwrite=False),
    ):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.gguf", "nan.gguf", "out.gguf"]


def test_matrices_of_the_copy(path: Path, tmp_path: Path) -> None:
    """Importance and second moments are those of inputs divided by the factors."""
    s = np.exp(np.random.default_rng(1).standard_normal(256))
    scaling = Scaling({"blk.0.attn_q.weight": s}, {})
    matrix = matrix_of(path, 1.0)
    means = scaling.imatrix(matrix).entries
    np.testing.assert_allclose(means["blk.0.attn_q.weight"], matrix.entries["blk.0.attn_q.weight"] / s**2, rtol=1e-6)
    assert means["blk.0.ffn_up.weight"] is matrix.entries["blk.0.ffn_up.weight"]
    x = np.random.default_rng(2).standard_normal((300, 256)).astype(np.float32)
    full = _full_matrix(tmp_path / "full.gguf", "blk.0.attn_q.weight", x)
    with ScaledGrams(full, scaling) as grams:
        gram = grams.of("blk.0.attn_q.weight")
        assert gram is not None and grams.of("blk.0.ffn_up.weight") is None
    np.testing.assert_allclose(gram, (x / s).T @ (x / s), rtol=1e-3, atol=1e-3 * np.abs(gram).max())


def _full_matrix(path: Path, name: str, x: np.ndarray) -> Path:
    from iqrun.gguf import GGUFPlan, GGUFWriter, ValueType

    flat = pack(x.T @ x)
    assert np.array_equal(unpack(flat), unpack(flat).T)
    plan = GGUFPlan()
    plan.set_array(keys.GRAM_TENSORS, [name], ValueType.STRING)
    plan.set_array(keys.GRAM_SOURCES, [name], ValueType.STRING)
    plan.add_tensor(f"{name}.in_gram", (flat.size,), 0)
    with GGUFWriter(path, plan) as writer:
        writer.write(flat)
    return path


def test_a_mix_to_be_searched_is_tried_with_the_nearest_type(path: Path) -> None:
    """Bits per weight or bytes of the file name a type when the user does not."""

    def main(**size: float | None) -> str:
        with GGUFFile(path) as file:
            recipe = recipe_like(file, None, **{"target_bpw": None, "target_bytes": None, **size}, pure=True)  # type: ignore[arg-type]
            choices = {choice.tensor.name: choice for choice in recipe.choose_all(file)}
        target = choices["blk.0.ffn_up.weight"].target
        assert target is not None
        return target.name

    with GGUFFile(path) as file:
        n_weights = sum(info.n_weights for info in file.tensors.values())
    assert main(target_bpw=3.4) == "IQ3_K"
    assert main(target_bytes=n_weights * 4.5 / 8) == "IQ4_K"
