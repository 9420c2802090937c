"""Sessions of several threads in one engine: each is what it would be alone, and their steps are joined."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.errors import CancelledError, ClosedError, ContextFullError, ResourceError, StateError
from iqrun.generation.generate import generate
from iqrun.sampling import SamplingOptions
from tests.quantized_models import quantized_llama

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PROMPTS = ["the cat and the dog", "the cat and the", "a", "the cat sat on the tree and the dog ran to the cat " * 6]
SAMPLING = SamplingOptions(temperature=1.2, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[iqrun.Model]:
    path = quantized_llama(tmp_path_factory.mktemp("model") / "quantized.gguf")
    with iqrun.load(path, n_ctx=256, n_threads=2) as opened:
        yield opened


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    """The results of functions that run at the same time; their errors are raised."""
    results: dict[int, Any] = {}

    def run(index: int) -> None:
        try:
            results[index] = works[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[index] for index in range(len(works))]


def tokens_in(session: Any, model: iqrun.Model, prompt: str, n: int = 40) -> list[tuple[int | None, float | None]]:
    """What a session draws, with the log-probabilities to the last bit."""
    steps = generate(
        session, model.tokenizer, model.tokenizer.encode(prompt), sampling=SAMPLING, max_tokens=n, logprobs=0
    )
    return [(step.token_id, step.logprob) for step in steps]


def test_threads_get_what_they_would_get_alone(model: iqrun.Model) -> None:
    """Four threads at once, twice over in the same places: the same bits, and fewer steps than tokens."""
    expected = [tokens_in(model.session(), model, prompt) for prompt in PROMPTS]
    with model.parallel(4) as parallel:
        n_steps = 0
        evaluate = parallel.context.evaluate

        def counted(*args: Any) -> np.ndarray:
            nonlocal n_steps
            n_steps += 1
            return evaluate(*args)

        parallel.context.evaluate = counted  # type: ignore[method-assign]
        for _ in range(2):
            sessions = [parallel.session() for _ in PROMPTS]
            works = [lambda s=s, p=p: tokens_in(s, model, p) for s, p in zip(sessions, PROMPTS, strict=True)]
            assert in_threads(works) == expected
            for session in sessions:
                session.close()
        assert n_steps < 2 * 4 * 40


def test_a_prompt_that_another_read_is_shared(model: iqrun.Model) -> None:
    """What both begin with takes no new KV blocks and is not evaluated again, also when it comes in pieces."""
    ids = model.tokenizer.encode(PROMPTS[3])
    assert len(ids) > 130
    with model.parallel(3) as parallel, model.session() as alone:
        first, second, third = (parallel.session() for _ in range(3))
        first.evaluate(ids)
        free = parallel.context.n_free
        rows = [second.evaluate([*ids[:-3], 7, 8, 9])]
        third.evaluate(ids[:70])
        rows.append(third.evaluate([*ids[70:-3], 7, 8, 9]))
        assert free - parallel.context.n_free <= 2 * 64
        assert np.array_equal(rows[0], alone.evaluate([*ids[:-3], 7, 8, 9]))
        assert np.array_equal(rows[0], rows[1])
        assert second.tokens == third.tokens == (*ids[:-3], 7, 8, 9)
        first.truncate(0)
        assert np.array_equal(second.evaluate([5]), alone.evaluate([5]))


def test_chats_at_the_same_time(model: iqrun.Model) -> None:
    """Two chats of the demo model, in two threads, say what they say one after the other."""
    with iqrun.load(DEMO, n_threads=2) as demo:
        expected = ["".join(demo.chat().send(text, temperature=0, max_tokens=30)) for text in ("A cat.", "A dog.")]
        with demo.parallel(2) as parallel:
            chats = [parallel.chat(), parallel.chat()]
            works = [
                lambda c=c, t=t: "".join(c.send(t, temperature=0, max_tokens=30))
                for c, t in zip(chats, ("A cat.", "A dog."), strict=True)
            ]
            assert in_threads(works) == expected


def test_places_are_limited_and_come_back(model: iqrun.Model) -> None:
    """One more than asked for is an error that says so; a closed session makes room."""
    with model.parallel(2) as parallel:
        one, _two = parallel.session(), parallel.session()
        with pytest.raises(ResourceError, match="all 2 sessions are in use"):
            parallel.session()
        one.evaluate([1, 2, 3])
        one.close()
        one.close()
        assert len(parallel.session()) == 0
        with pytest.raises(ClosedError):
            one.evaluate([1])
    with pytest.raises(ValueError, match="n_sessions is 0"):
        model.parallel(0)


def test_every_session_has_the_whole_context(model: iqrun.Model) -> None:
    """All can be filled; what does not fit is refused for that session alone."""
    with model.parallel(3) as parallel:
        sessions = [parallel.session() for _ in range(3)]
        for index, session in enumerate(sessions):
            session.evaluate([3 + index] * 255)
            session.evaluate([4])
            with pytest.raises(ContextFullError, match=r"256 \+ 1 tokens do not fit"):
                session.evaluate([4])


def test_states_move_between_sessions_of_both_kinds(model: iqrun.Model) -> None:
    """Saved in one, loaded in the other; damaged ones change nothing."""
    with model.parallel(2) as parallel, model.session() as alone:
        alone.evaluate(model.tokenizer.encode(PROMPTS[0]))
        session = parallel.session()
        session.load_state(alone.save_state())
        assert session.tokens == alone.tokens
        assert session.save_state() == alone.save_state()
        assert np.array_equal(session.evaluate([5]), alone.evaluate([5]))
        with pytest.raises(StateError):
            session.load_state(alone.save_state()[:-1])
        assert len(session) == len(alone)


def test_an_error_reaches_everyone_it_concerns(model: iqrun.Model) -> None:
    """Closing while threads wait for tokens: each gets an error, none hangs."""
    with model.parallel(3) as parallel:
        sessions = [parallel.session() for _ in range(3)]
        started = threading.Barrier(4)

        def work(session: Any) -> str:
            session.evaluate([1, 2])
            started.wait()
            try:
                for _ in range(200):
                    session.evaluate([5])
                    session.truncate(2)
            except (CancelledError, ClosedError) as error:
                return type(error).__name__
            return "went on"

        threads = [lambda s=s: work(s) for s in sessions]
        closer = lambda: (started.wait(), parallel.close())  # noqa: E731
        results = in_threads([*threads, closer])
        assert set(results[:3]) <= {"CancelledError", "ClosedError"}


def test_cancelling_one_prompt_does_not_disturb_the_others() -> None:
    """The session whose prompt is read is cancelled; one that draws tokens goes on."""
    with iqrun.load(DEMO, n_ctx=30_000, n_threads=1) as model, model.parallel(2) as parallel:
        reader, writer = parallel.session(), parallel.session()
        writer.evaluate([1, 2])
        timer = threading.Timer(0.2, reader.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            reader.evaluate([5] * 29_000)
        timer.join()
        writer.cancel()
        writer.evaluate([3])
        assert (len(reader), len(writer)) == (0, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_is_refused_not_hung(model: iqrun.Model) -> None:
    """Even if a thread of the parent was in the middle of a step."""
    with model.parallel(1) as parallel:
        session = parallel.session()
        session.evaluate([1])
        parallel._turn.acquire()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                session.evaluate([2])
            except ClosedError:
                os._exit(17)
            os._exit(1)
        parallel._turn.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
