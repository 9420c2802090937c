"""What a chat has read: shown while it reads, kept when it is interrupted, saved and brought back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iqrun import Chat, Model, load
from iqrun.chat.session import PIECE_TOKENS
from iqrun.errors import StateError
from tests.gguf_builder import tiny_llama
from tests.test_chat import say, start

QUESTION = "the cat and the dog " * 40


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    """A tiny one with room for long questions."""
    with load(tiny_llama(tmp_path / "tiny.gguf", n_ctx=2048), n_threads=1) as model:
        yield model


def n_read(chat: Chat) -> int:
    """Tokens that the latest question made the model read."""
    assert chat.timings is not None
    return chat.timings.n_prompt


def test_progress_of_a_long_question(model: Model) -> None:
    """It is told before each piece, from nothing on; never more than there is."""
    chat, seen = model.chat(), []
    chat.on_progress = lambda n_done, n_tokens: seen.append((n_done, n_tokens))
    list(chat.send(QUESTION, temperature=0.0, max_tokens=2))
    n_tokens = n_read(chat)
    assert n_tokens > 2 * PIECE_TOKENS
    assert seen == [(n_done, n_tokens) for n_done in range(0, n_tokens, PIECE_TOKENS)]


def test_pieces_change_nothing(model: Model) -> None:
    """The answer is the one that reading in one go gives, bit for bit."""
    chat = model.chat()
    (step,) = chat.steps(QUESTION, max_tokens=1)
    ids = chat._session.tokens
    session, pieces = model.session(), model.session()
    whole = session.evaluate(ids)
    for first in range(0, len(ids), PIECE_TOKENS):
        logits = pieces.evaluate(ids[first : first + PIECE_TOKENS])
    assert (whole == logits).all()
    assert step.token_id is not None and len(ids) == n_read(chat)


def test_interrupted_reading_is_not_lost(model: Model) -> None:
    """Ctrl-C in the middle: the question is not asked, but what was read need not be read again."""
    chat = model.chat()

    def stop(n_done: int, n_tokens: int) -> None:
        if n_done >= 2 * PIECE_TOKENS:
            raise KeyboardInterrupt

    chat.on_progress = stop
    with pytest.raises(KeyboardInterrupt):
        list(chat.send(QUESTION, temperature=0.0, max_tokens=2))
    assert chat.messages == [] and n_read(chat) == 2 * PIECE_TOKENS and chat.last is None
    chat.on_progress = None
    list(chat.send(QUESTION, temperature=0.0, max_tokens=2))
    assert 0 < n_read(chat) < chat.n_tokens - PIECE_TOKENS


def test_numbers_of_a_stopped_answer() -> None:
    """They tell what was done until then."""
    chat, _ = start("One two three four five six.", "Seven.")
    assert chat.timings is None
    answer = chat.send("Count", temperature=0.0)
    next(answer), next(answer)
    answer.close()
    assert chat.last is None and chat.timings is not None
    assert (chat.timings.n_prompt, chat.timings.n_generated) == (6, 2)
    say(chat, "Go on")
    assert chat.last is not None and chat.timings == chat.last.timings
    chat.clear()
    assert chat.timings is None


def test_only_what_is_new_is_read(model: Model) -> None:
    """Regenerating reads one token, an edited question what follows the common beginning, clearing all."""
    chat = model.chat(system="be nice to the cat")
    first = "".join(chat.send("the dog and the cat", temperature=0.0, max_tokens=5))
    n_first = n_read(chat)
    assert "".join(chat.regenerate(temperature=0.0, max_tokens=5)) == first and n_read(chat) == 1
    list(chat.regenerate(question="the dog and the fox", temperature=0.0, max_tokens=5))
    assert 1 < n_read(chat) < n_first
    list(chat.send("and", temperature=0.0, max_tokens=5))
    n_new = n_read(chat)
    assert n_new < n_first
    chat.undo()
    list(chat.send("and", temperature=0.0, max_tokens=5))
    assert n_read(chat) <= n_new


def test_a_kept_state_is_not_read_again(tmp_path: Path, model: Model) -> None:
    """In another process or context size: the next answer is the same, and only the next question is read."""
    chat = model.chat(system="be nice")
    list(chat.send(QUESTION, temperature=0.0, max_tokens=5))
    messages, state = chat.messages, chat.save_state()
    expected = "".join(chat.send("and then", temperature=0.0, max_tokens=8))
    n_new = n_read(chat)
    with load(tmp_path / "tiny.gguf", n_ctx=1500, n_threads=2) as other:
        again = other.chat()
        again.restore(messages, system="be nice")
        again.load_state(state)
        assert "".join(again.send("and then", temperature=0.0, max_tokens=8)) == expected
        assert n_read(again) == n_new < 30


def test_a_state_of_another_conversation_does_no_harm(model: Model) -> None:
    """What does not belong to the messages is read anew."""
    chat = model.chat()
    expected = "".join(chat.send("the fox", temperature=0.0, max_tokens=8))
    other = model.chat()
    list(other.send(QUESTION, temperature=0.0, max_tokens=2))
    chat.clear()
    chat.load_state(other.save_state())
    assert "".join(chat.send("the fox", temperature=0.0, max_tokens=8)) == expected


def test_a_damaged_state_changes_nothing(model: Model) -> None:
    """The chat goes on with what it has read."""
    chat = model.chat()
    list(chat.send("the fox", temperature=0.0, max_tokens=8))
    state, n_tokens = chat.save_state(), chat.n_tokens
    for damaged in (b"", state[:-1], state[:100], bytes([state[0] ^ 1]) + state[1:], state[:-40] + b"x" + state[-39:]):
        with pytest.raises(StateError):
            chat.load_state(damaged)
        assert chat.n_tokens == n_tokens
