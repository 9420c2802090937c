"""A full context: what is left out, what stays, and what is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iqrun import load
from iqrun.chat.chat import Chat
from iqrun.chat.window import Window
from iqrun.errors import ContextFullError
from tests.gguf_builder import tiny_llama
from tests.test_chat import say, start

TALK = [
    {"role": role, "content": text}
    for role, text in (("user", "abcd"), ("assistant", "efgh"), ("user", "ijkl"), ("assistant", "mnop"), ("user", "qr"))
]


def letters(window: Window) -> str:
    return "|".join(message["content"] for message in window.visible(TALK))


@pytest.mark.parametrize(
    ("n_letters", "expected"),
    [(99, "abcd|efgh|ijkl|mnop|qr"), (17, "ijkl|mnop|qr"), (10, "ijkl|mnop|qr"), (9, "qr"), (0, "qr")],
)
def test_drop_leaves_out_whole_exchanges(n_letters: int, expected: str) -> None:
    """Oldest first, until it fits; the last question always stays."""
    window = Window()
    window.drop(TALK, lambda: sum(map(len, letters(window).split("|"))) <= n_letters)
    assert letters(window) == expected


@pytest.mark.parametrize(
    ("n_letters", "expected", "n_skipped"),
    [
        (99, "abcd|efgh|ijkl|mnop|qr", 0),
        (16, "cd|efgh|ijkl|mnop|qr", 0),
        (13, "|fgh|ijkl|mnop|qr", 0),
        (10, "ijkl|mnop|qr", 2),
        (5, "|nop|qr", 2),
        (2, "qr", 4),
        (0, "qr", 4),
    ],
)
def test_shift_leaves_out_letters(n_letters: int, expected: str, n_skipped: int) -> None:
    """Of the oldest message, no more than needed; what has none left goes with its exchange."""
    window = Window()
    window.shift(TALK, lambda: sum(map(len, letters(window).split("|"))) <= n_letters)
    assert (letters(window), window.n_skipped) == (expected, n_skipped)


def test_shift_goes_on_where_it_was() -> None:
    """A second time it leaves out more, never less."""
    window = Window()
    for n_letters, expected in ((16, "cd|efgh|ijkl|mnop|qr"), (17, "cd|efgh|ijkl|mnop|qr"), (11, "|h|ijkl|mnop|qr")):
        window.shift(TALK, lambda limit=n_letters: sum(map(len, letters(window).split("|"))) <= limit)  # type: ignore[misc]
        assert letters(window) == expected


def context(chat: Chat, session: Any) -> str:
    return chat._tokenizer.decode(session.tokens)


@pytest.mark.parametrize("policy", ["drop", "shift"])
def test_the_system_message_and_the_last_question_stay(policy: Any) -> None:
    """A long conversation goes on; the model sees its end."""
    chat, session = start(*["word " * 10] * 12, n_ctx=120, system="Rules.", context_full=policy)
    for index in range(12):
        say(chat, f"Question number {index} is here.")
        assert context(chat, session).startswith("<s><|user|>Rules.<|end|><|user|>")
        assert f"number {index}" in context(chat, session)
    assert len(chat.messages) == 24 and chat.n_skipped > 0
    assert "number 0" not in context(chat, session)


def test_stop_refuses_the_question() -> None:
    """With a sentence that says what to do; nothing changes, and a shorter one is answered."""
    chat, _ = start(*["word " * 10] * 12, n_ctx=70, context_full="stop")
    say(chat, "Question number one is here.")
    before = chat.messages
    with pytest.raises(ContextFullError, match=r"conversation has \d+ tokens .* context holds 70: .* drop or shift"):
        say(chat, "Question number two is here. " * 6)
    assert chat.messages == before
    assert say(chat, "Three") != ""


def test_stop_ends_the_answer() -> None:
    """Nothing is left out behind the user's back."""
    chat, _ = start("word " * 100, n_ctx=60, context_full="stop")
    say(chat, "Go")
    assert chat.last is not None and chat.last.finish_reason == "context"
    assert (chat.n_tokens, chat.n_skipped, chat.n_cut) == (60, 0, 0)


def test_drop_makes_room_in_the_middle_of_an_answer() -> None:
    """An older exchange goes, and the answer is finished as if there had been room."""
    long = " ".join(f"number {index}" for index in range(40)) + " end."
    chat, session = start("word " * 30, long, n_ctx=200)
    say(chat, "First question here.")
    assert say(chat, "Second question.") == long
    assert chat.last is not None and chat.last.finish_reason == "end"
    assert chat.n_skipped == 2 and "First" not in context(chat, session) and "Second" in context(chat, session)
    assert chat.n_tokens <= 200


def test_drop_cannot_make_room_for_an_endless_answer() -> None:
    """When there is nothing older, the answer ends where the context does."""
    chat, _ = start("word " * 500, n_ctx=100)
    say(chat, "Go")
    assert chat.last is not None and chat.last.finish_reason == "context"
    assert (chat.n_tokens, chat.n_skipped) == (100, 0)


def test_shift_lets_an_answer_go_on() -> None:
    """Its own beginning leaves the context; the conversation keeps all of it."""
    chat, session = start("word " * 30, "word " * 300, n_ctx=100, context_full="shift")
    say(chat, "First question here.")
    answer = say(chat, "Second question.", max_tokens=250)
    assert chat.last is not None and chat.last.finish_reason == "length"
    assert chat.messages[-1]["content"] == answer and len(answer.split()) > 200
    assert "Second question." in context(chat, session) and chat.n_tokens <= 100
    assert len(session.tokens) == chat.n_tokens


def test_lookup_does_not_move_the_context(tmp_path: Path) -> None:
    """Its own account of the tokens would go wrong: the answer ends; without it the same words go on."""
    with load(tiny_llama(tmp_path / "tiny.gguf", n_ctx=64), n_threads=1) as model:
        plain, guessing = (
            "".join(model.chat(context_full="stop").send("the cat", temperature=0.0, lookup=lookup))
            for lookup in (False, True)
        )
        assert plain == guessing


def test_an_unknown_policy() -> None:
    """Is refused when the chat begins, and later."""
    with pytest.raises(ValueError, match="drop, shift, stop"):
        start(context_full="roll")
    chat, _ = start()
    with pytest.raises(ValueError, match="drop, shift, stop"):
        chat.context_full = "roll"  # type: ignore[assignment]


def test_drop_reads_only_what_is_left_once_more(tmp_path: Path) -> None:
    """With the engine: half of the context at most, once; the turns behind it read only what is new."""
    with load(tiny_llama(tmp_path / "tiny.gguf", n_ctx=400), n_threads=1) as model:
        chat = model.chat(system="be nice")
        n_read = []
        for index in range(20):
            list(chat.send(f"the cat {index}", temperature=0.0, max_tokens=12))
            assert chat.timings is not None
            n_read.append(chat.timings.n_prompt)
        usual = n_read[1]
        again = [n for n in n_read if n > 2 * usual]
        assert chat.n_skipped > 0 and 1 <= len(again) <= 4 and max(again) <= 200
