"""Streams of tokens: whole characters only, and the same text as decoding at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.models.demo import model_path
from iqrun.tokenizer import Tokenizer
from iqrun.tokenizer.special import PLAIN_MARK, SpecialSplitter
from tests.emulated import n_random


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    return Tokenizer.from_gguf(model_path())


def byte_ids(demo: Tokenizer, data: bytes) -> list[int]:
    """The byte tokens of some bytes."""
    ids = [demo.token_id(f"<0x{byte:02X}>") for byte in data]
    assert None not in ids
    return [i for i in ids if i is not None]


def test_characters_come_whole(demo: Tokenizer) -> None:
    """A character appears with its last byte."""
    stream = demo.stream_decoder()
    assert [stream.feed(i) for i in byte_ids(demo, "😀é".encode())] == ["", "", "", "😀", "", "é"]
    assert stream.flush() == ""


def test_half_a_character_is_replaced_at_the_end(demo: Tokenizer) -> None:
    """What never became complete shows as U+FFFD, once."""
    stream = demo.stream_decoder()
    assert "".join(stream.feed(i) for i in byte_ids(demo, "😀".encode()[:3])) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_special_tokens_interrupt_a_character(demo: Tokenizer) -> None:
    """The broken character is given out before the mark, not after it."""
    ids = [*byte_ids(demo, b"\xf0\x9f"), 1, *byte_ids(demo, b"x")]
    assert demo.decode(ids) == "\ufffd<s>x"
    assert demo.decode(ids, skip_special=True) == "\ufffdx"


def test_spaces_at_the_start(demo: Tokenizer) -> None:
    """A continuation keeps its first space; a text of its own drops the one that encoding put there."""
    ids = demo.encode("Once upon", add_special=False)
    for at_start, expected in ((False, " Once upon"), (True, "Once upon")):
        stream = demo.stream_decoder(at_start=at_start)
        assert expected == "".join(stream.feed(i) for i in ids) + stream.flush()


@settings(max_examples=n_random(100), deadline=None)
@given(ids=st.lists(st.integers(0, 4095), max_size=30))
def test_any_tokens_give_valid_text(demo: Tokenizer, ids: list[int]) -> None:
    """Whatever a model draws, each piece is valid UTF-8, and together they are the decoded text."""
    stream = demo.stream_decoder(at_start=True)
    pieces = [*(stream.feed(i) for i in ids), stream.flush()]
    assert all(piece.encode("utf-8").decode("utf-8") == piece for piece in pieces)
    assert demo.decode(ids) == "".join(pieces)


# ---- the splitter ----


def test_splitter_takes_the_leftmost_then_the_longest() -> None:
    """As the tokenizers of the models do."""
    splitter = SpecialSplitter({"ab": 0, "abc": 1, "bcd": 2, "": 3})
    assert list(splitter.split("xabcdabbcdb")) == ["x", 1, "d", 0, 2, "b"]
    assert list(splitter.split("")) == []
    assert list(SpecialSplitter({}).split("x")) == ["x"]


@settings(max_examples=n_random(100), deadline=None)
@given(text=st.text("abc<|>", max_size=30))
def test_splitter_keeps_the_text(text: str) -> None:
    """Pieces and tokens together are the text."""
    ids = {"<|a|>": 0, "<|": 1, "ab": 2}
    names = {i: name for name, i in ids.items()}
    parts = list(SpecialSplitter(ids).split(text))
    assert text == "".join(names[part] if isinstance(part, int) else part for part in parts)
    assert "" not in parts


@settings(max_examples=n_random(100), deadline=None)
@given(text=st.text("ab", max_size=20))
def test_broken_up_text_holds_no_special_token(text: str) -> None:
    """Also where the texts overlap."""
    splitter = SpecialSplitter({"aba": 0, "bb": 1})
    broken = splitter.break_up(text)
    assert not any(isinstance(part, int) for part in splitter.split(broken))
    assert text == broken.replace(PLAIN_MARK, "")
