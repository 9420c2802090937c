"""Streamed weights: the same bits as from a map, whatever is resident; errors; the account of a memory limit."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.engine.allocation import context_bytes, context_params, used_bytes
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import N_SLOT, choose_resident, memory_limit, pieces_of
from iqrun.engine.session import Session
from iqrun.engine.stream import Stream
from iqrun.errors import ClosedError, GGUFError, ResourceError
from iqrun.gguf import GGUFFile
from iqrun.model import build_program, plan_file
from iqrun.program import Program
from tests.emulated import EMULATED
from tests.gguf_builder import tiny_llama

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="weights are streamed on Linux only")

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PIECE = 20_000  # so that these small matrices have several pieces
IDS = [1, *range(20, 90)]


def write_model(path: Path, weight_type: str = "IQ4_KS", **options: Any) -> Path:
    return tiny_llama(path, n_embd=256, n_ff=512, n_vocab=700, weight_type=weight_type, n_ctx=256, **options)


def stream_of(native: NativeProgram, share: float, **options: Any) -> Stream:
    """A stream that keeps a share of the weights."""
    pieces = [(piece.bytes, piece.share) for piece in pieces_of(native, PIECE)]
    resident = choose_resident(pieces, int(share * sum(size for size, _ in pieces)))
    return Stream(native, resident, piece_bytes=PIECE, context_bytes=1 << 30, **options)


def streamed(path: Path, share: float, **options: Any) -> NativeProgram:
    native = NativeProgram(build_program(GGUFFile(path)))
    native.stream = stream_of(native, share, **options)
    return native


def numbers(native: NativeProgram, n_threads: int, n_batch: int = 64) -> list[np.ndarray]:
    """Logits of a prompt, of tokens one by one, and of a few at once."""
    with Session(native, n_ctx=256, n_threads=n_threads, n_batch=n_batch) as session:
        found = [session.evaluate(IDS)]
        found += [session.evaluate([token]) for token in range(5, 9)]
        found += [session.evaluate(IDS[:6], want="all"), session.evaluate(IDS[:3], want="all", way="decode")]
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("stream") / "model.gguf")


@pytest.fixture(scope="module")
def expected(path: Path) -> Iterator[Callable[[], list[np.ndarray]]]:
    found = numbers(NativeProgram(build_program(GGUFFile(path))), 2)
    yield lambda: found


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("share", "n_slot", "n_reader"), [(0, 2, 1), (0.4, 3, 2), (0.9, 8, 3), (1, 2, 1)])
def test_streamed_logits_are_those_of_the_map(
    path: Path, expected: Callable[[], list[np.ndarray]], share: float, n_slot: int, n_reader: int, n_threads: int
) -> None:
    """Prefill and decode, bit for bit."""
    assert same(numbers(streamed(path, share, n_slot=n_slot, n_reader=n_reader), n_threads), expected())


@pytest.mark.parametrize("weight_type", ["F32", "IQ2_K", "IQ3_KS", "IQ6_K", "Q6_K"])
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"arch": "qwen2"}], ids=["llama", "tied", "qwen2"])
def test_every_kind_of_weight(tmp_path: Path, weight_type: str, options: dict[str, Any]) -> None:
    """Types whose rows have a header, or are not aligned to anything; biases; an embedding that is the output, too."""
    file = write_model(tmp_path / "model.gguf", weight_type, **options)
    assert same(numbers(streamed(file, 0.3), 2), numbers(NativeProgram(build_program(GGUFFile(file))), 2))


@pytest.mark.parametrize("share", [0, 0.4, 0.9])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_experts(tmp_path: Path, share: float, n_threads: int) -> None:
    """A mixture of experts, whose choice is known in the middle of a step only."""
    file = write_model(tmp_path / "model.gguf", n_expert=6, n_used=2)
    expected = numbers(NativeProgram(build_program(GGUFFile(file))), n_threads)
    assert same(numbers(streamed(file, share, n_slot=3), n_threads), expected)


def test_only_chosen_experts_are_read(tmp_path: Path) -> None:
    """A token reads two of eight experts, and what is not an expert."""
    native = streamed(write_model(tmp_path / "model.gguf", n_expert=8, n_used=2), 0, n_slot=2, n_reader=1)
    assert native.stream is not None
    pieces = pieces_of(native, PIECE)
    once, everything = sum(piece.bytes * piece.share for piece in pieces), sum(piece.bytes for piece in pieces)
    assert once < 0.6 * everything
    with Session(native, n_ctx=256, n_threads=2) as session:
        session.evaluate(IDS[:1])
        before = native.stream.bytes_read
        session.evaluate(IDS[:1])
        ahead = 2 * max(piece.bytes for piece in pieces) + 8192
        assert once - ahead - 4096 * len(pieces) <= native.stream.bytes_read - before <= once + ahead


def test_split_model(tmp_path: Path) -> None:
    """Weights in several files are read from the right one."""
    whole = write_model(tmp_path / "whole.gguf", "F16")
    iqrun.quantize(whole, tmp_path / "model.gguf", "IQ3_K", max_shard_bytes=400_000)
    first = min(tmp_path.glob("model-00001-of-*.gguf"))
    assert first.name != "model-00001-of-00001.gguf"
    assert same(numbers(streamed(first, 0.5), 2), numbers(NativeProgram(build_program(GGUFFile(first))), 2))


def test_a_file_system_without_direct_reads(
    path: Path, expected: Callable[[], list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go through the page cache there, and are the same."""
    monkeypatch.delattr(os, "O_DIRECT")
    assert same(numbers(streamed(path, 0.4), 2), expected())


def test_a_step_reads_each_streamed_byte_once(path: Path) -> None:
    """Of a prompt's 70 tokens, as of one token: resident pieces are not read again, and no matrix twice."""
    native = streamed(path, 0.5, n_slot=2, n_reader=1)
    assert native.stream is not None
    sizes = [piece.bytes for piece in pieces_of(native, PIECE)]
    kept = choose_resident([(size, 1.0) for size in sizes], sum(sizes) // 2)
    once = sum(size for size, stays in zip(sizes, kept, strict=True) if not stays)
    with Session(native, n_ctx=256, n_threads=2) as session:
        session.evaluate(IDS)
        for ids in (IDS[:1], IDS):
            before = native.stream.bytes_read
            session.evaluate(ids)
            ahead = 2 * max(sizes) + 8192 * len(ids)
            assert once - ahead - 4096 * len(sizes) <= native.stream.bytes_read - before <= once + ahead


def test_many_logits_come_in_several_steps(path: Path, expected: Callable[[], list[np.ndarray]]) -> None:
    """Where the account has room for a few rows of logits only; their bits stay."""
    whole, cut = NativeProgram(build_program(GGUFFile(path))), streamed(path, 0.5, n_outputs=5)
    with Session(whole, n_ctx=256, n_threads=2) as one, Session(cut, n_ctx=256, n_threads=2) as other:
        for want in ("all", np.arange(len(IDS)) % 3 == 0):
            rows = one.evaluate(IDS, want, "prefill")
            assert np.array_equal(rows, other.evaluate(IDS, want, "prefill"))


def test_two_sessions_take_turns(path: Path, expected: Callable[[], list[np.ndarray]]) -> None:
    """Steps of two contexts in two threads, of one stream: both get their own numbers."""
    from concurrent.futures import ThreadPoolExecutor

    native = streamed(path, 0.5)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda n: numbers(native, n), [1, 2]):
            assert same(found, expected())


def test_a_file_that_is_cut_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a step, where nothing but the read itself tells."""
    file = write_model(tmp_path / "model.gguf")
    native = streamed(file, 0.2)
    monkeypatch.setattr(Program, "check_file", lambda self: None)
    with Session(native, n_ctx=256, n_threads=2) as session:
        session.evaluate(IDS)
        os.truncate(file, file.stat().st_size // 3)
        with pytest.raises(GGUFError, match=r"model\.gguf: cannot read it at byte \d+: the file ends there"):
            for _ in range(3):
                session.evaluate([7])
        assert len(session) >= len(IDS)


def test_a_file_that_is_replaced_is_an_error(tmp_path: Path) -> None:
    """Between the map and the stream."""
    file = write_model(tmp_path / "model.gguf")
    native = NativeProgram(build_program(GGUFFile(file)))
    write_model(tmp_path / "other.gguf", seed=3).replace(file)
    with pytest.raises(GGUFError, match="was replaced"):
        stream_of(native, 0.5)


def test_in_a_forked_process_nothing_runs_and_nothing_hangs(path: Path) -> None:
    """The child is told so; the parent goes on."""
    session = Session(streamed(path, 0.3), n_ctx=256, n_threads=2)
    before = session.evaluate(IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            session.evaluate([1])
        except ClosedError:
            session.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    session.truncate(0)
    assert np.array_equal(session.evaluate(IDS), before)
    session.close()


def test_resident_pieces_are_spread_evenly() -> None:
    """Of every few pieces in a row about the same share is kept, and the room is used but not exceeded."""
    sizes = [100, 101, 99, 100] * 50
    pieces = [(size, 1.0) for size in sizes]
    kept = choose_resident(pieces, 6000)
    used = sum(size for size, stays in zip(sizes, kept, strict=True) if stays)
    assert 5800 < used <= 6000
    assert all(2 <= sum(kept[i : i + 10]) <= 4 for i in range(0, 200, 10))
    assert not any(choose_resident(pieces, 0))
    assert all(choose_resident(pieces, sum(sizes)))


def test_experts_are_the_last_to_stay() -> None:
    """What every token uses comes first; experts share what is left."""
    pieces = [(100, 1.0), (100, 0.25), (100, 0.25), (100, 1.0), (100, 0.25), (100, 0.25)]
    assert choose_resident(pieces, 100) == [False, False, False, True, False, False]
    assert choose_resident(pieces, 400) == [True, False, True, True, False, True]
    assert choose_resident(pieces, 600) == [True] * 6


def test_limit_is_needed_only_if_not_all_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that holds everything leaves the file to the page cache; without one, what is free decides."""
    from iqrun.engine import residency

    monkeypatch.setattr(residency.machine, "process_memory", lambda: 50_000_000)
    monkeypatch.setattr(residency.machine, "available_memory", lambda: 400_000_000)
    assert memory_limit(300_000_000, 10_000_000, 500_000_000) is None
    assert memory_limit(300_000_000, 10_000_000, 350_000_000) == 350_000_000
    assert memory_limit(300_000_000, 10_000_000, None) is None
    limit = memory_limit(600_000_000, 10_000_000, None)
    assert limit is not None
    assert 350_000_000 < limit < 450_000_000
    monkeypatch.setattr(residency.machine, "available_memory", lambda: None)
    assert memory_limit(600_000_000, 10_000_000, None) is None


def room_for(n_bytes: int) -> int:
    """A limit for the demo model that leaves so much for resident weights when the context is full."""
    plan = plan_file(DEMO, 1 << 40, n_ctx=256, n_threads=2)
    return plan.limit - plan.free - plan.resident - plan.begun + plan.context + n_bytes


def test_load_with_a_limit() -> None:
    """The text is the same, the account adds up, and a second session takes its room from the weights."""
    with iqrun.load(DEMO, n_ctx=256, n_threads=2) as model:
        text = model.complete("Once upon a time", max_tokens=12, temperature=0)
        assert model.streaming is None
    seen: list[tuple[int, int]] = []
    limit = room_for(12_000_000)
    with iqrun.load(DEMO, n_ctx=256, n_threads=2, memory=limit, on_progress=lambda *at: seen.append(at)) as model:
        plan = model.streaming
        assert plan is not None
        assert 9_000_000 < plan.resident + plan.begun - plan.context + plan.free < 15_000_000  # Python grows meanwhile
        assert 5_000_000 < plan.streamed < 25_000_000
        assert 1_000_000 < plan.streamed_when_full - plan.streamed <= plan.context - plan.begun
        assert 0 <= plan.free < 2 << 20  # less than a piece
        assert seen[0] == (0, seen[-1][1])
        assert seen[-1][0] == seen[-1][1] > 0
        assert model.complete("Once upon a time", max_tokens=12, temperature=0) == text
        with model.session() as first, model.session() as second:
            assert np.array_equal(first.evaluate([1, 5]), second.evaluate([1, 5]))
        with pytest.raises(ResourceError, match="no room for another context"):
            model.session(n_ctx=100_000)


def test_weights_make_room_for_a_context_that_fills_up(path: Path, expected: Callable[[], list[np.ndarray]]) -> None:
    """Memory that a context may use holds weights until a step touches it; what was promised to one stays its own."""
    native = NativeProgram(build_program(GGUFFile(path)))
    params = context_params(256, 2, "f16", 64, n_seq=1)
    whole, missing = context_bytes(native, params), 400_000
    assert used_bytes(native, params, None, 1, 1) < whole - missing
    n_piece = len(pieces_of(native, PIECE))
    stream = native.stream = Stream(native, [True] * n_piece, piece_bytes=PIECE, context_bytes=whole - missing)
    with Session(native, n_ctx=256, n_threads=2, n_batch=64) as session:
        session.evaluate([1])
        before = stream.bytes_read
        session.evaluate([1])
        assert stream.bytes_read - before <= 8192  # a row of the embedding
        session.evaluate(IDS)
        session.evaluate([1])
        before = stream.bytes_read
        session.evaluate([1])
        ahead = N_SLOT * max(piece.bytes for piece in pieces_of(native, PIECE))
        assert 50_000 < stream.bytes_read - before < missing + 50_000 + ahead
        with pytest.raises(ResourceError, match="no room for another context"):
            Session(native, n_ctx=256, n_threads=2, n_batch=64)
    assert same(numbers(native, 2), expected())


def test_too_small_a_limit_names_the_one_that_would_do() -> None:
    """And that one does."""
    with pytest.raises(ResourceError, match=r"1 MB of memory are too little, (\d+) MB would do") as caught:
        plan_file(DEMO, 1_000_000, n_ctx=256, process_bytes=60_000_000)
    enough = int(str(caught.value).split(" MB would do")[0].split()[-1])
    assert plan_file(DEMO, enough * 1_000_000, n_ctx=256, process_bytes=60_000_000).resident >= 0
    with pytest.raises(ResourceError, match="too little"):
        plan_file(DEMO, (enough - 1) * 1_000_000, n_ctx=256, process_bytes=60_000_000)
    with pytest.raises(ResourceError, match="too little"):
        iqrun.load(DEMO, memory=1_000_000)
    with pytest.raises(ValueError, match="copy or memory"):
        iqrun.load(DEMO, memory=1_000_000, copy=True)


@pytest.mark.parametrize("limit", [0, -1, 1 << 63, float("nan"), float("inf")])
def test_a_limit_that_is_no_number_of_bytes_is_refused(limit: Any) -> None:
    """In both places that take one; what was no number once let a model run without any limit."""
    with pytest.raises(ValueError, match=r"memory is .*, but must be a number of bytes"):
        iqrun.load(DEMO, n_ctx=256, memory=limit)
    with pytest.raises(ValueError, match=r"memory is .*, but must be a number of bytes"):
        plan_file(DEMO, limit, n_ctx=256)


@pytest.mark.skipif(EMULATED, reason="the resident set has the emulator's translations of the code in it")
def test_limit_holds() -> None:
    """The largest resident set of a process that fills its context within a limit is below it."""
    code = """
import re, sys, iqrun
from iqrun.model import plan_file
plan = plan_file(sys.argv[1], 1 << 40, n_ctx=256, n_threads=2)
limit = plan.limit - plan.free - plan.resident - plan.begun + plan.context + 8_000_000
with iqrun.load(sys.argv[1], n_ctx=256, n_threads=2, memory=limit) as model:
    list(model.chat().send("Tell me a story. " * 20, max_tokens=100))
    print(model.streaming.streamed, limit)
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(DEMO)], capture_output=True, text=True, check=True, timeout=120
    )
    n_streamed, limit, peak = map(int, done.stdout.split())
    assert n_streamed > 5_000_000
    assert peak <= limit
