"""iqrun.evaluation.measurement: sensitivities of matrices, measured on a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.errors import QuantizeError
from iqrun.evaluation.measurement import measure_sensitivity
from iqrun.quantizer import quantize
from tests.gguf_builder import tiny_llama
from tests.test_quantizer_pipeline import decoded

TEXT = "the cat sat on the mat and the dog ran to the hill " * 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=1, weight_type="F16")


def test_it_is_divergence_over_squared_error(source: Path, tmp_path: Path) -> None:
    """For one matrix the same is done by hand, through files: quantize it, turn it back into F16, compare."""
    name = "blk.0.ffn_down.weight"
    quantize(source, tmp_path / "a.gguf", "F16", tensor_types=[("ffn_down", "IQ2_K")], effort="fast")
    quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "F16", allow_requantize=True)
    x, y = (decoded(path)[name].astype(np.float64) for path in (source, tmp_path / "a.gguf"))
    calls: list[tuple[int, int, str]] = []
    with iqrun.load(source, n_ctx=64) as base, iqrun.load(tmp_path / "b.gguf", n_ctx=64) as changed:
        kld = iqrun.divergence(changed, base, TEXT, n_ctx=64, max_chunks=3).mean_kld
        found = measure_sensitivity(base, TEXT, n_ctx=64, max_chunks=3, progress=lambda *call: calls.append(call))
    assert found[name] == pytest.approx(kld / (((x - y) ** 2).sum() / (x**2).sum()), rel=1e-3)
    assert len(calls) == len(found) == 9
    assert {done for done, _, _ in calls} == set(range(1, 10))


def test_it_steers_the_mix(source: Path, tmp_path: Path) -> None:
    """The result goes into quantize as it is."""
    with iqrun.load(source, n_ctx=64) as base:
        found = measure_sensitivity(base, TEXT, n_ctx=64, max_chunks=2)
    report = quantize(source, tmp_path / "out.gguf", target_bpw=4.0, sensitivity=found)
    assert report.bpw <= 4.0


def test_a_quantized_model_is_refused(source: Path, tmp_path: Path) -> None:
    """What it lost cannot be measured any more."""
    quantize(source, tmp_path / "small.gguf", "Q8_0")
    with iqrun.load(tmp_path / "small.gguf", n_ctx=64) as model, pytest.raises(QuantizeError, match="is Q8_0: sens"):
        measure_sensitivity(model, TEXT, n_ctx=64, max_chunks=2)
