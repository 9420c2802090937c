"""`iqrun.compat.Llama` behaves as llama-cpp-python's `Llama`; benchmarks/compat.py compares the two side by side."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.compat import (
    Llama,
    LlamaGrammar,
    LlamaPromptLookupDecoding,
    LlamaRAMCache,
    LlamaState,
    LogitsProcessorList,
    MinTokensLogitsProcessor,
    OpenAI,
    StoppingCriteriaList,
)

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PROMPT = "Once upon a time, there was a"
GREEDY: dict[str, Any] = {"max_tokens": 16, "temperature": 0.0}


@pytest.fixture(scope="module")
def llm() -> Iterator[Llama]:
    with Llama(DEMO, n_ctx=256, n_threads=2, verbose=False) as opened:
        yield opened


@pytest.fixture
def fresh() -> Iterator[Llama]:
    with Llama(DEMO, n_ctx=128, n_threads=2, logits_all=True) as opened:
        yield opened


def text(reply: Any) -> str:
    return reply["choices"][0]["text"]


# ---- completion ----


def test_completion_is_that_of_the_model(llm: Llama) -> None:
    """The dictionary has the API's keys, the text is what `Model.complete` gives, the usage counts tokens."""
    reply = llm.create_completion(PROMPT, **GREEDY)
    with iqrun.load(DEMO, n_threads=2) as model:
        assert text(reply) == model.complete(PROMPT, max_tokens=16, temperature=0)
        n_prompt = len(model.tokenizer.encode(PROMPT))
    assert list(reply) == ["id", "object", "created", "model", "choices", "usage"]
    assert reply["id"].startswith("cmpl-")
    assert (reply["object"], reply["model"]) == ("text_completion", str(DEMO))
    assert list(reply["choices"][0]) == ["text", "index", "logprobs", "finish_reason"]
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"] == {"prompt_tokens": n_prompt, "completion_tokens": 16, "total_tokens": n_prompt + 16}


def test_defaults_are_sixteen_tokens(llm: Llama) -> None:
    """Called like a function, with llama-cpp-python's defaults."""
    assert llm(PROMPT, seed=1)["usage"]["completion_tokens"] == 16


def test_chunks_add_up_to_the_text(llm: Llama) -> None:
    """Each chunk has a piece; the last one is empty and has the reason; all have one id."""
    chunks = list(llm(PROMPT, stream=True, **GREEDY))
    assert "".join(map(text, chunks)) == text(llm(PROMPT, **GREEDY))
    assert {chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]} == {None}
    assert chunks[-1]["choices"][0] == {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "usage" not in chunks[0]


def test_prompt_may_be_token_ids(llm: Llama) -> None:
    """Ids are taken as they are; those of `tokenize` give the same answer as the text."""
    assert text(llm(llm.tokenize(PROMPT.encode()), **GREEDY)) == text(llm(PROMPT, **GREEDY))


def test_control_tokens_are_read_in_prompts_and_not_shown(llm: Llama) -> None:
    """A prompt written by hand for a chat model works, and marks in the answer are left out."""
    marks = llm("<|user|>\nTell me a story.<|end|>\n<|assistant|>\n", **GREEDY)
    assert marks["usage"]["prompt_tokens"] == len(
        llm.tokenize(b"<|user|>\nTell me a story.<|end|>\n<|assistant|>\n", special=True)
    )
    user = llm.tokenize(b"<|user|>", special=True)[-1]
    assert "<|" not in text(llm(PROMPT, logit_bias={user: 1000.0}, max_tokens=3, temperature=0))


def test_half_a_character_at_the_end_is_left_out(llm: Llama) -> None:
    """An answer that is cut inside an emoji has whole characters only, in one piece and in chunks."""
    ids = llm.tokenize("x\U0001f600".encode(), add_bos=False)
    n_prompt = len(llm.tokenize(PROMPT.encode()))

    def force(seen: Any, scores: Any) -> Any:
        scores[ids[len(seen) - n_prompt]] = 1e9
        return scores

    cut: dict[str, Any] = {"logits_processor": [force], "temperature": 0.0, "max_tokens": len(ids) - 1}
    assert text(llm(PROMPT, **cut)) == " x"
    assert "".join(map(text, llm(PROMPT, stream=True, **cut))) == " x"
    assert text(llm(PROMPT, **{**cut, "max_tokens": len(ids)})) == " x\U0001f600"


def test_empty_prompt_begins_a_text(llm: Llama) -> None:
    """BOS alone is evaluated, and the answer has no space in front."""
    reply = llm("", **GREEDY)
    assert reply["usage"]["prompt_tokens"] == 1
    assert text(reply)[:1].strip()


@pytest.mark.parametrize("stop", ["l named", ["zzz", "l named"]])
def test_stop_text_ends_the_answer(llm: Llama, stop: Any) -> None:
    """Also where it spans tokens; it is not part of the answer, and the reason is ``stop``."""
    whole = text(llm(PROMPT, **GREEDY))
    reply = llm(PROMPT, stop=stop, **GREEDY)
    assert text(reply) == whole[: whole.index("l named")]
    assert reply["choices"][0]["finish_reason"] == "stop"
    chunks = list(llm(PROMPT, stop=stop, stream=True, **GREEDY))
    assert "".join(map(text, chunks)) == text(reply)


@pytest.mark.parametrize("max_tokens", [None, 0, -1, 10_000])
def test_unlimited_answer_fills_the_context(llm: Llama, max_tokens: int | None) -> None:
    """None, 0, below 0 or too much: drawing goes on until the context is full, and says ``length``."""
    end = {token: float("-inf") for token in llm._tokenizer.end_ids}
    reply = llm(PROMPT, max_tokens=max_tokens, temperature=0, logit_bias=end)
    assert reply["usage"]["total_tokens"] == llm.n_ctx()
    assert reply["choices"][0]["finish_reason"] == "length"


def test_echo_puts_the_prompt_in_front(llm: Llama) -> None:
    """The prompt as it was given, then the answer."""
    assert text(llm(PROMPT, echo=True, **GREEDY)) == PROMPT + text(llm(PROMPT, **GREEDY))


def test_logprobs_are_the_models(llm: Llama) -> None:
    """Log-softmax of the logits, the chosen token among the best, offsets into prompt and answer."""
    shown = llm(PROMPT, logprobs=2, **GREEDY)["choices"][0]["logprobs"]
    assert list(shown) == ["tokens", "text_offset", "token_logprobs", "top_logprobs"]
    with iqrun.load(DEMO, n_threads=2) as model:
        ids = model.tokenizer.encode(PROMPT)
        logits = model.logits(ids)[-1].astype(np.float64)
    expected = logits.max() - np.logaddexp.reduce(logits)
    assert shown["token_logprobs"][0] == pytest.approx(expected, abs=1e-3)
    assert all(token in best for token, best in zip(shown["tokens"], shown["top_logprobs"], strict=True))
    assert {len(best) for best in shown["top_logprobs"]} == {2}
    whole = PROMPT + text(llm(PROMPT, **GREEDY))
    assert all(whole[at:].startswith(token) for at, token in zip(shown["text_offset"], shown["tokens"], strict=True))


def test_echo_with_logprobs_scores_the_prompt(llm: Llama) -> None:
    """The prompt's tokens come first; nothing predicts the first of them."""
    shown = llm(PROMPT, logprobs=1, echo=True, max_tokens=2, temperature=0)["choices"][0]["logprobs"]
    n_prompt = len(llm.tokenize(PROMPT.encode(), add_bos=False))
    assert len(shown["tokens"]) == n_prompt + 2
    assert shown["token_logprobs"][0] is None
    with iqrun.load(DEMO, n_threads=2) as model:
        ids = model.tokenizer.encode(PROMPT)
        logits = model.logits(ids).astype(np.float64)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    expected = [log_p[place - 1, ids[place]] for place in range(2, len(ids))]
    assert shown["token_logprobs"][1:n_prompt] == pytest.approx(expected, abs=0.02)


def test_streamed_logprobs_cover_every_token(llm: Llama) -> None:
    """Chunk by chunk the same tokens and numbers as in one piece."""
    whole = llm(PROMPT, logprobs=1, **GREEDY)["choices"][0]["logprobs"]
    parts = [chunk["choices"][0]["logprobs"] for chunk in llm(PROMPT, logprobs=1, stream=True, **GREEDY)]
    joined = [token for part in parts if part for token in part["tokens"]]
    assert joined == whole["tokens"]


# ---- callbacks ----


def test_logits_processor_changes_the_answer(llm: Llama) -> None:
    """It sees the tokens as an int array and may change the scores in place."""
    seen: list[Any] = []
    comma = llm.tokenize(b",", add_bos=False)[-1]

    def no_comma(ids: Any, scores: Any) -> Any:
        seen.append((ids.dtype, len(ids)))
        scores[comma] = -np.inf
        return scores

    reply = llm("Once upon a time", logits_processor=LogitsProcessorList([no_comma]), **GREEDY)
    n_prompt = reply["usage"]["prompt_tokens"]
    assert "," not in text(reply)
    assert [n for _, n in seen] == list(range(n_prompt, n_prompt + 16))
    assert seen[0][0] == np.dtype(np.intc)
    assert text(llm("Once upon a time", **GREEDY)).startswith(",")


def test_stopping_criteria_end_before_the_next_token(llm: Llama) -> None:
    """Asked with the tokens so far; the token that would come next is not part of the answer."""
    whole = llm(PROMPT, **GREEDY)
    n_prompt = whole["usage"]["prompt_tokens"]
    criteria = StoppingCriteriaList([lambda ids, logits: len(ids) >= n_prompt + 5])
    reply = llm(PROMPT, stopping_criteria=criteria, **GREEDY)
    assert reply["usage"]["completion_tokens"] == 5
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert text(whole).startswith(text(reply))


def test_minimum_number_of_tokens(llm: Llama) -> None:
    """The end token is forbidden for so long."""
    end = llm._tokenizer.end_ids
    bias = dict.fromkeys(end, 100.0)
    assert llm(PROMPT, logit_bias=bias, **GREEDY)["usage"]["completion_tokens"] == 0
    processors = LogitsProcessorList([MinTokensLogitsProcessor(4, token) for token in end])
    assert llm(PROMPT, logit_bias=bias, logits_processor=processors, **GREEDY)["usage"]["completion_tokens"] == 4


# ---- seeds and state ----


def test_answers_follow_from_the_seed(llm: Llama) -> None:
    """The same seed gives the same answer; without one, each answer has another seed that follows from the last."""
    drawn: dict[str, Any] = {"max_tokens": 12, "temperature": 1.5}
    assert text(llm(PROMPT, seed=5, **drawn)) == text(llm(PROMPT, seed=5, **drawn))
    llm.set_seed(9)
    first = [text(llm(PROMPT, **drawn)) for _ in range(3)]
    llm.set_seed(9)
    assert [text(llm(PROMPT, **drawn)) for _ in range(3)] == first
    assert len(set(first)) == 3


def test_state_brings_back_sequence_and_seed(fresh: Llama) -> None:
    """After `load_state` the same answers come again, in this object and in another one."""
    fresh.set_seed(3)
    fresh(PROMPT, max_tokens=4)
    state = fresh.save_state()
    first = text(fresh(PROMPT, temperature=1.5))
    assert text(fresh(PROMPT, temperature=1.5)) != first
    fresh.load_state(state)
    assert fresh.n_tokens == state.n_tokens == len(state.input_ids)
    assert text(fresh(PROMPT, temperature=1.5)) == first
    with Llama(DEMO, n_ctx=128, n_threads=2) as other:
        other.load_state(pickle.loads(pickle.dumps(state)))
        assert other.input_ids.tolist() == state.input_ids.tolist()
        assert text(other(PROMPT, temperature=1.5)) == first


def test_prompt_that_is_known_is_not_read_again(llm: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time only the last token of the prompt is evaluated."""
    sizes: list[int] = []
    evaluate = iqrun.Session.evaluate
    monkeypatch.setattr(
        iqrun.Session, "evaluate", lambda self, ids, *a, **k: (sizes.append(len(ids)), evaluate(self, ids, *a, **k))[1]
    )
    llm.reset()
    first = text(llm(PROMPT, **GREEDY))
    n_prompt, sizes[:] = sizes[0], []
    assert n_prompt > 5
    assert text(llm(PROMPT, **GREEDY)) == first
    assert sizes[0] == 1


def test_cache_spares_prompts_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that was read before another one is not read again; the answer and the seed are unchanged."""
    sizes: list[int] = []
    evaluate = iqrun.Session.evaluate
    monkeypatch.setattr(
        iqrun.Session, "evaluate", lambda self, ids, *a, **k: (sizes.append(len(ids)), evaluate(self, ids, *a, **k))[1]
    )
    cache = LlamaRAMCache()
    with Llama(DEMO, n_ctx=128, n_threads=2) as writer, Llama(DEMO, n_ctx=128, n_threads=2, seed=5) as reader:
        writer.set_cache(cache)
        first = text(writer(PROMPT, **GREEDY))
        writer("Another story begins here", max_tokens=2)
        assert cache.cache_size > 0
        reader.set_cache(cache)
        sizes.clear()
        assert text(reader(PROMPT, **GREEDY)) == first
        assert sizes[0] == 1


def test_cache_keeps_to_its_size() -> None:
    """The oldest states go; one that is larger than all goes, too."""
    states = [LlamaState(np.array([n, n + 1], np.intc), 2, b"x" * 10, 10, 0) for n in range(3)]
    cache = LlamaRAMCache(capacity_bytes=20)
    for state in states:
        cache[state.input_ids.tolist()] = state
    assert cache.cache_size == 20
    assert [1, 9] in cache
    assert cache[[2, 3, 4]] is states[2]
    assert [0, 1] not in cache
    with pytest.raises(KeyError):
        _ = cache[[7]]
    small = LlamaRAMCache(capacity_bytes=5)
    small[[1]] = states[0]
    assert small.cache_size == 0


# ---- tokens ----


def test_tokens_are_bytes_there_and_back(llm: Llama) -> None:
    """`tokenize` takes bytes, `detokenize` gives bytes, with and without BOS and marks."""
    ids = llm.tokenize(b"Hello <|user|>")
    assert ids[0] == llm.token_bos()
    assert llm.tokenize(b"Hello <|user|>", add_bos=False) == ids[1:]
    assert llm.detokenize(ids) == b"Hello <|user|>"
    special = llm.tokenize(b"Hello<|user|>", special=True)
    assert llm.detokenize(special) == b"Hello"
    assert llm.detokenize(special, special=True).endswith(b"<|user|>")
    assert llm.tokenizer().decode(llm.tokenizer().encode("Ünï 漢")) == "Ünï 漢"
    assert llm.detokenize([llm.token_nl()]) == b"\n"


def test_generator_gives_tokens_and_takes_some(fresh: Llama) -> None:
    """It never ends by itself; what is sent in is evaluated after the token that was given."""
    ids = fresh.tokenize(PROMPT.encode())
    tokens = list(islice(fresh.generate(ids, temp=0.0), 3))
    assert fresh.n_tokens == len(ids) + 2
    assert fresh.input_ids.tolist() == ids + tokens[:2]
    assert fresh.detokenize(tokens).decode() == text(fresh(PROMPT, max_tokens=3, temperature=0))
    generator = fresh.generate(ids, temp=0.0)
    first = next(generator)
    generator.send([100, 101])
    assert fresh.input_ids.tolist() == [*ids, first, 100, 101]


def test_generator_ends_when_a_criterion_is_met(fresh: Llama) -> None:
    """The token of that moment is not given out."""
    ids = fresh.tokenize(PROMPT.encode())
    limit = len(ids) + 2
    assert len(list(fresh.generate(ids, temp=0.0, stopping_criteria=lambda seen, _: len(seen) >= limit))) == 2


def test_eval_keeps_logits(fresh: Llama) -> None:
    """With ``logits_all`` those of every token; `sample` draws after any of them."""
    ids = fresh.tokenize(PROMPT.encode())
    fresh.reset()
    fresh.eval(ids)
    assert fresh.scores.shape == (len(ids), fresh.n_vocab())
    assert len(fresh.eval_logits) == len(fresh.eval_tokens) == len(ids)
    assert fresh.sample(temp=0.0) == int(fresh.scores[-1].argmax())
    assert fresh.sample(temp=0.0, idx=2) == int(fresh.scores[2].argmax())
    with Llama(DEMO, n_ctx=128, n_threads=2) as last_only:
        last_only.eval(ids)
        assert len(last_only.eval_logits) == 1
        assert last_only.sample(temp=0.0) == fresh.sample(temp=0.0)
        with pytest.raises(ValueError, match="logits_all=True"):
            last_only.sample(idx=0)


def test_facts_of_the_model(llm: Llama) -> None:
    """Sizes, tokens, and scalar metadata as texts."""
    assert (llm.n_ctx(), llm.n_embd(), llm.n_vocab()) == (256, 512, 4096)
    assert llm.metadata["general.architecture"] == "llama"
    assert llm.metadata["llama.block_count"] == "5"
    assert "tokenizer.ggml.tokens" not in llm.metadata
    with Llama(DEMO, n_ctx=0) as trained:
        assert trained.n_ctx() == 1024


# ---- life and errors ----


def test_vocabulary_alone(tmp_path: Path) -> None:
    """``vocab_only`` tokenizes; computing says why it cannot."""
    with Llama(DEMO, vocab_only=True) as llm:
        assert llm.detokenize(llm.tokenize(b"Hello")) == b"Hello"
        with pytest.raises(RuntimeError, match="vocab_only"):
            llm(PROMPT)


def test_pickle_opens_the_file_anew(fresh: Llama) -> None:
    """As llama-cpp-python: the path and the arguments travel, not the weights."""
    with pickle.loads(pickle.dumps(fresh)) as copy:
        assert copy.n_ctx() == 128
        assert text(copy(PROMPT, **GREEDY)) == text(fresh(PROMPT, **GREEDY))


def test_two_streams_do_not_disturb_each_other(llm: Llama) -> None:
    """Taking turns between two open streams gives the texts that each gives alone."""
    prompts = ("Once upon a time", "The little dog")
    alone = [text(llm(prompt, **GREEDY)) for prompt in prompts]
    streams = [llm(prompt, stream=True, **GREEDY) for prompt in prompts]
    texts = ["", ""]
    for pair in zip(*streams, strict=False):
        texts = [known + text(chunk) for known, chunk in zip(texts, pair, strict=True)]
    assert all(whole.startswith(part) and len(part) > 20 for whole, part in zip(alone, texts, strict=True))


def test_threads_share_one_object(llm: Llama) -> None:
    """Eight threads at once get the answer that one gets alone."""
    expected = text(llm(PROMPT, **GREEDY))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(text(llm(PROMPT, **GREEDY)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_long_prompt_is_a_value_error(llm: Llama) -> None:
    """With the numbers, in the words that programs look for."""
    with pytest.raises(ValueError, match=r"Requested tokens \(\d+\) exceed context window of 256"):
        llm("a b c d " * 100)


def test_bad_files_are_value_errors(tmp_path: Path) -> None:
    """A missing file and a damaged one, as in llama-cpp-python; the cause is kept."""
    with pytest.raises(ValueError, match="does not exist"):
        Llama(tmp_path / "none.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ValueError, match="Failed to load model") as caught:
        Llama(broken)
    assert isinstance(caught.value.__cause__, iqrun.IqrunError)


def test_double_bos_is_warned_about(llm: Llama) -> None:
    """A prompt that writes BOS itself gets it twice."""
    name = llm.detokenize([llm.token_bos()], special=True).decode()
    with pytest.warns(RuntimeWarning, match="twice"):
        llm(name + "Hello", max_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llm("Hello", max_tokens=1)


@pytest.mark.parametrize(
    ("arguments", "kind", "names"),
    [
        ({"lora_path": "x.bin"}, NotImplementedError, "lora_path"),
        ({"rope_freq_base": 1e6}, NotImplementedError, "rope_freq_base"),
        ({"type_k": 2, "type_v": 2}, NotImplementedError, "type_k=2"),
        ({"kv_overrides": {"a": 1}}, NotImplementedError, "kv_overrides"),
        ({"n_thread": 4}, TypeError, "n_thread"),
        ({"n_threads": -1}, ValueError, "n_threads"),
    ],
)
def test_what_would_change_the_answer_is_refused(arguments: Any, kind: type[Exception], names: str) -> None:
    """Never silently: the error names the argument."""
    with pytest.raises(kind, match=names):
        Llama(DEMO, **arguments)


def test_what_changes_no_answer_is_ignored() -> None:
    """GPU layers, memory mapping, batch sizes: a script for another machine runs."""
    with Llama(DEMO, n_gpu_layers=-1, use_mlock=True, n_ubatch=64, flash_attn=True, verbose=True, n_threads=2) as llm:
        assert llm(PROMPT, **GREEDY)["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("arguments", [{"suffix": "end"}, {"mirostat_mode": 1}], ids=["suffix", "mirostat_mode"])
def test_what_a_completion_cannot_do_is_refused(llm: Llama, arguments: Any) -> None:
    """Fill in the middle and Mirostat 1."""
    with pytest.raises(NotImplementedError, match=next(iter(arguments))):
        llm(PROMPT, **arguments)


def test_nothing_is_downloaded() -> None:
    """`from_pretrained` says what to do instead."""
    with pytest.raises(NotImplementedError, match=r"fetch a\.gguf of some/model yourself"):
        Llama.from_pretrained("some/model", "a.gguf", n_ctx=512)


@pytest.mark.parametrize("options", [{"top_k": -1}, {"top_p": 1.5}, {"min_p": -0.1}, {"typical_p": 2.0}])
def test_numbers_out_of_range_turn_samplers_off(llm: Llama, options: Any) -> None:
    """As in llama.cpp."""
    assert llm(PROMPT, seed=1, **options)["usage"]["completion_tokens"] > 0


def test_prompt_without_tokens_is_refused(llm: Llama) -> None:
    """With a sentence."""
    with pytest.raises(ValueError, match="no tokens"):
        llm([])


def test_temperature_below_zero_draws_freely(llm: Llama) -> None:
    """From the model's own distribution: not always the best token."""
    assert len({text(llm(PROMPT, temperature=-1.0, seed=seed, max_tokens=8)) for seed in range(4)}) > 1


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Not even with ``verbose=True``, the peer's default."""
    with Llama(DEMO, n_threads=2, verbose=True) as llm:
        llm(PROMPT, max_tokens=2)
    assert capfd.readouterr() == ("", "")


# ---- grammar and lookup ----


def test_grammar_binds_the_answer(llm: Llama, tmp_path: Path) -> None:
    """GBNF from a text and from a file, and a JSON schema; all tokens of the answer are counted."""
    pytest.importorskip("llguidance")
    rules = 'root ::= "yes" | "no"\n'
    reply = llm("Is it? ", grammar=LlamaGrammar.from_string(rules), **GREEDY)
    assert text(reply) in ("yes", "no")
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert llm.detokenize(llm.tokenize(text(reply).encode(), add_bos=False)).decode().strip() == text(reply)
    assert reply["usage"]["completion_tokens"] > 0
    file = tmp_path / "rules.gbnf"
    file.write_text(rules, encoding="utf-8")
    assert text(llm("Is it? ", grammar=LlamaGrammar.from_file(file, verbose=False), **GREEDY)) == text(reply)
    schema = LlamaGrammar.from_json_schema('{"enum": ["a", "b"]}')
    assert text(llm("Which? ", grammar=schema, **GREEDY)) in ('"a"', '"b"')
    with pytest.raises(iqrun.IqrunError, match="GBNF"):
        LlamaGrammar.from_string("this is no grammar")


def test_grammar_and_criterion_together(llm: Llama) -> None:
    """A criterion ends the answer also where the grammar would go on."""
    pytest.importorskip("llguidance")
    n_prompt = len(llm.tokenize(PROMPT.encode()))
    letters = LlamaGrammar.from_string("root ::= [a-z]+\n")
    reply = llm(PROMPT, grammar=letters, stopping_criteria=lambda ids, _: len(ids) >= n_prompt + 3, **GREEDY)
    assert reply["usage"]["completion_tokens"] == 3
    assert text(reply).isalpha()


def test_generator_follows_a_grammar(fresh: Llama) -> None:
    """Also token by token."""
    pytest.importorskip("llguidance")
    digits = LlamaGrammar.from_string("root ::= [0-9]+\n")
    tokens = list(islice(fresh.generate(fresh.tokenize(PROMPT.encode()), temp=0.0, grammar=digits), 3))
    assert fresh.detokenize(tokens).decode().isdigit()


def test_prompt_lookup_changes_no_answer(llm: Llama) -> None:
    """``draft_model=LlamaPromptLookupDecoding()`` gives the same text; another draft model is refused."""
    expected = llm(PROMPT * 3, max_tokens=32, temperature=0)["choices"]
    with Llama(DEMO, n_ctx=256, n_threads=2, draft_model=LlamaPromptLookupDecoding()) as other:
        assert other(PROMPT * 3, max_tokens=32, temperature=0)["choices"] == expected
    with pytest.raises(NotImplementedError, match="draft_model"):
        Llama(DEMO, draft_model=object())


# ---- embeddings ----


def test_embedding_is_the_models(llm: Llama) -> None:
    """By mean, first and last token what `Model.embed` gives; without pooling a vector per token."""
    texts = ["a cat", "the little dog"]
    with iqrun.load(DEMO, n_threads=2) as model:
        for number, name in ((1, "mean"), (2, "cls"), (3, "last")):
            with Llama(DEMO, n_threads=2, embedding=True, pooling_type=number) as pooled:
                expected = model.embed(texts, pooling=name, normalize=False)  # type: ignore[call-overload]
                assert np.asarray(pooled.embed(texts)) == pytest.approx(expected, abs=1e-5)
                assert np.linalg.norm(pooled.embed(texts[0], normalize=True)) == pytest.approx(1.0)
    per_token, n_tokens = llm.embed(texts[1], return_count=True)
    assert (len(per_token), len(per_token[0])) == (n_tokens, llm.n_embd())
    assert np.asarray(per_token[-1]) == pytest.approx(expected[1], abs=0.05)


def test_embedding_reply(llm: Llama) -> None:
    """The dictionary of the embeddings API; `OpenAI` gives it with attributes."""
    with Llama(DEMO, n_threads=2, embedding=True, pooling_type=1) as pooled:
        reply = pooled.create_embedding(["a cat", "a dog"])
        assert [item["index"] for item in reply["data"]] == [0, 1]
        assert (reply["object"], reply["data"][0]["object"]) == ("list", "embedding")
        n_tokens = sum(len(pooled.tokenize(text)) for text in (b"a cat", b"a dog"))
        assert reply["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        client = OpenAI(pooled)
        assert client.embeddings.create(input="a cat", model="m").data[0].embedding == reply["data"][0]["embedding"]


def test_long_text_to_embed_is_cut_or_refused() -> None:
    """At `n_batch` tokens, as asked."""
    with Llama(DEMO, n_ctx=64, n_batch=8, n_threads=2, pooling_type=1) as llm:
        assert llm.embed("a b c d " * 9, return_count=True)[1] == 8
        with pytest.raises(ValueError, match="exceed batch size of 8"):
            llm.embed("a b c d " * 9, truncate=False)
    with pytest.raises(NotImplementedError, match="pooling_type 4"):
        Llama(DEMO, pooling_type=4)
