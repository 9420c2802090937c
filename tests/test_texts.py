"""What a model does with prompts beside plain completion: states, cancelling, asyncio, threads, forks, pickles."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.errors import CancelledError, ClosedError, StateError
from iqrun.generation import aio

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
STORY = "Once upon a time there was a little fox who lived near the river. "
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def model() -> Iterator[iqrun.Model]:
    with iqrun.load(DEMO, n_threads=2) as opened:
        yield opened


# ---- states ----


def test_state_saves_reading_and_changes_nothing(model: iqrun.Model) -> None:
    """The same text; only what follows the state is evaluated."""
    state = model.state(STORY)
    expected = model.complete(STORY + "One day", **GREEDY)
    assert model.complete(STORY + "One day", state=state, **GREEDY) == expected
    *_, last = model.generate(STORY + "One day", state=state, max_tokens=2)
    *_, whole = model.generate(STORY + "One day", max_tokens=2)
    assert last.timings.n_prompt <= 4 < whole.timings.n_prompt


def test_state_of_another_text_is_used_as_far_as_it_agrees(model: iqrun.Model) -> None:
    """A prompt that parts from the state early, one that is its beginning, and one that is the same."""
    state = model.state(STORY + "One day the fox")
    for prompt in (STORY + "Then", STORY, STORY + "One day the fox", "The", STORY + "One day the fox ran"):
        assert model.complete(prompt, state=state, **GREEDY) == model.complete(prompt, **GREEDY)


def test_damaged_state_is_refused_and_the_model_goes_on(model: iqrun.Model) -> None:
    """StateError when the text is asked for."""
    state = bytearray(model.state(STORY))
    state[100] ^= 1
    with pytest.raises(StateError):
        model.complete(STORY, state=bytes(state))
    assert model.complete(STORY, **GREEDY)


# ---- cancelling ----


def test_cancelled_token_ends_a_stream_at_the_next_step(model: iqrun.Model) -> None:
    """Not one token more; other streams are not touched."""
    token = iqrun.CancelToken()
    stream, other = model.generate(STORY, cancel=token), model.generate(STORY)
    next(stream), next(other)
    token.cancel()
    token.cancel()
    with pytest.raises(CancelledError):
        next(stream)
    next(other)
    other.close()  # type: ignore[attr-defined]
    with pytest.raises(CancelledError):
        model.complete(STORY, cancel=token)


def test_token_cancelled_at_the_end_has_no_effect(model: iqrun.Model) -> None:
    """A text that is complete stays complete."""
    token = iqrun.CancelToken()
    steps = model.generate(STORY, max_tokens=1, cancel=token)
    assert next(steps).finish_reason == "length"
    token.cancel()
    assert list(steps) == []


def test_long_prompt_is_left_at_once() -> None:
    """Cancelling from another thread while the prompt is read: CancelledError long before it would be through."""
    with iqrun.load(DEMO, n_ctx=30_000, n_threads=1) as model:
        token, ids = iqrun.CancelToken(), [5] * 29_000
        timer = threading.Timer(0.2, token.cancel)
        timer.start()
        start = time.perf_counter()
        with pytest.raises(CancelledError):
            next(model.generate(ids, cancel=token))
        assert time.perf_counter() - start < 10
        timer.join()


# ---- asyncio ----


def test_async_stream_is_the_stream_and_the_loop_stays_free(model: iqrun.Model) -> None:
    """Two streams and a ticking clock at the same time."""

    async def read() -> str:
        return "".join([piece async for piece in model.astream(STORY, max_tokens=40, temperature=0)])

    async def tick(stop: asyncio.Event) -> int:
        n = 0
        while not stop.is_set():
            await asyncio.sleep(0.001)
            n += 1
        return n

    async def main() -> tuple[list[str], int]:
        stop = asyncio.Event()
        clock = asyncio.create_task(tick(stop))
        texts = await asyncio.gather(read(), read())
        stop.set()
        return list(texts), await clock

    texts, ticks = asyncio.run(main())
    expected = model.complete(STORY, max_tokens=40, temperature=0)
    assert texts == [expected, expected]
    assert ticks >= 5


def test_awaited_completions(model: iqrun.Model) -> None:
    """One text and several."""

    async def main() -> tuple[object, object]:
        return await model.acomplete(STORY, **GREEDY), await model.acomplete([STORY, "The"], **GREEDY)

    one, several = asyncio.run(main())
    assert one == model.complete(STORY, **GREEDY)
    assert several == [one, model.complete("The", **GREEDY)]


def test_cancelled_task_stops_the_work() -> None:
    """Also while a long prompt is read; the session is free again afterwards."""
    with iqrun.load(DEMO, n_ctx=30_000, n_threads=1) as model:
        long_prompt = model.tokenizer.decode([300] * 20_000)

        async def main() -> float:
            task = asyncio.create_task(model.acomplete(long_prompt, max_tokens=1))
            await asyncio.sleep(0.3)
            start = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.perf_counter() - start

        assert asyncio.run(main()) < 10
        assert model.complete("The", max_tokens=2)


def test_leaving_an_async_stream_closes_it(model: iqrun.Model) -> None:
    """aclose() gives the session back."""
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield from model.stream(STORY)
        finally:
            closed.append(True)

    async def main() -> None:
        stream = aio.iterate(pieces())
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(main())
    assert closed == [True]


def test_errors_come_through_asyncio(model: iqrun.Model) -> None:
    """As they are raised in the thread."""

    async def main() -> None:
        await model.acomplete("", top_p=3)

    with pytest.raises(ValueError, match="top_p"):
        asyncio.run(main())


# ---- the process ----


def test_eight_threads_on_one_model(model: iqrun.Model) -> None:
    """Each gets its own text, the same as alone."""
    prompts = [STORY + word for word in ("One", "The", "A", "But", "Then", "She", "He", "It")]
    expected = [model.complete(prompt, **GREEDY) for prompt in prompts]
    texts: dict[int, str] = {}

    def work(index: int) -> None:
        texts[index] = model.complete(prompts[index], **GREEDY)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[index] for index in range(8)] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_model_in_a_forked_child_is_refused_not_hung(model: iqrun.Model) -> None:
    """Also if another thread held a lock of the session when the process forked; loading anew works there."""
    stream = model.stream(STORY)
    next(stream)
    session = model.session()
    session._context._lock.acquire()  # as a thread of the parent would
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            session.evaluate([1])
        except ClosedError:
            try:
                next(stream)
            except ClosedError:
                with iqrun.load(DEMO, n_threads=2) as fresh:
                    code = 17 if fresh.complete("The", max_tokens=2) else 2
        os._exit(code)
    session._context._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    next(stream)


@pytest.mark.parametrize("name", ["model", "session"])
def test_pickling_is_refused_clearly(model: iqrun.Model, name: str) -> None:
    """A TypeError that says what to do."""
    made = {"model": lambda: model, "session": model.session}[name]()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(made)


def test_progress_of_loading_reaches_the_end_and_can_stop_it() -> None:
    """Bytes from 0 to all; what the callback raises ends the loading and closes the file."""
    calls: list[tuple[int, int]] = []
    with iqrun.load(DEMO, n_threads=1, on_progress=lambda done, total: calls.append((done, total))):
        pass
    dones = [done for done, _ in calls]
    assert dones == sorted(dones)
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] > 20_000_000

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        iqrun.load(DEMO, on_progress=stop)


def test_logging_is_silent_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing on stdout or stderr by default; a line per model at level DEBUG."""
    code = f"import iqrun; iqrun.load({str(DEMO)!r}).complete('The', max_tokens=2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    with caplog.at_level(logging.DEBUG, "iqrun"):
        iqrun.load(DEMO).close()
    assert any("stories-13m-f16.gguf" in record.getMessage() for record in caplog.records)


# ---- numbers ----


def test_score_is_the_log_probability_of_each_token(model: iqrun.Model) -> None:
    """Against the logits, also where pieces of 128 tokens meet; the first tokens can be given."""
    ids = model.tokenizer.encode(STORY * 12)
    assert len(ids) > 150
    logits = model.logits(ids).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = log_p[np.arange(len(ids) - 1), ids[1:]]
    score = model.score(STORY * 12)
    assert score.ids == tuple(ids[1:])
    assert score.logprobs == pytest.approx(expected, abs=1e-4)
    assert score.total == pytest.approx(expected.sum(), abs=1e-2)
    assert score.perplexity == pytest.approx(np.exp(-expected.mean()), rel=1e-4)
    assert model.score(ids, n_given=140).logprobs == pytest.approx(expected[139:], abs=1e-3)
    with pytest.raises(ValueError, match="n_given is 0"):
        model.score(ids, n_given=0)


def test_likely_text_scores_better(model: iqrun.Model) -> None:
    """Order matters to a language model."""
    assert model.score("Once upon a time").total > model.score("time a upon Once").total


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_embeddings_are_the_last_layers_vectors(model: iqrun.Model, pooling: str) -> None:
    """Against the numpy engine: the input of the output matrix, pooled; several texts are those of one by one."""
    from iqrun.gguf import GGUFFile
    from iqrun.model import build_program
    from tests.reference_program import ReferenceSession

    ids = model.tokenizer.encode(STORY)
    with GGUFFile(DEMO) as file:
        program = build_program(file)
        reference = ReferenceSession(program)
        reference.evaluate(ids)
        vectors = reference.buffers[program.ops[-1].src[0].index]
    expected = {"mean": vectors.mean(0), "last": vectors[-1], "cls": vectors[0]}[pooling]
    found = model.embed(STORY, pooling=pooling, normalize=False)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    unit = model.embed([STORY, "The cat"], pooling=pooling)  # type: ignore[arg-type]
    assert np.linalg.norm(unit, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert unit[0] == pytest.approx(found / np.linalg.norm(found), abs=1e-6)
    assert np.array_equal(model.embed("The cat", pooling=pooling), unit[1])  # type: ignore[arg-type]
