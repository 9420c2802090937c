"""Byte-level BPE without the library's tables: the same tokens as the library, and no table built for short texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.gguf import GGUFFile, StringArray
from iqrun.tokenizer import Tokenizer, bpe, merging
from iqrun.tokenizer.merging import MAX_LETTERS, MAX_PIECE, Merger
from iqrun.tokenizer.string_index import MOST_ALIKE, StringIndex
from tests.emulated import n_random
from tests.gguf_builder import CONTROL, NORMAL
from tests.test_tokenizer_spm import SHARED, cases
from tests.tokenizer_reference import load_sample, stored_strings, write_sample, write_vocabulary

SAMPLES = ["gpt-2", "qwen2", "llama-bpe"]
LETTERS = list(bpe.BYTE_OF_LETTER)


@pytest.fixture(autouse=True)
def every_vocabulary_counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MIN_MERGES", 1)


def made_by_library(tokenizer: Tokenizer, text: str) -> list[int]:
    encoder: Any = tokenizer._encoder  # type: ignore[attr-defined]
    ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
    return ids


@settings(max_examples=n_random(100), deadline=None)
@given(st.lists(st.text(max_size=20)), st.text(max_size=20))
def test_strings_are_found_where_they_stand(strings: list[str], other: str) -> None:
    """All places of each string, ascending; none of one that is not there."""
    index = StringIndex(stored_strings(text.encode() for text in strings))
    for text in [*strings, other]:
        assert index.find(text.encode()) == [i for i, one in enumerate(strings) if one == text]


@pytest.mark.parametrize("strings", [["a" * n for n in range(40)], ["12345678x87654321", "12345678y87654321"], [""]])
def test_strings_with_the_same_ends_are_told_apart(strings: list[str]) -> None:
    """Length and ends make the number, all bytes decide."""
    index = StringIndex(stored_strings(text.encode() for text in strings))
    assert [index.find(text.encode()) for text in strings] == [[i] for i in range(len(strings))]


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=n_random(60), deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_samples_of_real_vocabularies(name: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any text has the library's tokens."""
    tokenizer = _sample(name, tmp_path_factory)
    merger: Merger = tokenizer._merger  # type: ignore[attr-defined]
    pieces = [piece for piece, _ in tokenizer._splitting.pre_tokenize_str(text)]  # type: ignore[attr-defined]
    assert tokenizer._merged(merger, pieces) == made_by_library(tokenizer, text)  # type: ignore[attr-defined]


_MADE: dict[str, Tokenizer] = {}


def _sample(name: str, folder: pytest.TempPathFactory) -> Tokenizer:
    if name not in _MADE:
        _MADE[name] = Tokenizer.from_gguf(write_sample(folder.mktemp("v") / "v.gguf", load_sample(name)))
    return _MADE[name]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole vocabularies are not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_whole_vocabularies(name: str) -> None:
    """The reference's tokens; none of the texts was long enough for the library."""
    tokenizer = Tokenizer.from_gguf(SHARED / f"ggml-vocab-{name}.gguf")
    short = [(text, ids) for text, ids in cases(f"ggml-vocab-{name}") if len(text) < 100]
    assert [(text, tokenizer.encode(text, add_special=False)) for text, _ in short] == short
    assert "_encoder" not in tokenizer.__dict__


def vocabulary(path: Path, merges: list[str], more: list[str]) -> Tokenizer:
    tokens = [*LETTERS, *more, "<|end|>"]
    types = [NORMAL] * (len(tokens) - 1) + [CONTROL]
    return Tokenizer.from_gguf(write_vocabulary(path, "gpt2", tokens, types=types, merges=merges, pre="gpt-2"))


@settings(max_examples=n_random(100), deadline=None)
@given(
    merges=st.lists(st.tuples(*[st.text("abc", min_size=1, max_size=3)] * 2), min_size=1, max_size=12),
    left_out=st.sets(st.integers(0, 11)),
    text=st.text("abc d", max_size=30),
)
def test_odd_merges_do_what_the_library_does(
    merges: list[tuple[str, str]], left_out: set[int], text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Merges that stand twice, or name tokens that do not exist."""
    made = [a + b for i, (a, b) in enumerate(merges) if i not in left_out]
    path = tmp_path_factory.mktemp("odd") / "v.gguf"
    tokenizer = vocabulary(path, [" ".join(pair) for pair in merges], made)
    found = tokenizer.encode(text, add_special=False)
    assert "_encoder" not in tokenizer.__dict__
    assert found == made_by_library(tokenizer, text)


def test_long_texts_and_long_words_go_to_the_library(tmp_path: Path) -> None:
    """A long piece at once, many letters in the end; the tokens stay the same."""
    for texts in (["a" * (MAX_PIECE + 1)], ["a b " * (MAX_LETTERS // 16)] * 5):
        tokenizer = vocabulary(tmp_path / f"{len(texts)}.gguf", ["a a", "Ġ b"], ["aa", "Ġb"])
        assert tokenizer.encode("aab", add_special=False) == made_by_library(tokenizer, "aab")
        del tokenizer.__dict__["_encoder"]
        found = [tokenizer.encode(text, add_special=False) for text in texts]
        assert "_encoder" in tokenizer.__dict__
        assert found == [made_by_library(tokenizer, text) for text in texts]


def test_merges_without_a_space_are_left_to_the_library(tmp_path: Path) -> None:
    """It says what is wrong with them."""
    path = tmp_path / "v.gguf"
    write_vocabulary(path, "gpt2", [*LETTERS, "aa"], merges=["a a", "ab"], pre="gpt-2")
    assert Tokenizer.from_gguf(path)._merger is None  # type: ignore[attr-defined]
    with GGUFFile(path) as file:
        assert isinstance(file.metadata["tokenizer.ggml.merges"], StringArray)


@pytest.mark.parametrize("what", ["tokens", "merges"])
def test_strings_that_were_made_to_be_mistaken_are_left_to_the_library(what: str, tmp_path: Path) -> None:
    """1 MiB of strings with the same ends and length took 11 s for 300 words: each was compared with all the others."""
    alike = ["a" * 8 + f"{i:04d}" + "b" * 8 for i in range(MOST_ALIKE + 2)]
    merges, tokens = (["a a"], alike) if what == "tokens" else ([f"{one[:8]} {one[8:]}" for one in alike], [])
    for n, taken in ((MOST_ALIKE, True), (MOST_ALIKE + 1, False)):
        tokenizer = vocabulary(tmp_path / f"{n}.gguf", merges[:n], tokens[:n])
        assert (tokenizer._merger is not None) == taken  # type: ignore[attr-defined]
        assert tokenizer.encode("aab", add_special=False) == made_by_library(tokenizer, "aab")
