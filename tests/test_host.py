"""What a program that embeds iqrun relies on: nothing of the process is touched but what was asked for.

docs/embedding.md states these promises and names the tests.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy  # noqa: F401  its first import adds filters for warnings, before the test begins
import pytest

import iqrun
from tests.emulated import EMULATED

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PROMPT = "Once upon a time"

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def complete(path: Path = DEMO) -> str:
    """A short text by a model of its own; also run in child processes."""
    with iqrun.load(path, n_ctx=64, n_threads=2) as model:
        return model.complete(PROMPT, max_tokens=8, temperature=0)


def surroundings() -> dict[str, object]:
    """What belongs to the whole process."""
    return {
        "signals": [signal.getsignal(number) for number in signal.valid_signals() if number < signal.NSIG],
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "warnings": list(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "umask": _umask(),
        "root logger": (logging.root.level, list(logging.root.handlers)),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
    }


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    """Signals, environment, folder, warnings, hooks and loggers are as before, after all that the library does."""
    before = surroundings()
    complete()
    iqrun.quantize(DEMO, tmp_path / "out.gguf", "Q8_0")
    with pytest.raises(iqrun.IqrunError):
        iqrun.load(tmp_path)
    assert surroundings() == before


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither by Python nor by C, whatever happens; messages are in exceptions."""
    complete()
    with pytest.raises(iqrun.IqrunError, match="no-such"):
        iqrun.load("no-such.gguf")
    assert capfd.readouterr() == ("", "")


def test_logging_is_silent_unless_somebody_listens() -> None:
    """In a program that never heard of logging nothing appears, not even with warnings on."""
    code = (
        f"import iqrun\nwith iqrun.load({str(DEMO)!r}, n_ctx=64) as model:\n    model.complete('Once', max_tokens=4)\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@linux
def test_threads_and_files_go_with_close() -> None:
    """A closed model leaves no thread, no open file and no mapping of the model behind."""
    complete()  # what is made once and stays, such as lazily imported modules
    gc.collect()  # models that earlier tests left to the collector
    n_threads, files, maps = _threads(), _open_files(), _demo_maps()
    complete()
    _wait_for(lambda: _threads() == n_threads)
    assert (_open_files(), _demo_maps()) == (files, maps)


def _demo_maps() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(DEMO))


@linux
def test_idle_threads_use_no_cpu() -> None:
    """Between two answers the threads sleep: waiting costs (nearly) no processor time."""
    with iqrun.load(DEMO, n_ctx=64, n_threads=4) as model:
        model.complete(PROMPT, max_tokens=8)
        time.sleep(0.05)
        start = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - start < 0.1


def test_models_live_side_by_side() -> None:
    """Four of them in four threads give what one gives alone."""
    expected = complete()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(complete, [DEMO] * 4)) == [expected] * 4


def test_child_processes_that_are_spawned_load_for_themselves() -> None:
    """`multiprocessing` with ``spawn`` works, also while a model is loaded in the parent."""
    with iqrun.load(DEMO, n_ctx=64, n_threads=2) as model:
        expected = model.complete(PROMPT, max_tokens=8, temperature=0)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(complete) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
@pytest.mark.skipif(EMULATED, reason="the emulator fails when a forked child starts a thread")
def test_forked_child_may_load_anew() -> None:
    """A model of the parent is refused there with a sentence, a model of its own runs, and the parent goes on."""
    code = f"""
        import os, sys, warnings
        import iqrun
        warnings.simplefilter("ignore")
        model = iqrun.load({str(DEMO)!r}, n_ctx=64, n_threads=2)
        expected = model.complete({PROMPT!r}, max_tokens=8, temperature=0)
        child = os.fork()
        if child == 0:
            try:
                model.complete({PROMPT!r})
            except iqrun.ClosedError as error:
                model = iqrun.load({str(DEMO)!r}, n_ctx=64, n_threads=2)
                same = model.complete({PROMPT!r}, max_tokens=8, temperature=0) == expected
                os._exit(0 if "fork" in str(error) and same else 3)
            os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert model.complete({PROMPT!r}, max_tokens=8, temperature=0) == expected
        model.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_interpreter_leaves_while_a_thread_generates() -> None:
    """A daemon thread in the middle of an answer does not hold the process up, nor crash it."""
    code = f"""
        import threading, iqrun
        model = iqrun.load({str(DEMO)!r}, n_threads=2)
        begun = threading.Event()
        def work():
            for _ in model.stream({PROMPT!r}, max_tokens=None, ignore_eos=True):
                begun.set()
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_closing_an_iterator_stops_within_a_token() -> None:
    """What was abandoned computes nothing any more, and its session serves the next one."""
    with iqrun.load(DEMO, n_ctx=256, n_threads=2) as model:
        stream = model.generate(PROMPT, max_tokens=None)
        next(stream)
        stream.close()
        start = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - start < 0.1
        assert model.complete(PROMPT, max_tokens=4, temperature=0)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _open_files() -> list[str]:
    folder = Path("/proc/self/fd")
    found = [os.path.realpath(folder / name) for name in os.listdir(folder)]  # noqa: PTH208, the listing closes at once
    return sorted(name for name in found if name.startswith("/") and not name.startswith("/proc"))


def _wait_for(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
