"""What fits: shapes of files and sizes, memory, speed, and the advice, on boards that are made up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from iqrun import machine
from iqrun.engine.allocation import context_params
from iqrun.engine.lowering import NativeProgram
from iqrun.errors import GGUFError
from iqrun.fitting import Board, Estimate, disk, estimate_all, measure_board, recommend, shape_of, verdict
from iqrun.fitting.estimate import ENGINE_SHARE, TYPES, buffer_bytes, kv_bytes
from iqrun.fitting.quality import DIVERGENCE, quality_class
from iqrun.fitting.shapes import typical_size
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from iqrun.native import lib
from iqrun.quantizer import quantize

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "models" / "demo" / "stories-13m-f16.gguf"
PI5 = Board(
    cpu="Raspberry Pi 5", isa="neon_dotprod", n_threads=4, free_memory=3_600_000_000, read_bandwidth=11e9,
    disk_speed=80e6, seconds_per_weight=dict.fromkeys(FORMATS, 1e-10),
)  # fmt: skip


def by_type(board: Board, model: str, n_ctx: int = 4096) -> dict[str, Estimate]:
    return {estimate.type: estimate for estimate in estimate_all(shape_of(model), board, n_ctx)}


@pytest.mark.parametrize("type_name", ["IQ2_K", "IQ4_KS", "IQ6_K", "Q8_0"])
def test_a_files_size_in_another_type_is_what_the_quantizer_writes(type_name: str, tmp_path: Path) -> None:
    """The recipe's size, to what metadata adds."""
    made = tmp_path / "q.gguf"
    quantize(DEMO, made, type_name, effort="fast")
    expected = by_type(PI5, str(DEMO))[type_name]
    assert expected.file_bytes == pytest.approx(made.stat().st_size, abs=512)
    own = next(e for e in estimate_all(shape_of(str(made)), PI5, 4096) if e.own)
    with GGUFFile(made) as file:
        assert own.weight_bytes_per_token == pytest.approx(build_program(file).weight_bytes_per_token, rel=0.001)
        assert (own.type, own.file_bytes) == (type_name, file.file_bytes)


@pytest.mark.parametrize("n_ctx", [256, 4096, 16384])
def test_a_context_takes_what_the_engine_says(n_ctx: int, tmp_path: Path) -> None:
    """Keys and values exactly, buffers to a tenth (the engine reserves logits for a batch, but hardly writes them)."""
    quantize(DEMO, tmp_path / "q.gguf", "IQ4_K", effort="fast")
    with GGUFFile(tmp_path / "q.gguf") as file:
        native = NativeProgram(build_program(file))
        params = context_params(n_ctx, 2, "f16", 512, 1)
        engine = lib.iq_context_bytes(native.handle, params) - 4 * 4096 * (params.n_batch - 1)
    shape = shape_of(str(DEMO))
    assert kv_bytes(shape, n_ctx, "f16") == n_ctx * 5 * 2 * 2 * 128
    assert engine - kv_bytes(shape, n_ctx, "f16") == pytest.approx(buffer_bytes(shape, n_ctx), rel=0.1)
    assert kv_bytes(shape, n_ctx, "q8_0") == kv_bytes(shape, n_ctx, "f16") * 34 // 64


@pytest.mark.parametrize("billions", [0.1, 0.5, 1.1, 3, 4, 7, 13, 70, 400])
def test_typical_sizes_have_the_number_of_weights(billions: float) -> None:
    """Within a twentieth; shapes that heads and superblocks can divide."""
    shape = shape_of(f"{billions}b")
    assert shape.n_weights == pytest.approx(billions * 1e9, rel=0.05)
    size = typical_size(billions * 1e9)
    assert size.n_embd % 256 == size.n_ff % 256 == size.n_embd % size.n_head == size.n_head % size.n_head_kv == 0
    assert size.n_embd < size.n_ff < 6 * size.n_embd


def test_sizes_out_of_range_and_missing_files_are_refused() -> None:
    """Each with a sentence."""
    with pytest.raises(ValueError, match="out of range"):
        shape_of("2000b")
    with pytest.raises(GGUFError):
        shape_of("no-such-file.gguf")


def test_speed_is_the_slowest_of_memory_kernels_and_disk() -> None:
    """Each of the three limits in turn."""
    shape = shape_of("1b")
    plain = next(e for e in estimate_all(shape, PI5, 512) if e.type == "IQ4_K")
    memory_bound = replace(PI5, seconds_per_weight={})
    fast = next(e for e in estimate_all(shape, memory_bound, 512) if e.type == "IQ4_K")
    assert fast.tokens_per_second == pytest.approx(ENGINE_SHARE * 11e9 / plain.weight_bytes_per_token)
    slow_kernels = replace(PI5, seconds_per_weight=dict.fromkeys(FORMATS, 1e-8))
    slow = next(e for e in estimate_all(shape, slow_kernels, 512) if e.type == "IQ4_K")
    assert slow.tokens_per_second == pytest.approx(ENGINE_SHARE * 4 / (1e-8 * shape.n_weights), rel=0.01)
    small = replace(PI5, free_memory=plain.memory_bytes - 100_000_000)
    streamed = next(e for e in estimate_all(shape, small, 512) if e.type == "IQ4_K")
    assert not streamed.fits
    assert streamed.streamed_bytes == pytest.approx(100_000_000, rel=0.1)
    assert streamed.tokens_per_second == pytest.approx(80e6 / streamed.streamed_bytes)
    assert (verdict(plain), verdict(streamed)) == ("fits", "streams")
    tiny = next(e for e in estimate_all(shape, replace(PI5, free_memory=50_000_000), 512) if e.type == "IQ4_K")
    assert verdict(tiny) == "too large"


def test_larger_files_need_more_and_keep_more() -> None:
    """In order of size; memory follows; a higher divergence belongs to a smaller file."""
    estimates = estimate_all(shape_of("3b"), PI5, 4096)
    assert [e.type for e in estimates] == sorted(TYPES, key=[e.type for e in estimates].index)
    assert set(TYPES) == {e.type for e in estimates}
    sizes = [e.memory_bytes for e in estimates]
    assert sizes == sorted(sizes)
    measured = [e.divergence for e in estimates if e.divergence is not None]
    assert measured == sorted(measured, reverse=True)


def test_advice_takes_quality_while_it_is_fast() -> None:
    """A small model in a good type; a large one in a faster type; one that does not fit with a smaller context."""
    assert recommend(shape_of("0.5b"), PI5, 4096).estimate.type == "IQ5_K"
    large = recommend(shape_of("3b"), PI5, 4096).estimate
    assert large.fits
    assert large.quality in ("fair", "good")
    tight = replace(PI5, free_memory=int(1.35e9))
    advice = recommend(shape_of("3b"), tight, 4096)
    assert advice.estimate.fits
    assert advice.estimate.n_ctx < 4096
    assert "4096 does not fit" in advice.reason
    nothing = recommend(shape_of("70b"), PI5, 4096)
    assert not nothing.estimate.fits


def test_largest_context_is_the_last_that_fits() -> None:
    """Up to what the model was trained for."""
    board = replace(PI5, free_memory=1_500_000_000)
    shape = shape_of("1b")
    advice = recommend(shape, board, 2048)
    n_ctx = advice.n_ctx_max
    assert by_type(board, "1b", n_ctx)[advice.estimate.type].fits
    assert not by_type(board, "1b", n_ctx + 256)[advice.estimate.type].fits
    assert recommend(shape, replace(board, free_memory=1 << 40), 2048).n_ctx_max == shape.n_ctx_train


def test_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are positive, every type has its kernel's time, memory is what is free, or what the caller says."""
    monkeypatch.setattr(machine, "available_memory", lambda: 450_000_000)
    board = measure_board(n_threads=1)
    assert board.free_memory == 450_000_000
    assert board.read_bandwidth > 1e6
    assert set(board.seconds_per_weight) == set(FORMATS)
    assert min(board.seconds_per_weight.values()) > 0
    assert measure_board(n_threads=1, free_memory=7).free_memory == 7


def test_disk_speed_of_odd_files(tmp_path: Path) -> None:
    """An empty or a missing file has none; neither has a FIFO, which is not waited for."""
    (tmp_path / "empty").write_bytes(b"")
    names = ["empty", "missing"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        names.append("fifo")
    assert [disk.read_speed(tmp_path / name) for name in names] == [None] * len(names)


def test_quality_is_that_of_the_docs() -> None:
    """Every figure stands in a table of the docs, and every class is used."""
    texts = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("quantization.md", "which-type.md")]
    lines = [line for text in texts for line in text.splitlines()]
    for name, divergence in DIVERGENCE.items():
        assert any(line.startswith(f"| {name} |") and f"| {divergence:.5f} |" in line for line in lines), name
    assert {quality_class(name) for name in TYPES} == {"full", "as good", "near", "good", "fair", "rough"}
    assert quality_class("Q4_0") is None
