from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun import machine
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from tests.gguf_builder import tiny_llama
from tests.reference_program import ReferenceSession

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> Iterator[iqrun.Model]:
    with iqrun.load(DEMO, n_threads=2) as opened:
        yield opened


def test_logits_match_the_reference(model: iqrun.Model) -> None:
    """The engine's logits of the demo model, F16 weights and cache, against numpy in float64."""
    ids = model.tokenizer.encode(
        "Once upon a time, there was a little girl named Lily. She liked to play with her dog."
    )
    with GGUFFile(DEMO) as file:
        expected = ReferenceSession(build_program(file)).evaluate(ids)
    logits = model.logits(ids)
    assert logits.shape == (len(ids), 4096)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 0.02 * expected.std()


def test_context_is_capped_by_the_training_unless_asked(model: iqrun.Model) -> None:
    """The demo was trained with 1024; a number that is given is taken."""
    assert (model.n_ctx, model.n_ctx_train) == (1024, 1024)
    with iqrun.load(DEMO, n_ctx=2048, n_threads=1) as longer:
        assert longer.n_ctx == 2048


def test_threads_default_to_physical_cores() -> None:
    """n_threads=None takes what the machine says."""
    with iqrun.load(DEMO) as opened:
        assert opened.n_threads == machine.physical_cores()


def test_greedy_completion_is_a_sensible_story(model: iqrun.Model) -> None:
    """The demo model continues a fairy tale with words; the same each time."""
    text = model.complete(PROMPT, max_tokens=24, temperature=0)
    assert text.startswith(",")
    assert sum(word in text.split() for word in ("there", "was", "a", "little", "named")) >= 3
    assert model.complete(PROMPT, max_tokens=24, temperature=0) == text


def test_stream_gives_the_completion_in_pieces(model: iqrun.Model) -> None:
    """The pieces joined are the completion, and none is empty."""
    pieces = list(model.stream(PROMPT, max_tokens=24, temperature=0))
    assert len(pieces) > 10
    assert all(pieces)
    assert "".join(pieces) == model.complete(PROMPT, max_tokens=24, temperature=0)


def test_seed_repeats_a_text(model: iqrun.Model) -> None:
    """Same seed, same text; other seed, other text."""
    texts = [model.complete(PROMPT, max_tokens=32, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_string_and_limits(model: iqrun.Model) -> None:
    """The text ends before the stop string; max_tokens limits it; None fills the context."""
    assert "." not in model.complete(PROMPT, max_tokens=200, stop=".", temperature=0)
    *_, last = model.generate(PROMPT, max_tokens=3)
    assert (last.finish_reason, last.timings.n_generated) == ("length", 3)
    with iqrun.load(DEMO, n_ctx=16, n_threads=1) as small:
        *_, last = small.generate(PROMPT, max_tokens=None)
        assert last.finish_reason in ("context", "end")


def test_generate_takes_token_ids(model: iqrun.Model) -> None:
    """A list of ids instead of a text gives the same."""
    ids = model.tokenizer.encode(PROMPT)
    options = iqrun.SamplingOptions(temperature=0)
    by_ids = "".join(step.text for step in model.generate(ids, sampling=options, max_tokens=8))
    assert by_ids == model.complete(PROMPT, max_tokens=8, temperature=0)


def test_streams_can_be_interleaved(model: iqrun.Model) -> None:
    """Two open streams do not disturb each other."""
    alone = [model.complete(prompt, max_tokens=16, temperature=0) for prompt in (PROMPT, "The dog")]
    streams = [
        model.generate(prompt, max_tokens=16, sampling=iqrun.SamplingOptions(temperature=0))
        for prompt in (PROMPT, "The dog")
    ]
    mixed = ["", ""]
    for steps in zip(*streams, strict=True):
        for i, step in enumerate(steps):
            mixed[i] += step.text
    assert mixed == alone


def test_threads_may_share_a_model(model: iqrun.Model) -> None:
    """Four threads at once get what one gets alone."""
    prompts = [PROMPT, "The dog", "A big red", "Lily and Tom"]
    alone = [model.complete(prompt, max_tokens=12, temperature=0) for prompt in prompts]
    together: dict[str, str] = {}

    def work(prompt: str) -> None:
        together[prompt] = model.complete(prompt, max_tokens=12, temperature=0)

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together.get(prompt) for prompt in prompts] == alone


def test_abandoned_stream_gives_its_session_back(model: iqrun.Model) -> None:
    """A stream that is dropped half-way leaves nothing behind: the next one starts afresh."""
    expected = model.complete("The dog", max_tokens=8, temperature=0)
    stream = model.stream(PROMPT, max_tokens=100)
    next(stream)
    del stream
    gc.collect()
    assert len(model._idle) == 1
    assert model.complete("The dog", max_tokens=8, temperature=0) == expected


def test_wrong_options_are_told_before_anything_runs(model: iqrun.Model) -> None:
    """Already when the stream is asked for, not when it is first read."""
    with pytest.raises(ValueError, match="top_p"):
        model.stream(PROMPT, top_p=2.0)
    with pytest.raises(ValueError, match="no tokens"):
        model.generate([])


def test_prompt_beyond_the_context(model: iqrun.Model) -> None:
    """A clear error; the model can be used afterwards."""
    with pytest.raises(iqrun.ContextFullError, match="context of 1024"):
        model.complete("word " * 3000)
    assert model.complete(PROMPT, max_tokens=2, temperature=0)


def test_closed_model_says_so() -> None:
    """Everything raises ClosedError after close, open streams too; closing again is fine."""
    model = iqrun.load(DEMO, n_threads=1)
    stream, session = model.stream(PROMPT), model.session()
    next(stream)
    model.close()
    model.close()
    uses = [
        lambda: next(stream),
        lambda: session.evaluate([1]),
        lambda: model.complete(PROMPT),
        lambda: model.stream(PROMPT),
        lambda: model.logits([1]),
        lambda: model.chat(),
        lambda: model.session(),
        lambda: model.metadata,
        lambda: model.program,
        lambda: model.__enter__(),
    ]
    for use in uses:
        with pytest.raises(iqrun.ClosedError):
            use()
    assert "closed" in repr(model)


def test_close_while_a_session_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that another thread was making is closed too: nothing keeps the file open."""
    model = iqrun.load(DEMO, n_ctx=64)
    held = model.session()
    made: list[iqrun.Session] = []

    def late(*words: Any, **options: Any) -> iqrun.Session:
        made.append(iqrun.Session(*words, **options))
        model.close()
        return made[-1]

    monkeypatch.setattr("iqrun.model.Session", late)
    with pytest.raises(iqrun.ClosedError):
        model.session()
    for session in (held, *made):
        with pytest.raises(iqrun.ClosedError):
            session.evaluate([1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_close_unmaps_the_file_whoever_holds_on_to_the_rest(tmp_path: Path) -> None:
    """Closed sessions, streams, chats and the tokenizer do not keep the map, and with it the disk space."""
    path = tiny_llama(tmp_path / "m.gguf")
    model = iqrun.load(path, n_ctx=64)
    held: list[Any] = [model.session(), model.stream("the cat", max_tokens=9), model.tokenizer, model]
    next(held[1])
    assert str(path) in Path("/proc/self/maps").read_text()
    model.close()
    assert str(path) not in Path("/proc/self/maps").read_text()
    with pytest.raises(iqrun.ClosedError):
        held[0].trace([1], [0], print)


def test_model_without_close_is_collected() -> None:
    """Dropping the last reference frees the context before the program and the map; nothing crashes."""
    for _ in range(3):
        model = iqrun.load(DEMO, n_threads=2)
        session = model.session()
        session.evaluate([1, 2, 3])
        del model
        gc.collect()
        session.evaluate([4])  # a session keeps what it needs
        del session
        gc.collect()


def test_files_that_are_no_models(tmp_path: Path) -> None:
    """A missing, an empty and a truncated file: GGUFError with the path."""
    truncated = tmp_path / "cut.gguf"
    truncated.write_bytes(DEMO.read_bytes()[:1_000_000])
    (tmp_path / "empty.gguf").touch()
    for name in ("cut.gguf", "empty.gguf", "missing.gguf"):
        with pytest.raises(iqrun.GGUFError, match=name):
            iqrun.load(tmp_path / name)


@pytest.mark.parametrize(("name", "value"), [("n_ctx", -1), ("n_threads", 0), ("kv_type", "q4_0")])
def test_wrong_load_arguments_are_named(name: str, value: object) -> None:
    """ValueError with the argument's name."""
    with pytest.raises(ValueError, match=name):
        iqrun.load(DEMO, **{name: value})  # type: ignore[arg-type]


def test_chat_answers(model: iqrun.Model) -> None:
    """A question through the packaged template gets an answer that ends by itself or by its limit."""
    chat = model.chat()
    answer = "".join(chat.send("Write a short story about rain and bird.", max_tokens=60, temperature=0))
    assert "bird" in answer
    assert "<|" not in answer
    chat.close()
