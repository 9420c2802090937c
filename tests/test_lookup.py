"""Prompt lookup: the same text in fewer steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iqrun
from iqrun.generation.lookup import MAX_DRAFT, Lookup, NgramIndex
from iqrun.sampling import SamplingOptions
from tests.emulated import n_random
from tests.quantized_models import quantized_llama

PROMPT = "the cat and the dog ran. the cat and the bird sat. the cat and"
RANDOM = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[iqrun.Model]:
    path = quantized_llama(tmp_path_factory.mktemp("model") / "quantized.gguf")
    with iqrun.load(path, n_ctx=256, n_threads=2) as opened:
        yield opened


def last_of(steps: Iterator[Any]) -> Any:
    *_, last = steps
    return last


@pytest.mark.parametrize("options", [{"temperature": 0.0}, RANDOM, RANDOM | {"repeat_penalty": 1.2, "mirostat": 2}])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_text_is_the_same(model: iqrun.Model, options: dict[str, Any], seed: int) -> None:
    """Token for token and log-probability for log-probability, greedy or random, up to the end of the context."""
    sampling = SamplingOptions(seed=seed, ignore_eos=True, **options)
    plain = list(model.generate(PROMPT, sampling=sampling, max_tokens=None, logprobs=0))
    found = list(model.generate(PROMPT, sampling=sampling, max_tokens=None, logprobs=0, lookup=True))
    assert [(s.text, s.token_id, s.logprob) for s in plain] == [(s.text, s.token_id, s.logprob) for s in found]
    assert plain[-1].finish_reason == found[-1].finish_reason == "context"


def test_repetition_saves_steps(model: iqrun.Model) -> None:
    """A text that repeats itself is drawn from drafts, and the timings tell how many."""
    bias = dict.fromkeys(model.tokenizer.encode("the", add_special=False), 100.0)
    sampling = SamplingOptions(temperature=0, logit_bias=bias)
    timings = last_of(model.generate(PROMPT, sampling=sampling, max_tokens=100, lookup=True)).timings
    assert timings.n_generated == 100
    assert timings.n_accepted >= 85
    assert timings.n_drafted >= timings.n_accepted
    assert last_of(model.generate(PROMPT, sampling=sampling, max_tokens=100)).timings.n_drafted == 0


class RecordingSession:
    """A session whose next token follows a script; counts the steps."""

    def __init__(self, script: list[int], n_ctx: int = 1000) -> None:
        self.script, self.n_ctx, self.ids, self.n_steps = script, n_ctx, [], 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(self.ids)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.ids)
        del self.ids[length:]

    def evaluate(self, ids: Any, want: str = "last", way: str | None = None) -> np.ndarray:
        assert len(self.ids) + len(ids) <= self.n_ctx
        self.n_steps += 1
        first = len(self.ids) + 1
        self.ids += [int(token) for token in ids]
        rows = np.zeros((len(ids), 10), np.float32)
        for row, place in zip(rows, range(first, first + len(ids)), strict=True):
            row[self.script[place]] = 1.0
        return rows if want == "all" else rows[-1]


@settings(max_examples=n_random(200), deadline=None)
@given(
    script=st.lists(st.integers(0, 3), min_size=30, max_size=80), n_prompt=st.integers(1, 10), room=st.integers(0, 30)
)
def test_lookup_is_a_session_like_any(script: list[int], n_prompt: int, room: int) -> None:
    """Whatever is guessed: logits, length and recent tokens are those without lookup; closing leaves the truth."""
    n_ctx = min(n_prompt + room, len(script) - 1)
    session = RecordingSession(script, n_ctx)
    lookup = Lookup(session)
    logits = lookup.evaluate(script[:n_prompt])
    for n in range(n_prompt, n_ctx):
        assert logits.argmax() == script[n]
        assert len(lookup) == n
        assert lookup.recent(5) == script[max(n - 5, 0) : n]
        logits = lookup.evaluate((script[n],))
    lookup.close()
    assert session.ids == script[:n_ctx]


def test_a_token_that_was_not_guessed_takes_the_guesses_back() -> None:
    """What the sampler chose counts, not what the model would have."""
    session = RecordingSession([1, 2, 3, 4] * 20)
    lookup = Lookup(session)
    lookup.evaluate([1, 2, 3, 4, 1, 2, 3])
    lookup.evaluate((4,))
    assert len(session) > len(lookup)
    lookup.evaluate((9,))
    lookup.close()
    assert session.ids == [1, 2, 3, 4, 1, 2, 3, 4, 9]


def test_drafts_grow_while_they_come_true() -> None:
    """Each twice as long as the last that came true, up to the limit: few steps for a long repetition."""
    script = [1, 2, 3, 4, 5, 6, 7, 8] * 30
    session = RecordingSession(script)
    lookup = Lookup(session)
    lookup.evaluate(script[:24])
    before = session.n_steps
    for token in script[24:200]:
        lookup.evaluate((token,))
    assert session.n_steps - before < 176 / MAX_DRAFT + 10


def test_after_a_wrong_draft_the_next_guesses_are_not_computed() -> None:
    """A text whose repetitions always go on otherwise costs one draft, however long; then a real one is found again."""
    surprises = [token for n in range(3, 10) for token in (1, 2, n)]
    script = surprises + [5, 6, 7, 8] * 15
    session = RecordingSession(script)
    lookup = Lookup(session)
    lookup.evaluate(script[:3])
    for token in script[3 : len(surprises)]:
        lookup.evaluate((token,))
    assert 0 < lookup.n_drafted <= 2 and lookup.n_accepted == 0
    for token in script[len(surprises) : -20]:  # the session must see what comes after its drafts
        lookup.evaluate((token,))
    assert lookup.n_accepted > 25


def test_index_prefers_the_longest_and_the_latest() -> None:
    """Runs of three before runs of two; of equal runs the one that came last; nothing for what never was."""
    index = NgramIndex()
    index.extend([1, 2, 3, 7, 2, 3, 8, 1, 2, 3, 9, 5, 2])
    assert index.guess(3, 2) == [9, 5]  # (5, 2, 3) never was; (2, 3) was last followed by 9
    index.extend([3, 4, 1, 2])
    assert index.guess(3, 1) == [9]  # (1, 2, 3), although (2, 3) was followed by 4 since
    assert index.guess(6, 3) == []


def test_lookup_can_be_closed_early(model: iqrun.Model) -> None:
    """A stream that is left in the middle leaves no guesses behind."""
    with model.session() as session:
        from iqrun.generation.generate import generate

        steps = generate(session, model.tokenizer, model.tokenizer.encode(PROMPT), lookup=True)
        drawn = [next(steps).token_id for _ in range(6)]
        steps.close()  # type: ignore[attr-defined]
        prompt = model.tokenizer.encode(PROMPT)
        assert list(session.tokens)[len(prompt) :] == drawn[: len(session) - len(prompt)]
        assert len(session) >= len(prompt) + 5
