"""Thinking sections: found in a stream, kept apart in the conversation, not read again."""

from __future__ import annotations

import random
from itertools import groupby
from pathlib import Path

import pytest

from iqrun import load
from iqrun.chat.thinking import MARKERS, ThinkingSplitter, opened_section, split_thinking
from tests.gguf_builder import tiny_llama
from tests.test_chat import say, start


def parts(text: str, sizes: list[int]) -> list[tuple[str, bool]]:
    """The parts of a text that comes in pieces of these sizes, neighbours of one kind joined."""
    splitter, found = ThinkingSplitter(), []
    for size in sizes:
        found += splitter.feed(text[:size])
        text = text[size:]
    found += splitter.feed(text) + splitter.finish()
    return [("".join(part.text for part in group), kind) for kind, group in groupby(found, lambda part: part.thinking)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain.", [("Plain.", False)]),
        ("  Plain <think>not</think>.", [("  Plain <think>not</think>.", False)]),
        ("<think>\nHm.\n</think>\n\nYes.", [("\nHm.\n", True), ("Yes.", False)]),
        ("\n<think></think>Yes.", [("Yes.", False)]),
        ("<think>a</think>\n<think>b</think> c", [("ab", True), ("c", False)]),
        ("<think>never closed </thin", [("never closed </thin", True)]),
        ("<think>a</thinking></think>b", [("a</thinking>", True), ("b", False)]),
        ("<thinker>a", [("<thinker>a", False)]),
        ("<thi", [("<thi", False)]),
        ("<", [("<", False)]),
        ("", []),
        ("a </think> b", [("a </think> b", False)]),
        ("<think>a</think>  ", [("a", True)]),
    ],
)
def test_sections(text: str, expected: list[tuple[str, bool]]) -> None:
    """Only at the beginning; markers gone; whatever the pieces are."""
    random_ = random.Random(3)
    for _ in range(20):
        assert parts(text, [random_.randint(1, 6) for _ in range(30)]) == expected
    assert split_thinking(text)[1] == "".join(text for text, thinking in expected if not thinking)


@pytest.mark.parametrize("markers", MARKERS)
def test_markers_of_many_models(markers: tuple[str, str]) -> None:
    """Each family has its own."""
    opening, closing = markers
    text = f"{opening}Hm, {opening[:-1]}{closing}Yes."
    assert parts(text, [1] * 200) == [(f"Hm, {opening[:-1]}", True), ("Yes.", False)]
    assert opened_section(f"<|assistant|>{opening}\n") == f"{opening}\n"


def test_nothing_is_held_back_without_need() -> None:
    """Text flows as it comes."""
    splitter = ThinkingSplitter()
    assert [part.text for part in splitter.feed("A")] == ["A"]
    splitter = ThinkingSplitter()
    assert splitter.feed("<think>") == [] and splitter.in_section
    assert [part.text for part in splitter.feed("ab<")] == ["ab"]


def test_thinking_is_kept_apart_and_not_read_again() -> None:
    """The template shows only the answer in the next turn; what stands before it is not evaluated again."""
    chat, session = start("<think>\nA number.\n</think>\n\nSeven.", "Eight.")
    assert say(chat, "Say a number") == "<think>\nA number.\n</think>\n\nSeven."
    assert chat.messages[1] == {"role": "assistant", "content": "Seven.", "reasoning_content": "A number."}
    session.evaluated.clear()
    say(chat, "Another")
    read = chat._tokenizer.decode(session.evaluated[0])
    assert read.lstrip() == "Seven.<|end|><|user|>Another<|end|><|assistant|>"
    assert "number." not in chat._tokenizer.decode(session.tokens)


def test_a_template_may_show_thinking_again() -> None:
    """It finds it under ``reasoning_content``; special tokens spelled in it are text."""
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.reasoning_content or '' }}|{{ m.content }}\n{% endfor %}<|assistant|>"
    )
    chat, session = start("<think>Hm.<|end|></think>A.", "B.", template=template)
    say(chat, "Q")
    say(chat, "R")
    assert "assistant:Hm.<|end|>|A.\n" in chat._tokenizer.decode(session.tokens)
    assert chat._tokenizer.token_id("<|end|>") not in session.tokens


def test_a_template_that_opens_the_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the answer begins with what the template wrote for the model: its markers match."""
    template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}<|assistant|>{{ '<think>\n' }}"
    chat, session = start(template=template)
    tokenizer = chat._tokenizer
    script = iter([*tokenizer.encode("Hm.</think>Yes.", add_special=False), tokenizer.token_id("<|end|>")])
    monkeypatch.setattr(session, "_next_token", lambda n_new: next(script))
    assert say(chat, "Q") == "<think>\nHm.</think>Yes."
    assert chat.messages[1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}


def test_an_answer_stopped_while_thinking() -> None:
    """What was thought is kept; the conversation goes on."""
    chat, _ = start("<think>One two three four</think>Five.", "Six.")
    say(chat, "Q", max_tokens=9)
    assert chat.messages[1]["content"] == "" and chat.messages[1]["reasoning_content"].startswith("One")
    assert say(chat, "R") == "Six."


def test_with_the_engine(tmp_path: Path) -> None:
    """A real model reads no more than the end of the conversation that is new to it."""
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]<think>"
    with load(tiny_llama(tmp_path / "tiny.gguf", n_ctx=256), n_threads=1) as model:
        chat = model.chat(template=template)
        list(chat.send("the cat " * 10, temperature=0.0, max_tokens=4))
        n_first = chat.n_tokens
        list(chat.send("and", temperature=0.0, max_tokens=2))
        assert chat.timings is not None and 0 < chat.timings.n_prompt < n_first
