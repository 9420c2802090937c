"""What fits: files and sizes in every type, memory, speed, and the advice, on boards that are made up."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from iqrun import machine
from iqrun.benchmark.disk import direct_rate
from iqrun.engine.residency import PIECE_BYTES
from iqrun.errors import GGUFError, ResourceError
from iqrun.fitting import (
    PACE,
    TYPES,
    Board,
    Candidate,
    Estimate,
    Estimator,
    candidates,
    disk,
    kernels,
    measure_board,
    open_source,
    verdict,
)
from iqrun.fitting.quality import DIVERGENCE, quality_class
from iqrun.fitting.sources import typical_size
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile
from iqrun.model import build_program, plan_file
from iqrun.quantizer import quantize
from tests.emulated import EMULATED
from tests.gguf_builder import tiny_llama

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "models" / "demo" / "stories-13m-f16.gguf"
maps_much = pytest.mark.skipif(EMULATED, reason="the emulator maps no file that is larger than the memory")
RATES = dict.fromkeys(FORMATS, 10e9)
PI5 = Board(
    cpu="Raspberry Pi 5", isa="neon_dotprod", n_threads=4, free_memory=3_600_000_000, read_bandwidth=11e9,
    disk_speed=80e6, disk_speed_busy=80e6, speed_beside_disk=1.0, bytes_per_second=RATES, op_seconds=1e-5,
)  # fmt: skip


@cache
def of(model: str) -> tuple[Candidate, ...]:
    with open_source(model) as source:
        return tuple(candidates(source))


@pytest.fixture(autouse=True, scope="module")
def _let_go() -> Iterator[None]:
    """The models' maps count as memory of this process."""
    yield
    of.cache_clear()
    gc.collect()


def by_type(board: Board, model: str, n_ctx: int = 4096) -> dict[str, Estimate]:
    return {estimate.type: estimate for estimate in Estimator(board).estimate_all(of(model), n_ctx)}


@pytest.mark.parametrize("type_name", ["IQ2_K", "IQ4_KS", "IQ6_K", "Q8_0"])
def test_a_model_in_another_type_is_what_the_quantizer_writes(type_name: str, tmp_path: Path) -> None:
    """Size of the file, bytes per token and context are those of the file that is made."""
    made = tmp_path / "q.gguf"
    quantize(DEMO, made, type_name, effort="fast")
    expected = by_type(PI5, str(DEMO), 1024)[type_name]
    own = next(e for e in Estimator(PI5).estimate_all(of(str(made)), 1024) if e.own)
    assert expected.file_bytes == own.file_bytes == made.stat().st_size
    assert (own.type, own.context_bytes) == (type_name, expected.context_bytes)
    with GGUFFile(made) as file:
        read = build_program(file).weight_bytes_per_token
    assert own.weight_bytes_per_token == expected.weight_bytes_per_token == read


def test_of_experts_a_token_reads_those_that_it_uses(tmp_path: Path) -> None:
    """All of them are in the file and in memory; speed is that of two of eight."""
    sparse = tiny_llama(tmp_path / "moe.gguf", n_embd=256, n_ff=512, n_expert=8, n_used=2, weight_type="F16")
    dense = tiny_llama(tmp_path / "all.gguf", n_embd=256, n_ff=512, n_expert=8, n_used=8, weight_type="F16")
    two, eight = (by_type(replace(PI5, op_seconds=0.0), str(path), 256)["IQ4_K"] for path in (sparse, dense))
    assert two.file_bytes == eight.file_bytes
    experts = two.file_bytes - two.weight_bytes_per_token
    assert experts > eight.file_bytes / 2
    assert two.weight_bytes_per_token < eight.weight_bytes_per_token / 2
    assert two.tokens_per_second == pytest.approx(10e9 / two.weight_bytes_per_token)


def test_memory_is_the_loaders_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """What streams, and how much, is what loading the file with that limit would do; what cannot load is too large."""
    monkeypatch.setattr(machine, "process_memory", lambda: 50_000_000)
    verdicts = []
    for limit in (72_000_000, 85_000_000, 95_000_000, 110_000_000):
        found = next(e for e in Estimator(PI5, memory=limit).estimate_all(of(str(DEMO)), 256) if e.type == "F16")
        verdicts.append(verdict(found))
        if verdicts[-1] == "streams":
            assert found.streamed_bytes == plan_file(DEMO, limit, n_ctx=256, n_threads=4).streamed > 0
    assert verdicts == ["too large", "streams", "streams", "fits"]
    with pytest.raises(ResourceError):
        plan_file(DEMO, 72_000_000, n_ctx=256)


def test_speed_adds_weights_and_operations_and_waits_for_the_disk() -> None:
    """Each type at the rate of its kernels; a disk that is slower than that sets the pace."""
    found = by_type(PI5, "1b", 512)["IQ4_K"]
    one = next(one for one in of("1b") if one.type == "IQ4_K")
    seconds = found.weight_bytes_per_token / 10e9 + 1e-5 * len(one.native.program.ops)
    assert found.tokens_per_second == pytest.approx(1 / seconds)
    read = one.native.program.bytes_by_type()
    slow = replace(PI5, op_seconds=0.0, bytes_per_second={**RATES, "IQ4_K": 1e9})
    expected = 1 / (read["IQ4_K"] / 1e9 + (sum(read.values()) - read["IQ4_K"]) / 10e9)
    assert by_type(slow, "1b", 512)["IQ4_K"].tokens_per_second == pytest.approx(expected)
    streamed = by_type(replace(PI5, free_memory=500_000_000), "1b", 512)["IQ4_K"]
    assert (verdict(found), verdict(streamed)) == ("fits", "streams")
    assert streamed.tokens_per_second == pytest.approx(80e6 / streamed.streamed_bytes)
    lean = replace(PI5, free_memory=500_000_000, disk_speed_busy=60e6)
    slowed = by_type(lean, "1b", 512)["IQ4_K"]
    assert slowed.tokens_per_second == pytest.approx(1 / (seconds + (streamed.streamed_bytes - seconds * 60e6) / 80e6))
    half = by_type(replace(lean, speed_beside_disk=0.5), "1b", 512)["IQ4_K"]
    assert half.tokens_per_second == pytest.approx(
        1 / (2 * seconds + (half.streamed_bytes - 2 * seconds * 60e6) / 80e6)
    )
    fast = replace(lean, disk_speed=9e9, disk_speed_busy=8e9, speed_beside_disk=0.5)
    reading = streamed.streamed_bytes / 8e9
    assert by_type(fast, "1b", 512)["IQ4_K"].tokens_per_second == pytest.approx(1 / (seconds + reading / 2))
    no_disk = by_type(replace(PI5, free_memory=500_000_000, disk_speed=None), "1b", 512)["IQ4_K"]
    assert no_disk.tokens_per_second is None
    assert verdict(by_type(replace(PI5, free_memory=20_000_000), "1b", 512)["IQ4_K"]) == "too large"


@pytest.mark.parametrize(
    "billions", [0.1, 0.5, 1.1, 3, 4, 7, *(pytest.param(n, marks=maps_much) for n in (13, 14, 70, 400))]
)
def test_typical_sizes_have_the_number_of_weights(billions: float) -> None:
    """Within a twentieth; shapes that heads and superblocks can divide; queries share keys as in models of today."""
    with open_source(f"{billions}b") as source:
        n_weights = sum(tensor.n_weights for tensor in source.tensors.values())
    assert n_weights == pytest.approx(billions * 1e9, rel=0.05)
    size = typical_size(billions * 1e9)
    assert size.n_embd % 256 == size.n_ff % 256 == size.n_embd % size.n_head == size.n_head % size.n_head_kv == 0
    assert size.n_head >= 4 * size.n_head_kv
    assert size.n_embd < size.n_ff < 6 * size.n_embd


def test_sizes_out_of_range_and_missing_files_are_refused() -> None:
    """Each with a sentence."""
    with pytest.raises(ValueError, match="out of range"):
        open_source("2000b")
    with pytest.raises(GGUFError):
        open_source("no-such-file.gguf")


def test_larger_files_need_more_and_keep_more() -> None:
    """In order of size; memory follows; a higher divergence belongs to a smaller file."""
    estimates = Estimator(PI5).estimate_all(of("3b"), 4096)
    assert {e.type for e in estimates} == set(TYPES)
    sizes = [e.memory_bytes for e in estimates]
    assert sizes == sorted(sizes)
    measured = [e.divergence for e in estimates if e.divergence is not None]
    assert measured == sorted(measured, reverse=True)


@maps_much
def test_advice_takes_quality_while_it_is_fast() -> None:
    """A small model in a good type; a large one in a faster type; one that does not fit with a smaller context."""
    assert Estimator(PI5).recommend(of("0.5b"), 4096).estimate.type == "IQ5_K"
    large = Estimator(replace(PI5, bytes_per_second=dict.fromkeys(FORMATS, 4e9))).recommend(of("3b"), 4096).estimate
    assert large.fits
    assert large.quality in ("fair", "good")
    tight = replace(PI5, free_memory=1_300_000_000)
    advice = Estimator(tight).recommend(of("3b"), 4096)
    assert advice.estimate.fits
    assert advice.estimate.n_ctx < 4096
    assert "4096 does not fit" in advice.reason
    assert not Estimator(PI5).recommend(of("70b"), 4096).estimate.fits


def test_advice_streams_where_the_disk_is_fast() -> None:
    """The best type that the disk keeps pace with; a slow disk asks for a smaller model."""
    small = replace(PI5, free_memory=400_000_000, disk_speed=3e9, disk_speed_busy=3e9)
    advice = Estimator(small).recommend(of("1b"), 4096)
    assert verdict(advice.estimate) == "streams"
    assert (advice.estimate.tokens_per_second or 0) >= PACE
    assert "faster than people read" in advice.reason
    slow = Estimator(replace(small, disk_speed=20e6, disk_speed_busy=20e6)).recommend(of("1b"), 4096)
    assert (slow.estimate.tokens_per_second or 0) < PACE


def test_largest_context_is_the_last_that_fits() -> None:
    """Up to what the model was trained for."""
    board = replace(PI5, free_memory=1_500_000_000)
    advice = Estimator(board).recommend(of("1b"), 2048)
    one = next(one for one in of("1b") if one.type == advice.estimate.type)
    assert Estimator(board).fits(one, advice.n_ctx_max)
    assert not Estimator(board).fits(one, advice.n_ctx_max + 256)
    ample = Estimator(replace(board, free_memory=1 << 40))
    assert ample.recommend(of("1b"), 2048).n_ctx_max == one.n_ctx_train


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are positive, every type has its kernel's, memory is what is free."""
    monkeypatch.setattr(machine, "available_memory", lambda: 450_000_000)
    monkeypatch.setattr(kernels, "_MATRIX_BYTES", 4 << 20)
    monkeypatch.setattr(kernels, "_SECONDS", 0)
    board = measure_board(n_threads=1)
    assert board.free_memory == 450_000_000
    assert board.read_bandwidth > 1e6
    assert set(board.bytes_per_second) == set(FORMATS)
    assert min(board.bytes_per_second.values()) > 0
    assert 0 < board.op_seconds < 1


@pytest.mark.parametrize("limit", [100, 3])
def test_the_first_reading_of_a_file_does_not_count(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor what there was no time for. The clock is moved by reads: 1 s for the first of a piece, then 10 ms."""
    n_pieces, seen, now, lock = 20, set[int](), [0.0], Lock()

    def read(_: int, rooms: list[memoryview], offset: int) -> int:
        with lock:
            now[0] += 0.01 if offset in seen else 1.0
            seen.add(offset)
        return len(rooms[0])

    monkeypatch.setattr("iqrun.benchmark.disk._SECONDS", limit)
    monkeypatch.setattr("iqrun.benchmark.disk.perf_counter", lambda: now[0])
    monkeypatch.setattr(os, "preadv", read)
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, n_pieces * PIECE_BYTES)
    with path.open("rb") as file:
        assert direct_rate([file.fileno()], 0.5) == pytest.approx(100 * PIECE_BYTES)
    assert (len(seen) == n_pieces) == (limit == 100)


def test_types_are_measured_in_turns_in_the_same_room() -> None:
    """Each one's rows are there when it is its turn, and the engine multiplies them."""
    room = np.zeros(1 << 20, np.uint8)
    first, second = (kernels._Matrix(FORMATS[name], room) for name in ("IQ4_K", "Q8_0"))
    for matrix in (first, second, first):
        matrix.fill()
        rates = matrix.rates(1)
        assert len(rates) > 1
        assert min(rates) > 0
        assert np.array_equal(matrix._data[-kernels._N_MADE :], matrix._made)


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
