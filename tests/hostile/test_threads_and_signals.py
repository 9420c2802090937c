"""Many threads, many models, closing, Ctrl-C, fork, the interpreter's end: no crash, no hang, the right texts."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import iqrun
from iqrun.models.demo import model_path
from tests.emulated import EMULATED, SLOWER
from tests.gguf_builder import tiny_llama
from tests.hostile.test_mapped_files import run_script

PROMPTS = [
    f"Once upon a time there was a {animal}" for animal in ("cat", "dog", "fox", "bird", "fish", "cow", "pig", "hen")
]


def complete(model: iqrun.Model, prompt: str) -> str:
    return model.complete(prompt, max_tokens=8, temperature=0)


def test_k6_eight_threads_share_a_model() -> None:
    """K6: each thread gets the text that it gets alone."""
    with iqrun.load(model_path(), n_threads=1, n_ctx=128) as model:
        alone = [complete(model, prompt) for prompt in PROMPTS]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda prompt: complete(model, prompt), PROMPTS)) == alone


def test_k6_four_models_in_four_threads(tmp_path: Path) -> None:
    """K6: models of different sizes side by side, each loaded, used and closed by its own thread, many times."""
    paths = [model_path(), *(tiny_llama(tmp_path / arch, arch=arch) for arch in ("llama", "qwen2", "qwen3"))]

    def work(path: Path) -> list[str]:
        texts = []
        for _ in range(5):
            with iqrun.load(path, n_threads=2, n_ctx=64) as model:
                texts.append(complete(model, "Once"))
        return texts

    with ThreadPoolExecutor(4) as threads:
        for texts in threads.map(work, paths):
            assert len(set(texts)) == 1


def errors_of_closing(model: iqrun.Model, delay: float, max_tokens: int) -> list[iqrun.IqrunError]:
    """What ends each of four threads that generate for ever, when the model is closed after some seconds."""
    ended: list[iqrun.IqrunError] = []

    def generate() -> None:
        try:
            while True:
                model.complete("Once upon a time", max_tokens=max_tokens)
        except iqrun.IqrunError as error:
            ended.append(error)

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(delay)
    model.close()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(ended) == 4
    return ended


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.02])
def test_close_while_others_generate(delay: float) -> None:
    """Four threads generate, a fifth closes the model: each ends with CancelledError or ClosedError, none hangs."""
    model = iqrun.load(model_path(), n_threads=2, n_ctx=512)
    ended = errors_of_closing(model, delay, max_tokens=400)
    assert all(isinstance(error, (iqrun.CancelledError, iqrun.ClosedError)) for error in ended)


def test_ctrl_c_in_a_long_prefill_returns_at_once(tmp_path: Path) -> None:
    """SIGINT during a prefill of seconds raises KeyboardInterrupt within 0.2 s (of an idle machine), and the session
    goes on as if the prefill had not been."""
    path = tiny_llama(tmp_path / "m", n_embd=1024, n_ff=4096, n_head=8, n_head_kv=8, n_vocab=320, n_ctx=2048)
    found = run_script(
        """
        import os, signal, sys, threading, time
        import iqrun
        with iqrun.load(sys.argv[1], n_threads=2, n_ctx=2048) as model, model.session() as session:
            before = session.evaluate([1, 2, 3])
            sent = []
            def interrupt():
                time.sleep(0.3)
                sent.append(time.perf_counter())
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=interrupt).start()
            try:
                while True:
                    session.evaluate([7] * 2000)
                    session.truncate(3)
            except KeyboardInterrupt:
                print(time.perf_counter() - sent[0])
            assert len(session) == 3, len(session)
            session.truncate(0)
            assert (session.evaluate([1, 2, 3]) == before).all()
        """,
        path,
    )
    assert found.returncode == 0, found.stderr
    assert float(found.stdout) < 1.0 * SLOWER  # on a busy machine; alone 0.2 s


@pytest.mark.skipif(sys.platform == "win32" or EMULATED, reason="needs fork, which the emulator fails at")
def test_a_fork_after_loading_is_refused_in_the_child_and_harmless_to_the_parent() -> None:
    """In the child every use of the model says that it must be loaded there; ending and loading anew both work."""
    found = run_script(
        """
        import os, sys, warnings
        import iqrun
        from iqrun.models.demo import model_path
        warnings.simplefilter("ignore")
        model = iqrun.load(model_path(), n_threads=2, n_ctx=64)
        text = model.complete("Once", max_tokens=4, temperature=0)
        child = os.fork()
        if child == 0:
            try:
                model.complete("Once", max_tokens=4)
            except iqrun.ClosedError as error:
                assert "fork" in str(error)
            else:
                os._exit(3)
            with iqrun.load(model_path(), n_threads=2, n_ctx=64) as own:
                assert own.complete("Once", max_tokens=4, temperature=0) == text
            sys.exit(17)  # the ordinary end, with the old model still open
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        assert model.complete("Once", max_tokens=4, temperature=0) == text
        """
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("work", ["complete", "encode", "finish"])
def test_the_interpreter_may_end_while_a_thread_generates(work: str) -> None:
    """Open models, open streams and running threads at exit, daemons inside the engine or the tokenizer's C++, or an
    ordinary thread that still has work: code 0, nothing on stderr, in time."""
    found = run_script(
        """
        import sys, threading, time
        import iqrun
        from iqrun.models.demo import model_path
        work = sys.argv[1]
        model = iqrun.load(model_path(), n_threads=2, n_ctx=256)
        stream = model.stream("Once upon a time", max_tokens=None)
        next(stream)
        started = threading.Event()
        def generate():
            end = time.monotonic() + 0.5
            while work != "finish" or time.monotonic() < end:
                if work == "encode":
                    model.tokenizer.encode("Once upon a time there was " * 20)
                else:
                    model.complete("Once upon a time", max_tokens=100)
                started.set()
        threading.Thread(target=generate, daemon=work != "finish").start()
        started.wait()
        """,
        work,
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_subinterpreters_are_refused_with_a_sentence() -> None:
    """numpy and cffi keep one state per process: importing in a subinterpreter is an ImportError, not a crash."""
    interpreters = pytest.importorskip("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
    assert interpreters is not None
    found = run_script(
        f"""
        import {interpreters.__name__} as interpreters
        import iqrun.native
        other = interpreters.create()
        try:
            interpreters.run_string(other, "import iqrun.native")
        except interpreters.RunFailedError as error:
            assert "ImportError" in str(error), error
            print("refused")
        """
    )
    assert (found.returncode, found.stdout.strip()) == (0, "refused"), found.stderr


@pytest.mark.skipif(EMULATED, reason="the emulator keeps memory of each thread that has ended")
def test_opening_and_closing_leaks_nothing(tmp_path: Path) -> None:
    """A thousand times: threads, descriptors and maps are as before, and memory grows by less than 4 KiB each time."""
    open_and_close_often(tmp_path, 1000)


@pytest.mark.slow
def test_opening_and_closing_ten_thousand_times_leaks_nothing(tmp_path: Path) -> None:
    """The same, ten thousand times: less than 0.4 KiB each."""
    open_and_close_often(tmp_path, 10_000)


def open_and_close_often(tmp_path: Path, n: int) -> None:
    path = tiny_llama(tmp_path / "m", n_layer=1, n_embd=16, n_head=2, n_head_kv=1, n_ff=16, n_vocab=300)
    found = run_script(
        """
        import gc, os, sys
        import iqrun
        def state():
            gc.collect()
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            maps = sum("/m" in line for line in open("/proc/self/maps"))
            return len(os.listdir("/proc/self/fd")), int(status["Threads"]), maps, int(status["VmRSS"].split()[0])
        def once():
            with iqrun.load(sys.argv[1], n_threads=2, n_ctx=64) as model:
                model.logits([1, 2])
        for _ in range(50):
            once()
        before = state()
        for _ in range(int(sys.argv[2])):
            once()
        after = state()
        assert after[:3] == before[:3], (before, after)
        assert after[3] - before[3] < 4096, (before, after)
        """,
        path,
        n,
    )
    assert found.returncode == 0, found.stderr
