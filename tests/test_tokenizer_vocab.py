"""Reading a vocabulary: what is refused, what is left out with a warning, what is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqrun.errors import GGUFError, TokenizerError
from iqrun.gguf import GGUFFile
from iqrun.tokenizer import Tokenizer
from iqrun.tokenizer.vocab import TokenType, byte_value, read_vocab
from tests.emulated import n_random
from tests.gguf_builder import FLOAT32, INT32, STRING, UINT32, RawGGUF, kv, kv_array
from tests.tokenizer_reference import special_id, write_vocabulary

TOKENS = ["<unk>", "<s>", "</s>", "▁", "a", "<0x0A>"]
TYPES = [2, 3, 3, 1, 1, 6]


def read(path: Path) -> Tokenizer:
    return Tokenizer.from_gguf(path)


def test_other_models_are_refused(tmp_path: Path) -> None:
    """The message names the kind and those that iqrun knows."""
    with pytest.raises(TokenizerError, match=r"'bert'.*'llama'.*'gpt2'"):
        read(write_vocabulary(tmp_path / "v", "bert", TOKENS))


def test_file_without_vocabulary(tmp_path: Path) -> None:
    """The message names the missing key."""
    path = RawGGUF(kvs=[kv("general.architecture", STRING, "llama")]).write(tmp_path / "v")
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.model"):
        read(path)
    path = RawGGUF(kvs=[kv("tokenizer.ggml.model", STRING, "llama")]).write(tmp_path / "w")
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.tokens"):
        read(path)


def test_empty_vocabulary(tmp_path: Path) -> None:
    """No tokens, no tokenizer."""
    with pytest.raises(TokenizerError, match="empty"):
        read(write_vocabulary(tmp_path / "v", "llama", []))


@pytest.mark.parametrize("key", ["scores", "token_type"])
@pytest.mark.parametrize("change", [-1, 1])
def test_arrays_of_different_length_are_refused(tmp_path: Path, key: str, change: int) -> None:
    """One score and one type per token."""
    n = len(TOKENS) + change
    array = kv_array(f"tokenizer.ggml.{key}", *((FLOAT32, [0.0] * n) if key == "scores" else (INT32, [1] * n)))
    with pytest.raises(TokenizerError, match=rf"{key} has {n} elements"):
        read(write_vocabulary(tmp_path / "v", "llama", TOKENS, extra=[array]))


@pytest.mark.parametrize(
    "entry",
    [
        kv_array("tokenizer.ggml.scores", INT32, [0] * len(TOKENS)),
        kv_array("tokenizer.ggml.token_type", FLOAT32, [1.0] * len(TOKENS)),
        kv_array("tokenizer.ggml.merges", UINT32, [1]),
        kv("tokenizer.ggml.add_bos_token", UINT32, 1),
        kv("tokenizer.ggml.pre", UINT32, 1),
    ],
)
def test_wrong_element_types_are_refused(tmp_path: Path, entry: bytes) -> None:
    """Another type is another meaning: nothing is converted silently."""
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\."):
        read(write_vocabulary(tmp_path / "v", "llama", TOKENS, extra=[entry]))


def test_tokens_that_are_no_strings_are_refused(tmp_path: Path) -> None:
    """An array of numbers is no vocabulary."""
    kvs = [kv("tokenizer.ggml.model", STRING, "llama"), kv_array("tokenizer.ggml.tokens", INT32, [1, 2])]
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.tokens"):
        read(RawGGUF(kvs=kvs).write(tmp_path / "v"))


@pytest.mark.parametrize("value", [6, 4096, 2**32 - 1])
def test_special_ids_outside_are_ignored_with_a_warning(tmp_path: Path, value: int) -> None:
    """An id that points nowhere would read outside of the embedding."""
    tokenizer = read(write_vocabulary(tmp_path / "v", "llama", TOKENS, types=TYPES, extra=[special_id("eos", value)]))
    assert tokenizer.eos_id is None
    assert any("eos_token_id" in warning and str(value) in warning for warning in tokenizer.warnings)


def test_special_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    """A string is not an id."""
    with pytest.raises(TokenizerError, match="bos_token_id must be an integer"):
        read(write_vocabulary(tmp_path / "v", "llama", TOKENS, extra=[kv("tokenizer.ggml.bos_token_id", STRING, "1")]))


def test_default_ids_are_checked_too(tmp_path: Path) -> None:
    """SentencePiece's usual 0, 1, 2 hold only where such tokens are."""
    tokenizer = read(write_vocabulary(tmp_path / "v", "llama", ["a"], types=[1]))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)
    tokenizer = read(write_vocabulary(tmp_path / "w", "llama", TOKENS, types=TYPES))
    assert (1, 2, {2}) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.end_ids)


def test_token_types_out_of_range_are_normal_text(tmp_path: Path) -> None:
    """Recorded, not fatal."""
    path = write_vocabulary(tmp_path / "v", "llama", TOKENS, types=[2, 3, 3, 77, -5, 6])
    with GGUFFile(path) as file:
        vocab = read_vocab(file)
    assert bytes([2, 3, 3, TokenType.NORMAL, TokenType.NORMAL, 6]) == vocab.types
    assert any("2 tokens have an unknown type" in warning for warning in vocab.warnings)


def test_token_types_are_guessed_from_texts(tmp_path: Path) -> None:
    """Files without types still have bytes and controls."""
    with GGUFFile(write_vocabulary(tmp_path / "v", "llama", TOKENS)) as file:
        assert bytes(TYPES) == read_vocab(file).types


def test_scores_that_are_not_numbers_count_as_lowest(tmp_path: Path) -> None:
    """NaN has no order, and an unordered queue is undefined behaviour."""
    scores = [0.0, 0.0, 0.0, float("nan"), float("inf"), 0.0]
    with GGUFFile(write_vocabulary(tmp_path / "v", "llama", TOKENS, types=TYPES, scores=scores)) as file:
        vocab = read_vocab(file)
    assert not np.isnan(vocab.scores).any()
    assert any("not a number" in warning for warning in vocab.warnings)


def test_end_tokens_by_name(tmp_path: Path) -> None:
    """Marks that end a turn are found by name, if they are marks; normal text of that name is not one."""
    tokens = [*TOKENS, "<|im_end|>", "<|eot_id|>", "<end_of_turn>"]
    tokenizer = read(write_vocabulary(tmp_path / "v", "llama", tokens, types=[*TYPES, 3, 4, 1]))
    assert {2, 6, 7} == tokenizer.end_ids


def test_end_tokens_by_key(tmp_path: Path) -> None:
    """The file's own end of turn counts, whatever it is called."""
    extra = [special_id("eot", 4), special_id("eom", 3)]
    tokenizer = read(write_vocabulary(tmp_path / "v", "llama", TOKENS, types=TYPES, extra=extra))
    assert {2, 3, 4} == tokenizer.end_ids


def test_invalid_utf8_in_tokens_is_tolerated(tmp_path: Path) -> None:
    """Broken names do not break the file."""
    tokenizer = read(
        write_vocabulary(tmp_path / "v", "llama", [*TOKENS, b"\xff\xfe", b"\xff\xfd"], types=[*TYPES, 1, 1])
    )
    assert tokenizer.encode("a") == [1, 3, 4]


@pytest.mark.parametrize("token_id", [-1, 6, 10**12])
def test_ids_outside_are_refused(tmp_path: Path, token_id: int) -> None:
    """Decoding what is no token is an error that names it."""
    tokenizer = read(write_vocabulary(tmp_path / "v", "llama", TOKENS, types=TYPES))
    with pytest.raises(TokenizerError, match=str(token_id)):
        tokenizer.decode([token_id])
    with pytest.raises(TokenizerError, match=str(token_id)):
        tokenizer.token_text(token_id)


ODD = ["a", "b", "ab", "▁", "▁a", " ", "", "\0", "<0x61>", "<0x0a>", "<unk>", "</s>", "\ufffe", "\uffff0\uffff"]
TOKEN = st.tuples(st.sampled_from(ODD) | st.text(max_size=4), st.integers(-1, 7), st.floats(width=32))


@settings(deadline=None, max_examples=n_random(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.lists(TOKEN, min_size=1, max_size=40),
    merges=st.lists(st.sampled_from(["a b", "ab a", "a", "Ġ a", " ", "x y z"]), max_size=3),
    text=st.text("ab ▁<0x61>\n", max_size=20),
)
@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_any_vocabulary_works_or_is_refused(
    tmp_path: Path, model: str, tokens: list[tuple[str, int, float]], merges: list[str], text: str
) -> None:
    """Whatever a file holds, the answer is tokens or a TokenizerError."""
    texts, types, scores = (list(column) for column in zip(*tokens, strict=True))
    names = [text.encode("utf-8", "replace") for text in texts]
    path = write_vocabulary(tmp_path / "v", model, names, types=types, scores=scores, merges=merges, pre="gpt-2")
    try:
        tokenizer = read(path)
        ids = tokenizer.encode(text, parse_special=True)
    except TokenizerError:
        return
    assert all(0 <= i < tokenizer.n_vocab for i in ids)
    assert isinstance(tokenizer.decode(ids), str)


@pytest.mark.parametrize(
    ("text", "value"),
    [("<0x0A>", 10), ("<0xff>", 255), ("<0x1>", None), ("<0xGG>", None), ("<0x+1>", None), ("a", None)],
)
def test_byte_value(text: str, value: int | None) -> None:
    """Exactly two hexadecimal digits."""
    assert value == byte_value(text)
