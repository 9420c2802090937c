from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqrun import machine
from iqrun.engine import steps as steps_module
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import CancelledError, ClosedError, ContextFullError, IqrunError, ResourceError
from iqrun.gguf import GGUFFile
from iqrun.model import build_program

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
IDS = [1, *range(300, 340)]


@pytest.fixture(scope="module")
def demo() -> Iterator[NativeProgram]:
    with GGUFFile(DEMO) as file:
        yield NativeProgram(build_program(file))


def open_session(demo: NativeProgram, n_ctx: int = 256, n_threads: int = 2, n_batch: int = 512) -> Session:
    return Session(demo, n_ctx=n_ctx, n_threads=n_threads, n_batch=n_batch)


@pytest.fixture
def session(demo: NativeProgram) -> Iterator[Session]:
    with open_session(demo) as opened:
        yield opened


def test_last_is_the_last_row_of_all(session: Session) -> None:
    """ "last" has shape (n_vocab,), "all" has one such row per token."""
    rows = session.evaluate(IDS, want="all")
    assert rows.shape == (len(IDS), 4096)
    assert rows.dtype == np.float32
    session.truncate(0)
    last = session.evaluate(IDS)
    assert last.shape == (4096,)
    assert last == pytest.approx(rows[-1], abs=1e-3)


def test_mask_chooses_rows_also_across_batches(demo: NativeProgram) -> None:
    """Marked tokens' rows come in order, when batches of 7 cut through them and some batches have none."""
    want = np.zeros(len(IDS), bool)
    want[[0, 5, 6, 7, 30]] = True
    with open_session(demo) as whole, open_session(demo, n_batch=7) as pieces:
        rows = whole.evaluate(IDS, want="all")
        assert pieces.evaluate(IDS, want=want) == pytest.approx(rows[want], abs=2e-2)
        pieces.truncate(0)
        assert pieces.evaluate(IDS, want=np.zeros(len(IDS), bool)).shape == (0, 4096)
        assert pieces.tokens == tuple(IDS)


def test_number_of_threads_does_not_change_the_bits(demo: NativeProgram) -> None:
    """One, two and three threads give the same logits."""
    results = []
    for n_threads in (1, 2, 3):
        with open_session(demo, n_threads=n_threads) as session:
            results.append(session.evaluate(IDS, want="all"))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_truncated_session_goes_on_as_if_nothing_had_been_there(session: Session) -> None:
    """After truncate(10), other tokens give what they give in a fresh session."""
    session.evaluate(IDS)
    session.truncate(10)
    assert session.tokens == tuple(IDS[:10])
    again = session.evaluate([7, 8, 9])
    session.truncate(0)
    session.evaluate(IDS[:10])
    assert np.array_equal(session.evaluate([7, 8, 9]), again)
    with pytest.raises(ValueError, match="cannot truncate 13 tokens to 14"):
        session.truncate(14)
    with pytest.raises(ValueError, match="cannot truncate"):
        session.truncate(-1)


def test_full_context_is_an_error_that_changes_nothing(demo: NativeProgram) -> None:
    """What does not fit is refused before anything is computed; what fits still can be."""
    with open_session(demo, n_ctx=48) as session:
        session.evaluate(IDS)
        with pytest.raises(ContextFullError, match=r"41 \+ 8 tokens do not fit in a context of 48"):
            session.evaluate([5] * 8)
        assert len(session) == len(IDS)
        session.evaluate([5] * 7)
        with pytest.raises(ContextFullError):
            session.evaluate([5])


@pytest.mark.parametrize("ids", [[], [1, 4096], [-1], [1 << 40], [1.5], [2.0], [4096], [[1, 2]], [[1], [2]], ["a"]])
def test_nonsense_ids_are_refused(session: Session, ids: list) -> None:
    """ValueError, and the session is unchanged, also once the single-token path is warm."""
    for n_tokens in (0, 10):
        with pytest.raises(ValueError, match="token id"):
            session.evaluate(ids)
        assert len(session) == n_tokens
        session.evaluate([1] * 9)
        session.evaluate([1])


@pytest.mark.parametrize("want", ["first", np.ones(3, bool), np.ones(2, np.uint8)])
def test_nonsense_want_is_refused(session: Session, want: object) -> None:
    """A wrong word, length or type."""
    with pytest.raises(ValueError, match="want"):
        session.evaluate([1, 2], want=want)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("n_ctx", 0), ("n_threads", 0), ("n_threads", 100000), ("kv_type", "q4_0"), ("n_batch", 0)]
)
def test_nonsense_arguments_are_named(demo: NativeProgram, name: str, value: object) -> None:
    """ValueError with the argument's name."""
    arguments = {"n_ctx": 64, "n_threads": 1, "kv_type": "f16", "n_batch": 8} | {name: value}
    with pytest.raises(ValueError, match=name):
        Session(demo, **arguments)


def test_closed_session_says_so(demo: NativeProgram) -> None:
    """Every use after close is a ClosedError; closing twice is fine."""
    session = open_session(demo)
    session.close()
    session.close()
    session.cancel()
    for use in (lambda: session.evaluate([1]), lambda: session.truncate(0), session.profile):
        with pytest.raises(ClosedError):
            use()


def test_threads_that_share_a_session_wait_for_each_other(session: Session) -> None:
    """Four threads append 20 tokens each: all 80 are there, none is lost, nothing crashes."""
    errors = []

    def work(token: int) -> None:
        try:
            for _ in range(20):
                session.evaluate([token])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(token,)) for token in (11, 12, 13, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(session.tokens) == sorted([11, 12, 13, 14] * 20)


def long_run(demo: NativeProgram) -> tuple[Session, list[int]]:
    """A session and tokens that keep it busy for many batches."""
    return open_session(demo, n_ctx=4096, n_threads=1, n_batch=2), [5] * 4000


def test_cancel_stops_another_threads_evaluation(demo: NativeProgram) -> None:
    """CancelledError in the evaluating thread, and the session is as it was before."""
    session, ids = long_run(demo)
    with session:
        session.evaluate(IDS)
        outcome: list[BaseException] = []

        def work() -> None:
            try:
                session.evaluate(ids)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while len(session) <= len(IDS):
            time.sleep(0.001)
        session.cancel()
        thread.join(timeout=10)
        assert not thread.is_alive()
        assert isinstance(outcome[0], CancelledError)
        assert session.tokens == tuple(IDS)
        session.evaluate([1])  # and it goes on


def test_close_stops_another_threads_evaluation(demo: NativeProgram) -> None:
    """Closing while a thread evaluates ends that evaluation first."""
    session, ids = long_run(demo)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            session.evaluate(ids)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while len(session) == 0:
        time.sleep(0.001)
    session.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert isinstance(outcome[0], CancelledError)


def test_close_does_not_let_waiting_threads_begin(demo: NativeProgram) -> None:
    """A thread that waits for its turn gets ClosedError: closing takes one batch, not all that is queued."""
    session, ids = long_run(demo)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            session.evaluate(ids)
        except BaseException as error:
            outcome.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(session) == 0:
        time.sleep(0.001)
    time.sleep(0.05)  # the other thread waits for the lock now
    session.close()
    for thread in threads:
        thread.join(timeout=10)
    assert {type(error) for error in outcome} == {CancelledError, ClosedError}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an interval timer")
def test_ctrl_c_interrupts_a_long_prompt_and_takes_it_back(demo: NativeProgram) -> None:
    """A KeyboardInterrupt during prefill leaves the session as it was."""
    session, ids = long_run(demo)
    with session:
        session.evaluate(IDS)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                session.evaluate(ids)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert session.tokens == tuple(IDS)
        session.evaluate([1])


def test_slow_operations_run_in_a_helper_thread_with_the_same_result(
    demo: NativeProgram, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When single operations take long, the main thread waits beside them; the logits are the same bits."""
    expected = session.evaluate(IDS)
    helpers: list[object] = []

    class Recorder(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *args: object, **kwargs: object) -> Any:  # type: ignore[override]
            helpers.append(args)
            return super().submit(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(steps_module, "_CALL_SECONDS", 0.0)  # everything takes long
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", Recorder)
    with open_session(demo) as slow:
        assert np.array_equal(slow.evaluate(IDS), expected)
    assert len(helpers) == len(demo.program.ops)  # one by one


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_ctrl_c_while_the_helper_starts_leaves_no_work_behind(
    session: Session, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    """When the interrupt comes before the main thread has its helper, the engine rests all the same: now and later."""
    expected = session.evaluate(IDS)
    session.truncate(0)
    busy: list[bool] = []  # grows when operations begin in the helper, and again when they end
    helpers: list[threading.Thread] = []

    def check(function: Any, *args: Any) -> None:
        in_helper = threading.current_thread() in helpers
        busy.extend([True] * in_helper)
        try:
            native_check(function, *args)
        finally:
            busy.extend([False] * in_helper)

    class Interrupted(concurrent.futures.ThreadPoolExecutor):
        def submit(self, function: Any, *args: Any) -> Any:  # type: ignore[override]
            def work() -> None:
                time.sleep(delay)
                with suppress(IqrunError):
                    function(*args)

            helpers.append(threading.Thread(target=work))
            helpers[-1].start()
            time.sleep(0.01)
            raise KeyboardInterrupt

    native_check = steps_module.check
    with monkeypatch.context() as patch:
        patch.setattr(steps_module, "_CALL_SECONDS", 0.0)
        patch.setattr(concurrent.futures, "ThreadPoolExecutor", Interrupted)
        patch.setattr(steps_module, "check", check)
        with pytest.raises(KeyboardInterrupt):
            session.evaluate(IDS)
        n_events = len(busy)
        assert n_events % 2 == 0  # nothing runs
        helpers[0].join()
        assert len(busy) == n_events  # and nothing was begun
    assert len(session) == 0
    assert np.array_equal(session.evaluate(IDS), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_session_in_a_forked_child_is_refused_not_hung(session: Session) -> None:
    """The engine's threads do not exist in a child process: using the session there raises, closing it is harmless."""
    session.evaluate([1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this is about
        child = os.fork()
    if child == 0:
        try:
            session.evaluate([2])
        except ClosedError:
            session.close()
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    session.evaluate([2])


def test_context_beyond_memory_tells_what_would_fit(demo: NativeProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 40 MB free, n_ctx 65536 (84 MB of KV cache) does not fit; what the message says does, and no more."""
    monkeypatch.setattr(machine, "available_memory", lambda: 40_000_000)
    with pytest.raises(ResourceError, match=r"needs 0\.\d GB, but 0\.0 GB .* n_ctx=(\d+) would fit") as caught:
        open_session(demo, n_ctx=65536)
    fits = int(str(caught.value).split("n_ctx=")[1].split()[0])
    assert 1000 < fits < 65536
    open_session(demo, n_ctx=fits).close()
    with pytest.raises(ResourceError):
        open_session(demo, n_ctx=fits + 64)  # at most one KV block more


def test_profile_tells_the_time_of_each_operation(demo: NativeProgram, session: Session) -> None:
    """One number per operation of the program; together about as long as the evaluation took."""
    session.profile(True)
    start = time.perf_counter()
    session.evaluate(IDS)
    seconds = session.profile(False)
    assert len(seconds) == len(demo.program.ops)
    assert all(value >= 0 for value in seconds)
    assert 0 < sum(seconds) <= time.perf_counter() - start
    session.evaluate(IDS)
    assert sum(session.profile(False)) == 0.0
