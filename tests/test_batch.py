"""Several texts at once: each is what it would be alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iqrun
from iqrun.errors import CancelledError, ContextFullError, ResourceError
from iqrun.generation.batch import common_prefix, positions_needed
from iqrun.generation.records import Step
from iqrun.sampling import SamplingOptions
from tests.emulated import n_random
from tests.quantized_models import quantized_llama

PROMPTS = ["the cat and the dog", "the cat and the", "the cat sat", "a", "the cat and the dog ran to the tree " * 6]
LOW, HIGH = {"temperature": 0}, {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[iqrun.Model]:
    path = quantized_llama(tmp_path_factory.mktemp("model") / "quantized.gguf")
    with iqrun.load(path, n_ctx=256, n_threads=2) as opened:
        yield opened


@pytest.mark.parametrize("options", [LOW, HIGH], ids=["greedy", "random"])
@pytest.mark.parametrize("n_parallel", [1, 2, 5, 8])
def test_texts_are_those_of_one_by_one(model: iqrun.Model, options: dict, n_parallel: int) -> None:
    """Token for token, whether all run at once or wait for their turn."""
    alone = [model.complete(prompt, max_tokens=30, seed=7, **options) for prompt in PROMPTS]
    assert model.complete(PROMPTS, max_tokens=30, seed=7, n_parallel=n_parallel, **options) == alone


def test_steps_are_the_same_bits(model: iqrun.Model) -> None:
    """Also the log-probabilities, to the last bit: the arithmetic of a text does not depend on its company."""
    sampling = SamplingOptions(seed=3, **HIGH)
    together: list[list[Step]] = [[] for _ in PROMPTS]
    for index, step in model.generate_many(PROMPTS, sampling=sampling, max_tokens=20, logprobs=2):
        together[index].append(step)
    for prompt, steps in zip(PROMPTS, together, strict=True):
        alone = list(model.generate(prompt, sampling=sampling, max_tokens=20, logprobs=2))
        assert [(s.token_id, s.logprob, s.top_logprobs) for s in steps] == [
            (s.token_id, s.logprob, s.top_logprobs) for s in alone
        ]
        assert steps[-1].timings is not None
        assert steps[-1].timings.n_generated == 20


def test_each_text_can_have_its_own_seed(model: iqrun.Model) -> None:
    """Several answers to one prompt."""
    texts = model.complete(["the cat"] * 3, max_tokens=20, seed=[1, 2, 1], **HIGH)
    assert texts[0] == texts[2] != texts[1]
    assert texts[0] == model.complete("the cat", max_tokens=20, seed=1, **HIGH)
    with pytest.raises(ValueError, match="3 prompts, but 2"):
        model.complete(["the cat"] * 3, seed=[1, 2])


def test_texts_end_on_their_own(model: iqrun.Model) -> None:
    """A stop string ends one text; the others go on to their limit."""
    alone = [list(model.generate(prompt, sampling=SamplingOptions(temperature=0), max_tokens=25)) for prompt in PROMPTS]
    word = "".join(step.text for step in alone[0])[8:11]
    reasons = {}
    for index, step in model.generate_many(PROMPTS, sampling=SamplingOptions(temperature=0), max_tokens=25, stop=word):
        if step.finish_reason:
            reasons[index] = step.finish_reason
    expected = [model.generate(p, sampling=SamplingOptions(temperature=0), max_tokens=25, stop=word) for p in PROMPTS]
    assert [reasons[i] for i in range(5)] == [list(steps)[-1].finish_reason for steps in expected]
    assert reasons[0] == "stop"


def test_nothing_to_draw_and_nothing_to_do(model: iqrun.Model) -> None:
    """max_tokens 0 evaluates the prompts; no prompts are no texts."""
    assert model.complete(PROMPTS, max_tokens=0) == [""] * 5
    assert model.complete([]) == []


def test_texts_fill_the_context_of_one(model: iqrun.Model) -> None:
    """Without max_tokens each text ends where it would alone: at n_ctx tokens."""
    sampling = SamplingOptions(temperature=0, ignore_eos=True)
    last = dict(model.generate_many(PROMPTS[:2], sampling=sampling, max_tokens=None))
    for index, step in last.items():
        *_, alone = model.generate(PROMPTS[index], sampling=sampling, max_tokens=None)
        assert (step.finish_reason, alone.finish_reason) == ("context", "context")
        assert step.timings is not None and alone.timings is not None
        assert step.timings.n_generated == alone.timings.n_generated


def test_prompt_beyond_the_context_is_named(model: iqrun.Model) -> None:
    """Its place is told before anything is computed."""
    with pytest.raises(ContextFullError, match=r"prompt 1 has \d+ tokens, but the context holds 256"):
        model.complete(["the cat", "the dog " * 300])
    with pytest.raises(ValueError, match="n_parallel is 0"):
        model.complete(["the cat"], n_parallel=0)


def test_short_memory_means_fewer_at_once(model: iqrun.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts wait when there is no memory for all; only if there is none for one it is an error."""
    tried = []
    make = model._many_context

    def short(n_ctx: int, n_seq: int) -> object:
        tried.append(n_seq - 1)
        if n_seq - 1 > 2:
            raise ResourceError("no memory")
        return make(n_ctx, n_seq)

    monkeypatch.setattr(model, "_many_context", short)
    alone = [model.complete(prompt, max_tokens=9, **LOW) for prompt in PROMPTS]
    assert model.complete(PROMPTS, max_tokens=9, **LOW) == alone
    assert tried == [5, 3, 2]


def test_closing_the_iterator_frees_the_memory(model: iqrun.Model) -> None:
    """And the model goes on; a cancelled token ends all texts within one step."""
    steps = model.generate_many(PROMPTS, max_tokens=50)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    token = iqrun.CancelToken()
    with pytest.raises(CancelledError):
        for n, _ in enumerate(model.generate_many(PROMPTS, max_tokens=50, cancel=token)):
            assert n < 1
            token.cancel()
    assert model.complete("the cat", max_tokens=3, **LOW)


def test_common_prefix_leaves_each_prompt_a_token() -> None:
    """The last token of each must be evaluated for its logits."""
    assert common_prefix([[1, 2, 3], [1, 2, 4]]) == [1, 2]
    assert common_prefix([[1, 2, 3], [1, 2]]) == [1]
    assert common_prefix([[1], [1]]) == []
    assert common_prefix([[1, 2], [3]]) == []
    assert common_prefix([[1, 2, 3]]) == []


@settings(max_examples=n_random(40), deadline=None)
@given(data=st.data())
def test_room_is_always_enough(model: iqrun.Model, data: st.DataObject) -> None:
    """Whatever lengths and prefixes: no text runs out of KV blocks, and none waits forever."""
    ids = st.integers(3, 300)
    shared = data.draw(st.lists(ids, max_size=140))
    prompts = data.draw(st.lists(st.lists(ids, min_size=1, max_size=70), min_size=1, max_size=4))
    limit = data.draw(st.sampled_from([0, 1, 3, 70]))
    words = [[1, *shared, *rest] for rest in prompts]
    n_slots = data.draw(st.integers(1, 4))
    sampling = SamplingOptions(temperature=0, ignore_eos=True)
    steps = list(model.generate_many(words, sampling=sampling, max_tokens=limit, n_parallel=n_slots))
    ended = {index: step.timings.n_generated for index, step in steps if step.timings}
    assert ended == {i: min(limit, 256 - len(w) + 1) for i, w in enumerate(words)}
    assert positions_needed(words, n_slots, limit, 256) % 64 == 0
