"""iqrun.quantizer.mix and sensitivity: mixes for a given size, and what they are judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun import formats
from iqrun.errors import FormatError, QuantizeError
from iqrun.evaluation import evaluate
from iqrun.gguf import GGUFFile
from iqrun.quantizer import mix, quantize, read_imatrix, sensitivity
from iqrun.quantizer.sensitivity import sensitivities
from tests.gguf_builder import F32, RawGGUF, tiny_llama
from tests.test_quantizer_imatrix import dat_entry, dat_file
from tests.test_quantizer_pipeline import decoded, full_imatrix, types

DEMO = Path(__file__).parents[2] / "shared" / "demo"
NARROW = ["IQ2_K", "IQ3_K", "IQ4_K", "IQ6_K"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=2, weight_type="F16")


@pytest.mark.parametrize("bpw", [2.6, 3.3, 4.0, 5.123])
def test_bits_per_weight_are_never_exceeded(source: Path, tmp_path: Path, bpw: float) -> None:
    """The mix uses what it may, no more, and of the types that it may."""
    report = quantize(source, tmp_path / "out.gguf", target_bpw=bpw, include_types=NARROW, effort="fast")
    assert bpw - 0.12 < report.bpw <= bpw
    quantized = {tensor.target for tensor in report.tensors if len(tensor.shape) > 1}
    assert quantized <= set(NARROW)
    assert len(quantized) > 1
    assert {tensor.name: tensor.target for tensor in report.tensors} == types(tmp_path / "out.gguf")


@pytest.mark.parametrize("max_shard_bytes", [None, 150_000])
def test_bytes_are_never_exceeded(source: Path, tmp_path: Path, max_shard_bytes: int | None) -> None:
    """Headers, padding and shards are counted; the real files are as small as was predicted."""
    least = quantize(source, "x", target_bytes=10**9, include_types=["IQ2_K"], dry_run=True).n_bytes
    for extra in (500, 40_000):
        report = quantize(
            source,
            tmp_path / f"{extra}.gguf",
            target_bytes=least + extra + (5000 if max_shard_bytes else 0),
            max_shard_bytes=max_shard_bytes,
            include_types=NARROW,
            hashes=False,
        )
        written = sum(path.stat().st_size for path in tmp_path.glob(f"{extra}*"))
        assert report.n_bytes == written <= least + extra + (5000 if max_shard_bytes else 0)


def test_the_best_mix_is_no_larger_and_no_slower_to_name(source: Path, tmp_path: Path) -> None:
    """best_mix keeps to the size of the type's own mix, and the file says how it was chosen."""
    plain = quantize(source, tmp_path / "a.gguf", "iq3_k", effort="fast")
    best = quantize(source, tmp_path / "b.gguf", "iq3_k", best_mix=True, effort="fast")
    assert best.n_bytes <= plain.n_bytes
    assert best.type == "IQ3_K"
    with GGUFFile(tmp_path / "a.gguf") as a, GGUFFile(tmp_path / "b.gguf") as b:
        assert "iqrun.recipe" not in a.metadata
        assert str(b.metadata["iqrun.recipe"]).startswith(f"{plain.n_bytes} bytes of IQ2_KS, IQ2_K, ")
        assert a.metadata["general.file_type"] == b.metadata["general.file_type"]


def test_what_the_user_settles_stays(source: Path, tmp_path: Path) -> None:
    """Overrides, the types of output and embedding, and keep_f32 are not the solver's."""
    report = quantize(
        source,
        tmp_path / "out.gguf",
        target_bpw=6.5,
        include_types=NARROW,
        tensor_types=[("attn_q", "Q8_0")],
        output_type="Q6_K",
        embedding_type="IQ2_KS",
        keep_f32="attn_v",
    )
    found = {tensor.name: tensor.target for tensor in report.tensors}
    assert {found[f"blk.{n}.attn_q.weight"] for n in (0, 1)} == {"Q8_0"}
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q6_K", "IQ2_KS")
    assert found["blk.0.attn_v.weight"] == "F32"
    assert report.bpw <= 6.5


def test_impossible_sizes_are_refused_with_the_range(source: Path, tmp_path: Path) -> None:
    """Below the smallest mix: both ends in the target's own unit, before anything is written."""
    with pytest.raises(QuantizeError, match=r"^2\.3 bits per weight of IQ2_K, IQ4_K cannot.* from 2\.40\d to 4\.52\d"):
        quantize(source, tmp_path / "out.gguf", target_bpw=2.3, include_types=["iq2_k", "iq4_k"])
    with pytest.raises(QuantizeError, match=r"1000 bytes of IQ2_K cannot be reached: .* from \d{6} bytes to \d{6}"):
        quantize(source, tmp_path / "out.gguf", target_bytes=1000, include_types=["IQ2_K"])
    assert not (tmp_path / "out.gguf").exists()


def test_aims_that_contradict_are_refused(source: Path) -> None:
    """One aim, said completely."""
    for message, options in [
        ("either a type or a target size", {}),
        ("either a type or a target size", {"type": "IQ3_K", "target_bpw": 3.0}),
        ("not both", {"target_bpw": 3.0, "target_bytes": 10**6}),
        ("must be above 0", {"target_bpw": 0.0}),
        ("must be above 0", {"target_bytes": -1}),
        ("must be above 0", {"target_bpw": float("nan")}),
        ("needs the type", {"target_bpw": 3.0, "best_mix": True}),
        ("types to include are for", {"type": "IQ3_K", "include_types": ["IQ3_K"]}),
        ("at least one type", {"target_bpw": 3.0, "include_types": []}),
    ]:
        with pytest.raises(ValueError, match=message):
            quantize(source, "x", dry_run=True, **options)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="'IQ9_K' is not a known type"):
        quantize(source, "x", target_bpw=3.0, include_types=["IQ9_K"])
    with pytest.raises(QuantizeError, match="reads Q4_K but does not write it"):
        quantize(source, "x", target_bpw=3.0, include_types=["Q4_K"])


def test_threads_do_not_change_the_mix(source: Path, tmp_path: Path) -> None:
    """Nor does a second run: a resumed one must find the same."""
    matrix = full_imatrix(source, tmp_path / "m.dat")
    for n in (1, 3):
        quantize(source, tmp_path / f"{n}.gguf", target_bpw=3.4, imatrix=matrix, n_threads=n, effort="fast")
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()


def test_rows_that_fit_no_block_count_with_their_substitute(tmp_path: Path) -> None:
    """96 columns: the mix is made of the types that fit, and the size is theirs."""
    source = tiny_llama(tmp_path / "in.gguf", n_embd=64, n_ff=96, n_layer=2, weight_type="F16")
    report = quantize(source, tmp_path / "out.gguf", target_bpw=5.9)
    assert report.bpw <= 5.9
    matrices = [tensor for tensor in report.tensors if len(tensor.shape) > 1]
    assert {tensor.target for tensor in matrices} <= {"IQ4_NL", "Q5_0", "Q6_0", "Q8_0"}
    assert len({tensor.target for tensor in matrices}) > 1


def test_sensitive_tensors_get_more_bits(source: Path, tmp_path: Path) -> None:
    """A tensor said to matter a thousandfold gets the widest type, all else equal."""
    name = "blk.1.ffn_up.weight"
    for factor, wanted in ((1000.0, "IQ6_K"), (1e-6, "IQ2_K")):
        report = quantize(source, "x", target_bpw=4.0, include_types=NARROW, sensitivity={name: factor}, dry_run=True)
        assert wanted == next(tensor.target for tensor in report.tensors if tensor.name == name)


def test_nothing_is_searched_or_measured_in_vain(source: Path, tmp_path: Path) -> None:
    """An output that exists is seen before; a callback can stop the search, and sees every tensor."""
    (tmp_path / "there.gguf").write_bytes(b"x")

    def measure() -> dict[str, float]:
        raise AssertionError

    with pytest.raises(QuantizeError, match="exists"):
        quantize(source, tmp_path / "there.gguf", target_bpw=4.0, sensitivity=measure)
    seen: list[tuple[int, int, str]] = []
    report = quantize(source, "x", "IQ3_K", best_mix=True, dry_run=True, progress=lambda *call: seen.append(call))
    assert [(0, report.n_weights, tensor.name) for tensor in report.tensors] == seen


def test_a_nan_is_found_before_the_first_byte(tmp_path: Path) -> None:
    """The trial encoding looks at the weights."""
    weights = np.ones((4, 256), np.float32)
    weights[2, 7] = np.nan
    raw = RawGGUF()
    raw.add_tensor("blk.0.ffn_up.weight", (256, 4), F32, weights.tobytes())
    with pytest.raises(QuantizeError, match=r"'blk\.0\.ffn_up\.weight' holds nan at row 2, column 7"):
        quantize(raw.write(tmp_path / "in.gguf"), tmp_path / "out.gguf", target_bpw=4.0)


# ---- sensitivity --------------------------------------------------------------------------------------------------


def test_shares_follow_the_stream(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch counts by its energy over that of the stream behind it, worked out by hand for block 0 and 1."""
    monkeypatch.setattr(sensitivity, "_ROW_SAMPLE", 1 << 20)  # all rows
    matrix = read_imatrix(full_imatrix(source, tmp_path / "m.dat"))
    with GGUFFile(source) as file:
        found = sensitivities(file, matrix)
    weights = {name: rows.astype(np.float64) for name, rows in decoded(source).items()}

    def energy(name: str) -> float:
        return float((weights[name] ** 2).sum(axis=0) @ matrix.entries[name])

    stream = float((weights["token_embd.weight"] ** 2).sum(axis=1).mean())
    for block in (0, 1):
        for last, first in (("attn_output", "attn_q"), ("ffn_down", "ffn_up")):
            added = energy(f"blk.{block}.{last}.weight")
            stream += added
            assert found[f"blk.{block}.{last}.weight"] == pytest.approx(0.16 * added / stream, rel=1e-6)
            assert found[f"blk.{block}.{first}.weight"] < found[f"blk.{block}.{last}.weight"]
    assert found["output.weight"] == max(found.values())


def test_sensitivities_without_a_matrix(source: Path) -> None:
    """All blocks alike: nothing is known of their inputs."""
    with GGUFFile(source) as file:
        found = sensitivities(file, None)
        assert found["blk.0.attn_k.weight"] == found["blk.1.attn_k.weight"] < found["blk.0.ffn_down.weight"]
        assert "blk.0.attn_norm.weight" not in found


def test_experts_count_as_one_branch(tmp_path: Path) -> None:
    """Of a mixture the mean over the experts, each with its own inputs."""
    rng = np.random.default_rng(0)
    raw = RawGGUF()
    raw.add_tensor("token_embd.weight", (256, 8), F32, np.ones((8, 256), "<f4").tobytes())
    weights = rng.standard_normal((2, 3, 256), np.float32)
    raw.add_tensor("blk.0.ffn_down_exps.weight", (256, 3, 2), F32, weights.tobytes())
    inputs = rng.uniform(0.5, 2, (2, 256)).astype(np.float32)
    matrix = dat_file(tmp_path / "m.dat", dat_entry(b"blk.0.ffn_down_exps.weight", inputs.reshape(-1)))
    with GGUFFile(raw.write(tmp_path / "in.gguf")) as file:
        found = sensitivities(file, read_imatrix(matrix))
    added = float(np.mean([(w.astype(np.float64) ** 2).sum(axis=0) @ x for w, x in zip(weights, inputs, strict=True)]))
    stream = 256 * np.exp(0.8) + added  # nothing is known of the attention, but what is typical of it
    assert found["blk.0.ffn_down_exps.weight"] == pytest.approx(0.16 * added / stream, rel=1e-6)


@pytest.mark.skipif(not DEMO.is_dir(), reason="needs the demo model")
def test_the_mix_beats_the_recipe_of_its_size(tmp_path: Path) -> None:
    """On a trained model, by divergence on text that no statistics saw: at least 10 % better, no larger."""
    source = DEMO / "stories-13m-f16.gguf"
    text = (DEMO / "heldout.txt").read_text(encoding="utf-8")[:20_000]
    calibration = (DEMO / "calibration.txt").read_text(encoding="utf-8")[:15_000]
    with iqrun.load(source, n_ctx=256) as base:
        matrix = iqrun.calibrate(base, calibration, tmp_path / "m.gguf", n_ctx=256)
        reports, klds = [], []
        for best_mix in (False, True):
            out = tmp_path / f"{best_mix}.gguf"
            reports.append(quantize(source, out, "IQ2_K", imatrix=matrix, best_mix=best_mix, effort="fast"))
            with iqrun.load(out, n_ctx=256) as model:
                klds.append(evaluate.divergence(model, base, text, n_ctx=256, max_chunks=8).mean_kld)
    assert reports[1].n_bytes <= reports[0].n_bytes
    assert klds[1] < 0.9 * klds[0]


def test_small_and_large_samples_agree(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss measured on some rows is near that of all."""
    with GGUFFile(source) as file:
        planner = mix.SampledLoss(file, {})
        choice = mix.Choice(file.tensors["blk.0.ffn_up.weight"], None, None, free=True)
        jobs = [mix.Job(option, None) for option in mix.options(choice, [formats.by_name(name) for name in NARROW])]
        whole = planner(jobs)
        monkeypatch.setattr(planner, "_n_weights", 8192)
        assert whole == pytest.approx(planner(jobs), rel=0.1)
        assert sorted(whole, reverse=True) == whole


def test_a_mixture_of_experts_is_mixed_too(tmp_path: Path) -> None:
    """Stacked experts with their own importance get one type; the router stays as it is; the size holds."""
    rng = np.random.default_rng(0)
    raw = RawGGUF()
    shapes = {"token_embd": (8, 256), "blk.0.attn_output": (256, 256), "blk.0.ffn_gate_inp": (4, 256)}
    for name in ("gate", "up", "down"):
        shapes[f"blk.0.ffn_{name}_exps"] = (4, 256, 256)
    for name, shape in shapes.items():
        weights = rng.standard_normal(shape, np.float32) * 0.02
        raw.add_tensor(f"{name}.weight", shape[::-1], F32, weights.tobytes())
    entries = [
        dat_entry(f"{name}.weight".encode(), rng.uniform(0.1, 9, 256 * (4 if "exps" in name else 1)))
        for name in shapes
        if name.startswith("blk") and "inp" not in name
    ]
    source, matrix = raw.write(tmp_path / "in.gguf"), dat_file(tmp_path / "m.dat", *entries)
    report = quantize(source, tmp_path / "out.gguf", target_bpw=3.4, imatrix=matrix, include_types=NARROW)
    found = {tensor.name: tensor for tensor in report.tensors}
    assert 3.1 < report.bpw <= 3.4
    assert found["blk.0.ffn_gate_inp.weight"].target == "F32"
    assert {found[f"blk.0.ffn_{name}_exps.weight"].target for name in ("gate", "up", "down")} <= set(NARROW)
    assert found["blk.0.ffn_up_exps.weight"].weighted
