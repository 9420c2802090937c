"""Experts, and weights that are read while they are used: broken files, files that change, closing, ending, leaks."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import pieces_of
from iqrun.engine.session import Session
from iqrun.engine.stream import Stream
from iqrun.gguf import GGUFFile
from iqrun.model import build_program, plan_file
from iqrun.models.demo import model_path
from tests.emulated import EMULATED
from tests.gguf_builder import tiny_llama
from tests.hostile.breaker import broken
from tests.hostile.classes import is_of_experts
from tests.hostile.test_broken_files import outcomes
from tests.hostile.test_mapped_files import run_script
from tests.hostile.test_threads_and_signals import errors_of_closing

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="weights are streamed on Linux only")

# a model with a limit that leaves 8 MB of its 25 MB of weights in memory
LOAD = """
import iqrun
from iqrun.model import plan_file
def load(path, n_ctx=256):
    plan = plan_file(path, 1 << 40, n_ctx=n_ctx, n_threads=2)
    limit = plan.limit - plan.free - plan.resident - plan.begun + plan.context + 8_000_000
    model = iqrun.load(path, n_ctx=n_ctx, n_threads=2, memory=limit)
    assert model.streaming.streamed > 5_000_000
    return model
"""


def script(text: str) -> str:
    """`LOAD`, then the text, both at the left margin."""
    import textwrap

    return LOAD + textwrap.dedent(text)


def streamed(path: Path, share: float = 0.5) -> NativeProgram:
    native = NativeProgram(build_program(GGUFFile(path)))
    n_piece = len(pieces_of(native, 4096))
    resident = [index < share * n_piece for index in range(n_piece)]
    native.stream = Stream(native, resident, piece_bytes=4096, context_bytes=1 << 30)
    return native


@pytest.mark.parametrize("arch", ["llama", pytest.param("qwen3moe", marks=pytest.mark.slow)])
def test_every_field_of_experts_may_be_wrong(tmp_path: Path, arch: str) -> None:
    """S5, S8, S14: expert_count, expert_used_count, router and 3-D tensors: mapped, streamed the same, or an error."""
    path = tiny_llama(
        tmp_path / "m", arch=arch, n_embd=16, n_head=2, n_head_kv=1, n_ff=16, n_layer=1, n_vocab=300, n_expert=3
    )
    good = path.read_bytes()
    found = outcomes("streamed", good, filter(is_of_experts, broken(good)))
    assert found["ok"] > 5
    assert found["GGUFError"] > 300
    assert found["UnsupportedModelError"] > 30


def test_a_file_that_is_cut_while_it_streams_is_an_error(tmp_path: Path) -> None:
    """S17: twenty times, a thread cuts the file at a random moment of prefill and generation. GGUFError or in time;
    without a guard for SIGBUS, as nothing is read from the map."""
    path = tmp_path / "model.gguf"
    shutil.copyfile(model_path(), path)
    found = run_script(
        script("""
        import os, random, shutil, sys, threading
        source, path = sys.argv[1] + ".whole", sys.argv[1]
        shutil.copyfile(path, source)
        random.seed(7)
        refused = 0
        for round in range(20):
            shutil.copyfile(source, path)
            with load(path) as model, model.session() as session:
                session.evaluate([1, 5])
                cut = threading.Timer(random.random() * 0.02, os.truncate, (path, random.randrange(10**7)))
                cut.start()
                try:
                    for _ in range(40):
                        session.truncate(0)
                        session.evaluate([1] * (200 if round % 2 else 1))
                except iqrun.GGUFError as error:
                    assert "model.gguf" in str(error), error
                    refused += 1
                cut.join()
        print(refused)
        """),
        path,
    )
    assert found.returncode == 0, found
    assert int(found.stdout) > 5


def test_a_fifo_in_the_place_of_the_model_is_not_waited_for(tmp_path: Path) -> None:
    """S17: put there between the map and the stream."""
    path = tiny_llama(tmp_path / "m.gguf")
    native = NativeProgram(build_program(GGUFFile(path)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(iqrun.GGUFError, match="not a regular file"):
        Stream(native, [False] * len(pieces_of(native)))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "f32"])
@pytest.mark.parametrize("memory", [None, 90_000_000])
def test_contexts_beyond_memory_are_refused_with_what_would_fit(kv_type: Any, memory: int | None) -> None:
    """Any type of cache, with and without a limit: a number that would do, at once, and nothing is allocated."""
    peak = _resident()
    for n_ctx in (1 << 30, 100_000_000):
        with pytest.raises(iqrun.ResourceError, match=r"n_ctx=\d+ would fit|\d+ MB would do") as caught:
            iqrun.load(model_path(), n_ctx=n_ctx, kv_type=kv_type, memory=memory)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="n_ctx is 1073741825, but must be from 1 to 1073741824"):
        iqrun.load(model_path(), n_ctx=(1 << 30) + 1, kv_type=kv_type, memory=memory)
    assert _resident() - peak < 60_000_000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_running_step_can_be_cancelled(tmp_path: Path) -> None:
    """Whether it waits for a read or multiplies: it ends soon, and the session goes on as if it had not been."""
    native = streamed(tiny_llama(tmp_path / "m", n_embd=256, n_ff=512, n_ctx=512), share=0.1)
    with Session(native, n_ctx=512, n_threads=2) as session:
        before = session.evaluate([1, 2, 3])
        for delay in (0.0, 0.001, 0.003, 0.01):
            ended = threading.Event()

            def cancel(delay: float = delay, ended: threading.Event = ended) -> None:
                while not ended.wait(delay):
                    session.cancel()

            thread = threading.Thread(target=cancel)
            thread.start()
            with pytest.raises(iqrun.CancelledError):
                while True:
                    session.truncate(3)
                    session.evaluate([7] * 500)
            ended.set()
            thread.join()
            session.truncate(0)
            assert np.array_equal(session.evaluate([1, 2, 3]), before)


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_close_while_others_generate(delay: float) -> None:
    """As without a stream, but that a thread may find no room for its context: none hangs."""
    plan = plan_file(model_path(), 1 << 40, n_ctx=256, n_threads=2)
    limit = plan.limit - plan.free - plan.resident + 40_000_000  # room for three more contexts
    model = iqrun.load(model_path(), n_threads=2, n_ctx=256, memory=limit - 25_000_000)
    assert model.streaming is not None
    ended = errors_of_closing(model, delay, max_tokens=200)
    known = (iqrun.CancelledError, iqrun.ClosedError, iqrun.ResourceError)
    assert [type(error) for error in ended if not isinstance(error, known)] == []


def test_the_interpreter_may_end_while_a_model_streams() -> None:
    """A daemon thread inside a step, readers at work: code 0, nothing on stderr, in time."""
    found = run_script(
        script("""
        import threading
        from iqrun.models.demo import model_path
        model, started = load(model_path()), threading.Event()
        def generate():
            while True:
                model.complete("Once upon a time", max_tokens=100)
                started.set()
        threading.Thread(target=generate, daemon=True).start()
        started.wait()
        """)
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.skipif(EMULATED, reason="the emulator keeps memory of each thread that has ended")
def test_streams_leave_nothing(tmp_path: Path) -> None:
    """Made, used and closed three hundred times, also those that fail: threads, descriptors and memory as before."""
    path = tiny_llama(tmp_path / "m", n_layer=1, n_embd=64, n_vocab=300)

    def once() -> None:
        native = streamed(path)
        with Session(native, n_ctx=64, n_threads=2) as session:
            session.evaluate([1, 2])
        assert native.stream is not None
        native.stream.close()
        native.stream.close()
        with pytest.raises(ValueError, match="2 slots or more"):
            Stream(native, [False] * 1000, n_slot=1)

    def state() -> tuple[int, int]:
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return len([*Path("/proc/self/fd").iterdir()]), int(status["Threads"])

    for _ in range(20):
        once()
    before, memory = state(), _resident()
    for _ in range(300):
        once()
    assert state() == before
    assert _resident() - memory < 8 << 20
