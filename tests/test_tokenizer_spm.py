"""SentencePiece vocabularies: exact tokens, special tokens, round trips, odd vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.errors import TokenizerError
from iqrun.models.demo import model_path
from iqrun.tokenizer import Tokenizer
from tests.emulated import n_random
from tests.gguf_builder import BYTE, CONTROL, NORMAL, STRING, UNKNOWN, UNUSED, USER_DEFINED, kv, spm_vocabulary
from tests.tokenizer_reference import flag, sentencepiece, special_id, write_vocabulary

SHARED = Path(__file__).parents[1].parent / "shared" / "tokenizers"
SEPARATOR = "\n__ggml_vocab_test__\n"

# code points that text cannot keep: U+2581 is how the vocabulary writes a space
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40)


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    return Tokenizer.from_gguf(model_path())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A vocabulary of 400 pieces."""
    tokens, scores, types = spm_vocabulary(400)
    path = tmp_path_factory.mktemp("spm") / "small.gguf"
    extra = [special_id("unknown", 0), special_id("bos", 1), special_id("eos", 2)]
    return Tokenizer.from_gguf(write_vocabulary(path, "llama", tokens, types=types, scores=scores, extra=extra))


def cases(name: str) -> list[tuple[str, list[int]]]:
    """The texts and tokens that belong to a vocabulary of the shared folder."""
    texts = (SHARED / f"{name}.gguf.inp").read_bytes().decode("utf-8").split(SEPARATOR)
    lines = (SHARED / f"{name}.gguf.out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=False)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the whole vocabularies are not here")
@pytest.mark.parametrize("name", ["ggml-vocab-llama-spm", "ggml-vocab-phi-3"])
def test_tokens_of_whole_vocabularies_are_exact(name: str) -> None:
    """Every case gives exactly the reference's tokens, and decodes to its text."""
    tokenizer = Tokenizer.from_gguf(SHARED / f"{name}.gguf")
    found = [(text, tokenizer.encode(text, add_special=False)) for text, _ in cases(name)]
    assert len(found) >= 40
    assert cases(name) == found
    assert [text for text, _ in found] == [tokenizer.decode(ids) for _, ids in found]


@settings(max_examples=n_random(100), deadline=None)
@given(text=TEXT | st.text("catdogfox the.in\n", max_size=60))
def test_tokens_equal_the_textbook(small: Tokenizer, text: str) -> None:
    """Merging the best pair again and again, by hand, gives the same pieces."""
    tokens, scores, types = spm_vocabulary(400)
    normal = {t: s for t, s, kind in zip(tokens, scores, types, strict=True) if kind == NORMAL}
    expected = sentencepiece(f" {text}", normal) if text else []
    assert expected == [small.token_text(i) for i in small.encode(text, add_special=False)]


@settings(max_examples=n_random(100), deadline=None)
@given(text=TEXT)
def test_decoding_inverts_encoding(demo: Tokenizer, text: str) -> None:
    """Any text comes back, leading spaces included."""
    assert text == demo.decode(demo.encode(text, add_special=False))


@settings(max_examples=n_random(100), deadline=None)
@given(parts=st.lists(st.sampled_from(["<|user|>", "<|end|>", "<|assistant|>", "Hi", " there", "\n", "ß"]), max_size=8))
def test_decoding_inverts_encoding_with_special_tokens(demo: Tokenizer, parts: list[str]) -> None:
    """Special tokens show as their text; the space put behind each of them is taken back."""
    text = "".join(parts)
    assert text == demo.decode(demo.encode(text, add_special=False, parse_special=True))


def test_known_tokens_of_the_demo_model(demo: Tokenizer) -> None:
    """A fixed example: BOS first, a space in front, whole words."""
    ids = demo.encode("Once upon a time")
    assert [demo.token_text(i) for i in ids] == ["<s>", "▁Once", "▁upon", "▁a", "▁time"]
    assert (demo.n_vocab, demo.bos_id, demo.eos_id, demo.add_bos) == (4096, 1, 5, True)
    assert {demo.token_id("<|end|>"), demo.token_id("</s>")} == demo.end_ids


def test_special_texts_are_text_unless_asked_for(demo: Tokenizer) -> None:
    """`parse_special` decides whether ``<|end|>`` is a token."""
    assert demo.token_id("<|end|>") not in demo.encode("a<|end|>b")
    assert [demo.token_id("<|end|>")] == demo.encode("<|end|>", add_special=False, parse_special=True)


def test_white_space_is_kept(demo: Tokenizer) -> None:
    """Nothing is collapsed, trimmed or normalized."""
    for text in ("  a   b  ", "\t\n", "ﬁ ① Å", "a\u00a0b", "\ufeffx", "x\r\ny", "\0\0"):
        assert text == demo.decode(demo.encode(text, add_special=False))


def test_token_bytes(demo: Tokenizer) -> None:
    """Pieces are their bytes with spaces; byte tokens are one byte; special tokens are their text."""
    newline = demo.token_id("<0x0A>")
    once = demo.token_id("▁Once")
    assert newline is not None and once is not None
    assert (demo.token_bytes(newline), demo.token_bytes(once), demo.token_bytes(1)) == (b"\n", b" Once", b"<s>")


def test_lone_surrogates_become_replacement_characters(demo: Tokenizer) -> None:
    """UTF-8 cannot write them; a pair of them is the character it stands for."""
    assert demo.encode("a\ufffdb") == demo.encode("a\ud800b")
    assert demo.encode("😀") == demo.encode("\ud83d\ude00")


def test_every_code_point_survives(demo: Tokenizer) -> None:
    """A seventh of Unicode in one text."""
    text = "".join(chr(c) for c in range(0, 0x110000, 7) if not 0xD800 <= c < 0xE000 and c != 0x2581)
    assert text == demo.decode(demo.encode(text, add_special=False))


@pytest.mark.parametrize("unit", ["a", " ", "\n", "cat ", "😀"])
def test_long_texts_take_linear_time(demo: Tokenizer, unit: str) -> None:
    """Two hundred thousand characters are no problem, whatever they are."""
    text = unit * (200_000 // len(unit))
    assert text == demo.decode(demo.encode(text, add_special=False))


# ---- odd vocabularies ----


def build(
    path: Path, tokens: list[str], types: list[int], scores: list[float] | None = None, *extra: bytes
) -> Tokenizer:
    return Tokenizer.from_gguf(write_vocabulary(path, "llama", tokens, types=types, scores=scores, extra=extra))


def test_duplicate_tokens_use_the_first(tmp_path: Path) -> None:
    """Real files have them; the library behind refuses them."""
    tokenizer = build(tmp_path / "v.gguf", ["<unk>", "a", "b", "a", "", ""], [UNKNOWN] + [NORMAL] * 5, None)
    assert tokenizer.encode("ab", add_special=False)[-2:] == [1, 2]
    assert tokenizer.decode([2]) == "b"
    assert tokenizer.decode([1, 3]) == "aa"


def test_equal_scores_merge_from_the_left(tmp_path: Path) -> None:
    """Files without scores have ties everywhere."""
    names = ["<unk>", "▁", "a", "aa"]
    tokenizer = build(
        tmp_path / "v.gguf", names, [UNKNOWN, NORMAL, NORMAL, NORMAL], None, flag("add_space_prefix", False)
    )
    assert tokenizer.encode("aaaaa", add_special=False) == [3, 3, 2]


def test_what_cannot_be_written_is_unknown(tmp_path: Path) -> None:
    """Without byte tokens, letters outside the vocabulary become the unknown token."""
    tokenizer = build(tmp_path / "v.gguf", ["<unk>", "▁", "a"], [UNKNOWN, NORMAL, NORMAL])
    assert {0, 1, 2} == set(tokenizer.encode("aé", add_special=False))


def test_without_unknown_token_it_is_an_error(tmp_path: Path) -> None:
    """There is nothing to put in its place."""
    tokenizer = build(tmp_path / "v.gguf", ["▁", "a"], [NORMAL, NORMAL])
    assert tokenizer.encode("a", add_special=False) == [0, 1]
    with pytest.raises(TokenizerError, match="no unknown token"):
        tokenizer.encode("é", add_special=False)


def test_some_bytes_are_used_where_they_exist(tmp_path: Path) -> None:
    """A vocabulary with a part of the byte tokens uses those."""
    tokenizer = build(
        tmp_path / "v.gguf", ["<unk>", "▁", "<0xC3>", "<0xA9>", "<0xZZ>"], [UNKNOWN, NORMAL, BYTE, BYTE, BYTE]
    )
    assert tokenizer.encode("é", add_special=False) == [1, 2, 3]
    assert tokenizer.decode([2, 3]) == "é"


def test_user_defined_tokens_are_always_found(tmp_path: Path) -> None:
    """They are text of the model's own, longest first; unused tokens are never made."""
    names = ["<unk>", "▁", "a", "b", "ab", "aba", "bb"]
    types = [UNKNOWN, NORMAL, NORMAL, NORMAL, USER_DEFINED, USER_DEFINED, UNUSED]
    tokenizer = build(tmp_path / "v.gguf", names, types, None, flag("add_space_prefix", False))
    assert tokenizer.encode("ababab"[:4] + "abbb", add_special=False) == [5, 3, 4, 3, 3]


def test_special_ids_and_flags(tmp_path: Path) -> None:
    """BOS and EOS are added as the file says; missing keys mean SentencePiece's usual tokens."""
    names, types = ["<unk>", "<s>", "</s>", "▁", "a"], [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL]
    usual = build(tmp_path / "a.gguf", names, types)
    assert usual.encode("a") == [1, 3, 4]
    both = build(tmp_path / "b.gguf", names, types, None, flag("add_eos_token", True), flag("add_space_prefix", False))
    assert both.encode("a") == [1, 4, 2]
    none = build(tmp_path / "c.gguf", names, types, None, flag("add_bos_token", False))
    assert none.encode("a") == [3, 4]


def test_as_plain_breaks_up_marks_declared_as_text(tmp_path: Path) -> None:
    """Some converters declare ends of turn as user-defined text; words of the model's own stay whole."""
    names = ["<unk>", "▁", "<|im_end|>", "</s>", "<b>", "a"]
    types = [UNKNOWN, NORMAL, USER_DEFINED, USER_DEFINED, USER_DEFINED, NORMAL]
    tokenizer = build(tmp_path / "v.gguf", names, types)
    text = tokenizer.as_plain("<|im_end|></s><b>a")
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    assert not {2, 3} & set(ids) and 4 in ids


def test_phi3_marks_swallow_white_space(tmp_path: Path) -> None:
    """Phi-3's special tokens take the white space behind them along."""
    names, types = ["<unk>", "<s>", "</s>", "▁", "a", "<|user|>"], [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, CONTROL]
    kinds = {}
    for arch in ("phi3", "llama"):
        path = tmp_path / f"{arch}.gguf"
        path.write_bytes(
            write_vocabulary(path, "llama", names, types=types)
            .read_bytes()
            .replace(kv("general.architecture", STRING, "llama"), kv("general.architecture", STRING, arch))
        )
        kinds[arch] = Tokenizer.from_gguf(path).encode("<|user|>\n a", add_special=False, parse_special=True)
    assert kinds["phi3"] == [5, 3, 4]
    assert kinds["llama"] != kinds["phi3"]


@settings(max_examples=n_random(100), deadline=None)
@given(text=st.lists(st.sampled_from(["<|end|>", "<|", "end|>", "<s>", "<", "<|end|", "x"]), max_size=8).map("".join))
def test_as_plain_text_ends_no_turn(demo: Tokenizer, text: str) -> None:
    """What others wrote cannot become a special token, and is otherwise unchanged."""
    ids = demo.encode(demo.as_plain(text), add_special=False, parse_special=True)
    assert not any(demo.is_special(i) for i in ids)
    assert text == demo.decode(ids)
