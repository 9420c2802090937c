"""Byte-level BPE vocabularies: exact tokens, round trips, pre-tokenizers, odd vocabularies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.errors import TokenizerError
from iqrun.tokenizer import Tokenizer, bpe
from iqrun.tokenizer.bpe import BPETokenizer
from iqrun.tokenizer.pretokenizers import PRETOKENIZERS, find_pretokenizer
from tests import tokenizer_reference as reference
from tests.emulated import n_random
from tests.gguf_builder import CONTROL, NORMAL, UNUSED, USER_DEFINED
from tests.test_tokenizer_spm import SHARED, cases
from tests.tokenizer_reference import load_sample, special_id, write_sample, write_vocabulary

SAMPLES = ["gpt-2", "qwen2", "llama-bpe"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LETTERS = list(bpe.BYTE_OF_LETTER)


@pytest.fixture(scope="module", params=SAMPLES)
def sample(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, dict[str, Any]]:
    """A sample of a real vocabulary."""
    data = load_sample(request.param)
    return Tokenizer.from_gguf(write_sample(tmp_path_factory.mktemp("bpe") / "v.gguf", data)), data


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """All bytes and a few merges, split like GPT-2."""
    path = tmp_path_factory.mktemp("bpe") / "v.gguf"
    merges = ["t h", "th e", "Ġ the", "a a", "aa aa", "i n", "in g"]
    tokens = [*LETTERS, *(merge.replace(" ", "") for merge in merges), "<|end|>"]
    types = [NORMAL] * (len(tokens) - 1) + [CONTROL]
    return Tokenizer.from_gguf(write_vocabulary(path, "gpt2", tokens, types=types, merges=merges, pre="gpt-2"))


def split(name: str, text: str) -> list[str]:
    """The pieces into which a pre-tokenizer cuts a text."""
    rules = bpe._pre_tokenizer(find_pretokenizer(name))
    return [bytes(bpe.BYTE_OF_LETTER[c] for c in piece).decode() for piece, _ in rules.pre_tokenize_str(text)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole vocabularies are not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_tokens_of_whole_vocabularies_are_exact(name: str) -> None:
    """Every case gives exactly the reference's tokens, and decodes to its text."""
    tokenizer = Tokenizer.from_gguf(SHARED / f"ggml-vocab-{name}.gguf")
    found = [(text, tokenizer.encode(text, add_special=False)) for text, _ in cases(f"ggml-vocab-{name}")]
    assert len(found) >= 40
    assert cases(f"ggml-vocab-{name}") == found
    assert [text for text, _ in found] == [tokenizer.decode(ids) for _, ids in found]


def test_tokens_of_samples_are_exact(sample: tuple[Tokenizer, dict[str, Any]]) -> None:
    """A part of each vocabulary, for a checkout without the whole ones."""
    tokenizer, data = sample
    assert data["cases"] == [[text, tokenizer.encode(text, add_special=False)] for text, _ in data["cases"]]


@settings(max_examples=n_random(100), deadline=None)
@given(text=TEXT | st.text("the aing\n", max_size=60))
def test_tokens_equal_the_textbook(byte_level: Tokenizer, text: str) -> None:
    """Merging the best-ranked pair again and again, by hand, gives the same pieces."""
    assert isinstance(byte_level, BPETokenizer)
    pairs = [tuple(merge.split()) for merge in byte_level._vocab.merges]
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    words = bpe._pre_tokenizer(find_pretokenizer("gpt-2")).pre_tokenize_str(text)
    expected = [piece for word, _ in words for piece in reference.bpe(list(word), ranks)]
    assert expected == [byte_level.token_text(i) for i in byte_level.encode(text)]


@settings(max_examples=n_random(100), deadline=None)
@given(text=TEXT)
def test_decoding_inverts_encoding(sample: tuple[Tokenizer, dict[str, Any]], text: str) -> None:
    """Any text comes back: all letters that the sample lacks are written in bytes that it has or refused."""
    tokenizer, _ = sample
    try:
        ids = tokenizer.encode(text, add_special=False)
    except TokenizerError as error:
        assert "no unknown token" in str(error)
        return
    assert text == tokenizer.decode(ids)


@settings(max_examples=n_random(100), deadline=None)
@given(text=TEXT)
def test_decoding_inverts_encoding_of_all_bytes(byte_level: Tokenizer, text: str) -> None:
    """With all bytes in the vocabulary nothing is refused."""
    assert text == byte_level.decode(byte_level.encode(text))


def test_every_code_point_survives(byte_level: Tokenizer) -> None:
    """A seventh of Unicode in one text."""
    text = "".join(chr(c) for c in range(0, 0x110000, 7) if not 0xD800 <= c < 0xE000)
    assert text == byte_level.decode(byte_level.encode(text))


@pytest.mark.parametrize("name", sorted(PRETOKENIZERS))
def test_pre_tokenizers_lose_nothing(name: str) -> None:
    """Every family's patterns compile, and the pieces make up the text."""
    text = "Don't WE'LL 12345 fooBar HTTPServer  \n\n\t x ！你好 Ünï 😀--!!\r\n   "
    assert text == "".join(split(name, text))


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "I'LL we'll 12345", ["I", "'", "LL", " we", "'ll", " 12345"]),
        ("llama3", "I'LL we'll 12345", ["I", "'LL", " we", "'ll", " ", "123", "45"]),
        ("qwen2", "I'LL a12", ["I", "'LL", " a", "1", "2"]),
        ("qwen2", "x=1;\n\n  y", ["x", "=", "1", ";\n\n", " ", " y"]),
        ("starcoder", "a 123", ["a", " ", "1", "2", "3"]),
        ("falcon", "a12345.b", ["a", "123", "45", ".", "b"]),
        ("deepseek-llm", "Hi  你好 12", ["Hi", "  ", "你好", " ", "12"]),
        ("deepseek-coder", "x1\n\ny", ["x", "1", "\n", "\n", "y"]),
        ("deepseek-v3", "1234 ab你好", ["123", "4", " ab", "你好"]),
        ("tekken", "HTTPServer fooBar 12", ["HTTPServer", " foo", "Bar", " ", "1", "2"]),
        ("gpt-4o", "WE'LL fooBar 1234", ["WE'LL", " foo", "Bar", " ", "123", "4"]),
        ("bloom", "Hi, you (me)", ["Hi", ",", " you", " (", "me", ")"]),
        ("viking", "a12", ["a", "1", "2"]),
    ],
)
def test_pre_tokenizers_split_as_their_models_do(name: str, text: str, pieces: list[str]) -> None:
    """Contractions, digits, upper case and line ends: what tells the families apart."""
    assert pieces == split(name, text)


@pytest.mark.parametrize("name", ["deepseek-llm", "llama3", "gpt-2", "tekken", "default"])
def test_long_runs_take_linear_time(name: str) -> None:
    """A hundred thousand spaces before a letter are where patterns go quadratic."""
    for text in (" " * 100_000 + "x", "A" * 100_000, "1" * 100_000, " \n" * 50_000):
        assert text == "".join(split(name, text))


def test_chunks_of_a_long_text_have_the_same_tokens(byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are cut where every pre-tokenizer splits, so the tokens do not change."""
    text = "the thing  in 'the' theater,\n\nthing 12 in\nthe other thing\t the\r\n aaaaaaaaa " * 20
    whole = byte_level.encode(text)
    for size in (40, 50, 333):
        monkeypatch.setattr(bpe, "MAX_CHUNK", size)
        assert whole == byte_level.encode(text)
    assert text == "".join(bpe._chunks(text))


@pytest.mark.parametrize("name", sorted(PRETOKENIZERS))
def test_chunks_begin_where_every_family_splits(name: str) -> None:
    """The places between chunks are places between pieces."""
    text = "don't stop the Music 12 b c\nNext\n\nMore 5 x\r\nYe\n 你好 a\n世界 Ab cD"
    places = {match.start() for match in bpe._ALWAYS_SPLIT.finditer(text)}
    starts, position = set(), 0
    for piece in split(name, text):
        starts.add(position)
        position += len(piece)
    assert len(places) >= 8
    assert places <= starts


def test_runs_beyond_the_library_are_cut(byte_level: Tokenizer) -> None:
    """A run of more than `MAX_CHUNK` equal letters has no place to split, and still comes back."""
    text = "a" * (bpe.MAX_CHUNK + 10)
    assert text == byte_level.decode(byte_level.encode(text))


# ---- what the file says, and odd vocabularies ----


def test_llama3_begins_with_bos_and_takes_whole_words(tmp_path: Path) -> None:
    """The family decides where the file says nothing: BOS in front, and no merging of what is a token already."""
    tokens = [*LETTERS, "th", "the", "<|begin|>"]
    extra = [special_id("bos", 258)]
    for pre, expected in (("llama-bpe", [258, 257]), ("dbrx", [256, LETTERS.index("e")])):
        path = write_vocabulary(
            tmp_path / pre, "gpt2", tokens, types=[NORMAL] * 258 + [CONTROL], merges=["t h"], pre=pre, extra=extra
        )
        assert expected == Tokenizer.from_gguf(path).encode("the")


def test_special_and_user_defined_tokens(tmp_path: Path) -> None:
    """User-defined tokens are found in any text, control tokens when asked for; both are stored as plain text."""
    tokens = [*LETTERS, "<think>", "<|end|>", "pad ding"]
    types = [NORMAL] * 256 + [USER_DEFINED, CONTROL, UNUSED]
    tokenizer = Tokenizer.from_gguf(
        write_vocabulary(tmp_path / "v", "gpt2", tokens, types=types, merges=[], pre="gpt-2")
    )
    assert tokenizer.encode("<think>") == [256]
    assert 257 not in tokenizer.encode("<|end|>")
    assert tokenizer.encode("<|end|>", parse_special=True) == [257]
    assert tokenizer.decode([256, 257]) == "<think><|end|>"
    assert tokenizer.decode([256, 257], skip_special=True) == "<think>"
    assert tokenizer.token_bytes(258) == b"pad ding"


def test_tokenizer_outlives_its_file(tmp_path: Path) -> None:
    """Nothing of it refers to the map: the merges, decoded for the first text, are a copy."""
    path = write_vocabulary(tmp_path / "v", "gpt2", [*LETTERS, "th"], merges=["t h"], pre="gpt-2")
    tokenizer = Tokenizer.from_gguf(path)
    if sys.platform == "linux":
        assert str(path) not in Path("/proc/self/maps").read_text()
    assert tokenizer.encode("th") == [256]


def test_merges_of_missing_tokens_are_dropped(tmp_path: Path) -> None:
    """A merge that names a token that is not there is left out, and the user can know."""
    merges = ["t h", "th e", "q q", "zz a"]
    path = write_vocabulary(tmp_path / "v", "gpt2", [*LETTERS, "th", "the"], merges=merges, pre="gpt-2")
    tokenizer = Tokenizer.from_gguf(path)
    assert tokenizer.encode("the") == [257]
    assert any("2 merges" in warning for warning in tokenizer.warnings)


def test_merges_that_are_no_pairs_are_refused(tmp_path: Path) -> None:
    """The message names the entry."""
    path = write_vocabulary(tmp_path / "v", "gpt2", [*LETTERS, "th"], merges=["t h", "the"], pre="gpt-2")
    with pytest.raises(TokenizerError, match=r"merges\[1\]"):
        Tokenizer.from_gguf(path).encode("the")


def test_missing_bytes_are_not_dropped_silently(tmp_path: Path) -> None:
    """Text that the vocabulary cannot write is an error, or the unknown token."""
    path = write_vocabulary(tmp_path / "v", "gpt2", ["a", "b"], merges=[], pre="gpt-2")
    with pytest.raises(TokenizerError, match="no unknown token"):
        Tokenizer.from_gguf(path).encode("abc")
    path = write_vocabulary(
        tmp_path / "w", "gpt2", ["a", "b"], merges=[], pre="gpt-2", extra=[special_id("unknown", 1)]
    )
    assert Tokenizer.from_gguf(path).encode("abc") == [0, 1, 1]


def test_unknown_pre_tokenizer_is_refused(tmp_path: Path) -> None:
    """A wrong guess would give wrong tokens; the message lists what is known."""
    path = write_vocabulary(tmp_path / "v", "gpt2", LETTERS, merges=[], pre="brand-new")
    with pytest.raises(TokenizerError, match=r"'brand-new'.*llama-bpe.*qwen2"):
        Tokenizer.from_gguf(path)


def test_missing_pre_tokenizer_warns(tmp_path: Path) -> None:
    """Old files have none: the default is used, and the user can know."""
    tokenizer = Tokenizer.from_gguf(write_vocabulary(tmp_path / "v", "gpt2", LETTERS, merges=[]))
    assert any("pre-tokenizer" in warning for warning in tokenizer.warnings)
