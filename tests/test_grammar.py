"""Response formats: every text is valid, whatever the model prefers; one that was cut says so."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.errors import GrammarError, IncompleteError
from iqrun.generation.grammar import Grammar
from iqrun.tokenizer import Tokenizer, bpe
from tests.emulated import SLOWER
from tests.gguf_builder import CONTROL, NORMAL
from tests.test_tokenizer_spm import SHARED
from tests.tokenizer_reference import write_vocabulary

pytest.importorskip("llguidance")

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
PERSON = {  # its texts are never long
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "größer", "✓"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
LIST = 'root ::= "shopping:\\n" item+\nitem ::= "- " [a-z]+ "\\n"'


@pytest.fixture(scope="module")
def model() -> Iterator[iqrun.Model]:
    with iqrun.load(DEMO, n_threads=2) as opened:
        yield opened


def is_person(text: str) -> bool:
    """What the schema says, checked by hand."""
    value = json.loads(text)
    return (
        set(value) == {"name", "age", "tags"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and value["age"] in range(121)
        and 1 <= len(value["tags"]) <= 3
        and set(value["tags"]) <= {"red", "größer", "✓"}
    )


@pytest.mark.parametrize("seed", range(6))
def test_text_follows_the_schema(model: iqrun.Model, seed: int) -> None:
    """Also at a temperature at which the model would write nonsense."""
    options: dict[str, Any] = {"max_tokens": 300, "seed": seed, "temperature": 3.0, "top_k": 0, "min_p": 0.0}
    text = model.complete("Once upon a time", response_format=Grammar.json_schema(PERSON), **options)
    assert is_person(text)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}},
        {"type": "json_object", "schema": PERSON},
        Grammar.json_schema(json.dumps(PERSON)),
    ],
)
def test_openai_dictionaries_are_understood(model: iqrun.Model, response_format: Any) -> None:
    """The same text however the schema comes."""
    text = model.complete("He said", response_format=response_format, max_tokens=300, seed=1)
    assert is_person(text)
    expected = model.complete("He said", response_format=Grammar.json_schema(PERSON), max_tokens=300, seed=1)
    assert text == expected


def test_regex_ends_the_text_when_nothing_can_follow(model: iqrun.Model) -> None:
    """Without drawing an end token, also where that is forbidden."""
    steps = list(
        model.generate(
            "The answer is",
            response_format=Grammar.regex(" (yes|no)"),
            sampling=iqrun.SamplingOptions(ignore_eos=True, seed=2),
        )
    )
    assert "".join(step.text for step in steps) in (" yes", " no")
    assert (steps[-1].finish_reason, steps[-1].complete) == ("end", True)


@pytest.mark.parametrize(
    "made",
    [Grammar.gbnf(LIST), Grammar.lark('start: "shopping:\\n" item+\nitem: "- " /[a-z]+/ "\\n"')],
    ids=["gbnf", "lark"],
)
def test_grammars_are_followed(model: iqrun.Model, made: Grammar) -> None:
    """llama.cpp's notation and Lark's describe the same list."""
    options = iqrun.SamplingOptions(seed=1, ignore_eos=True)
    *_, last = steps = list(model.generate("Mom wrote:", response_format=made, max_tokens=60, sampling=options))
    text = "".join(step.text for step in steps)
    assert last.finish_reason == "length"
    assert re.fullmatch(r"shopping:\n(- [a-z]+\n)*(- ?[a-z]*)?", text)
    assert last.complete == bool(re.fullmatch(r"shopping:\n(- [a-z]+\n)+", text))


def test_cut_text_says_so(model: iqrun.Model) -> None:
    """complete() raises with what there is; a step tells in its flag; a text without a format has none."""
    schema = Grammar.json_schema(PERSON)
    with pytest.raises(IncompleteError, match=r"cut \(length\).*max_tokens") as caught:
        model.complete("He said", response_format=schema, max_tokens=5, seed=1)
    assert model.complete("He said", response_format=schema, max_tokens=300, seed=1).startswith(caught.value.text)
    *_, last = model.generate("He said", response_format=schema, max_tokens=5)
    assert last.complete is False
    *_, last = model.generate("He said", max_tokens=5)
    assert last.complete is None


def test_format_works_with_lookup_batches_and_logprobs(model: iqrun.Model) -> None:
    """Together with what else generation can do; log-probabilities are the model's own."""
    schema = Grammar.json_schema(PERSON)
    options: dict[str, Any] = {"response_format": schema, "max_tokens": 300, "seed": 4}
    expected = model.complete("He said", **options)
    assert model.complete("He said", lookup=True, **options) == expected
    assert model.complete(["He said", "She said"], **options)[0] == expected
    first = next(iter(model.generate("He said", response_format=schema, logprobs=3)))
    assert first.logprob is not None and first.logprob < -3  # a story does not go on with a brace
    assert first.top_logprobs[0].token_id != first.token_id


def walk(tokenizer: Tokenizer, grammar: Grammar, seed: int) -> str:
    """A text of random tokens that the grammar allows."""
    rng, constraint = np.random.default_rng(seed), grammar.constraint(tokenizer)
    decoder, text = tokenizer.stream_decoder(), ""
    for _ in range(400):
        allowed = np.flatnonzero(np.isfinite(constraint.allow(np.zeros(tokenizer.n_vocab + 3, np.float32))))
        assert len(allowed) and allowed[-1] < tokenizer.n_vocab
        token = int(rng.choice(allowed))
        if token in tokenizer.end_ids:
            assert constraint.is_complete
            break
        constraint.accept(token)
        text += decoder.feed(token)
        if constraint.is_over:
            break
    return text + decoder.flush()


def test_every_path_is_valid_with_bpe(tmp_path: Path) -> None:
    """Random walks through a byte-level vocabulary: all bytes and a few merges."""
    merges = ["t h", "th e", "Ġ the", "r e", "re d", '" :', "Ã ¶"]
    tokens = [*bpe.BYTE_OF_LETTER, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>", "<|x|>"]
    types = [NORMAL] * (len(tokens) - 2) + [CONTROL] * 2
    path = write_vocabulary(tmp_path / "v.gguf", "gpt2", tokens, types=types, merges=merges, pre="gpt-2")
    tokenizer = Tokenizer.from_gguf(path)
    assert all(is_person(walk(tokenizer, Grammar.json_schema(PERSON), seed)) for seed in range(12))


def test_every_path_is_valid_with_sentencepiece(model: iqrun.Model) -> None:
    """Random walks with byte fallback: the check mark has no token of its own."""
    texts = [walk(model.tokenizer, Grammar.json_schema(PERSON), seed) for seed in range(12)]
    assert all(is_person(text) for text in texts)
    assert any("✓" in text for text in texts)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole vocabularies are not here")
@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "qwen2", "gpt-2", "llama-bpe"])
def test_every_path_is_valid_with_whole_vocabularies(name: str) -> None:
    """Tens of thousands of tokens, with their special and unused ones."""
    tokenizer = Tokenizer.from_gguf(SHARED / f"ggml-vocab-{name}.gguf")
    assert all(is_person(walk(tokenizer, Grammar.json_schema(PERSON), seed)) for seed in range(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grammar.regex("(a"), "not a valid regular expression"),
        (lambda: Grammar.lark("start: nowhere"), "not a valid Lark grammar"),
        (lambda: Grammar.gbnf("root ::= ("), "not a valid GBNF grammar"),
        (lambda: Grammar.gbnf("root ::= nowhere"), "not a valid GBNF grammar"),
        (lambda: Grammar.gbnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000), "not a valid GBNF grammar"),
        (lambda: Grammar.json_schema("{"), "not a JSON schema"),
        (lambda: Grammar.json_schema({"type": "colour"}), "not a valid JSON schema"),
        (lambda: Grammar.json_schema({"$ref": "#/nowhere"}), "not a valid JSON schema"),
        (lambda: Grammar.json_schema({"enum": [{1, 2}]}), "not a JSON schema"),
        (lambda: Grammar.json_schema("[" * 100_000), "deeper than 64"),
        (lambda: Grammar.json_schema(nested(70)), "deeper than 64"),
        (lambda: Grammar.regex("a" * (1 << 21)), "2097152 characters"),
        (lambda: Grammar.of({"type": "text"}), "response_format must be"),
        (lambda: Grammar.of({"type": "json_schema", "json_schema": 5}), "response_format must be"),
        (lambda: Grammar.of("json"), "response_format must be"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_one_clear_sentence(make: Any, message: str) -> None:
    """GrammarError, at once, on one line, without the parser's inner state."""
    start = time.perf_counter()
    with pytest.raises(GrammarError, match=message) as caught:
        make()
    assert time.perf_counter() - start < 5 * SLOWER
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_recursive_schema_works(model: iqrun.Model) -> None:
    """A tree that refers to itself: allowed to any depth, and any JSON that comes out is one."""
    tree = {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
        },
        "$ref": "#/$defs/node",
    }
    text = walk(model.tokenizer, Grammar.json_schema(tree), 0)
    json.loads(text)


@pytest.mark.parametrize("pattern", ["(x+x+)+y", "((a*)*)*", "(a|a)*b", "(a?){200}a{200}", "(a{1000}){1000}"])
def test_hard_expressions_end_soon(model: iqrun.Model, pattern: str) -> None:
    """What makes a backtracking engine hang is followed or refused in bounded time."""
    start = time.perf_counter()
    try:
        constraint = Grammar.regex(pattern).constraint(model.tokenizer)
        for _ in range(50):
            allowed = np.flatnonzero(np.isfinite(constraint.allow(np.zeros(4096, np.float32))))
            if constraint.is_over:
                break
            constraint.accept(int(allowed[-1]))
    except GrammarError as error:
        assert "cannot be followed" in str(error)
    assert time.perf_counter() - start < 20 * SLOWER


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llguidance: what to install, not an ImportError."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GrammarError, match=r"pip install 'iqrun\[grammar\]'"):
        Grammar.json()


def test_a_token_that_is_not_allowed_is_refused(model: iqrun.Model) -> None:
    """A constraint that is driven by hand does not go on with it."""
    constraint = Grammar.regex("yes|no").constraint(model.tokenizer)
    wrong = model.tokenizer.encode("cat", add_special=False)[-1]
    with pytest.raises(GrammarError, match="cannot be followed"):
        constraint.accept(wrong)
