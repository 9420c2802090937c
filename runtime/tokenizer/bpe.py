"""Byte-level BPE (``tokenizer.ggml.model = gpt2``): the GGUF vocabulary, given to the tokenizers library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from iqrun.errors import TokenizerError
from iqrun.tokenizer.base import Tokenizer
from iqrun.tokenizer.merging import MAX_LETTERS, Merger
from iqrun.tokenizer.pretokenizers import PreTokenizer, find_pretokenizer
from iqrun.tokenizer.vocab import TokenType, Vocab


def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for the letters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


BYTE_OF_LETTER = _byte_letters()

# The library's regular expressions panic on a run of some ten million characters.
MAX_CHUNK = 500_000
# Where every family's pre-tokenizer splits: before a space between two letters, and between a line end and a letter.
_ALWAYS_SPLIT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\n)(?=[^\W\d_])")


class BPETokenizer(Tokenizer):
    """Byte-level BPE behind a pre-tokenizer that splits text by regular expressions."""

    def __init__(self, vocab: Vocab) -> None:
        super().__init__(vocab)
        self._rules = find_pretokenizer(vocab.pre)
        if vocab.pre is None:
            vocab.warnings.append("the file names no pre-tokenizer; 'default' is used, text may be split differently")
        self.add_bos = self._rules.add_bos if vocab.add_bos is None else vocab.add_bos

    @cached_property
    def _encoder(self) -> Any:
        """The library's tokenizer. Built when `_merger` does not do: it takes longer than all the rest of loading."""
        import tokenizers

        encoder = tokenizers.Tokenizer(_bpe_model(self._vocab, self._rules))
        encoder.pre_tokenizer = self._splitting
        return encoder

    @cached_property
    def _splitting(self) -> Any:
        return _pre_tokenizer(self._rules)

    @cached_property
    def _merger(self) -> Merger | None:
        return Merger.of(self._vocab, whole_words=self._rules.whole_words)

    def _encode_text(self, text: str) -> list[int]:
        if len(text) <= MAX_CHUNK:
            return self._encode_chunk(text)
        return [token_id for chunk in _chunks(text) for token_id in self._encode_chunk(chunk)]

    def _encode_chunk(self, text: str) -> list[int]:
        if "_encoder" not in self.__dict__ and len(text) <= MAX_LETTERS and self._merger is not None:
            pieces = [piece for piece, _ in self._splitting.pre_tokenize_str(text)]
            if self._merger.takes(pieces):
                return self._merged(self._merger, pieces)
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def _merged(self, merger: Merger, pieces: Sequence[str]) -> list[int]:
        """As the library does it; letters without a token get ids behind the vocabulary."""
        found = [token for piece in pieces for token in merger.tokens(piece)]
        return [self.n_vocab + BYTE_OF_LETTER[text] if i is None else i for text, i in found]

    def _text_bytes(self, token_id: int, text: str) -> bytes:
        if self._vocab.types[token_id] == TokenType.USER_DEFINED:  # stored as it is, not in byte letters
            return text.encode("utf-8")
        values = [BYTE_OF_LETTER.get(letter) for letter in text]
        if None not in values:
            return bytes(value for value in values if value is not None)
        return b"".join(
            letter.encode("utf-8") if value is None else bytes([value])
            for letter, value in zip(text, values, strict=True)
        )


def _chunks(text: str) -> Iterator[str]:
    """Pieces of a long text that have the same tokens alone as together.

    A run of more than `MAX_CHUNK` characters without a place to split is cut anyway: there the tokens may differ.
    """
    start = 0
    while len(text) - start > MAX_CHUNK:
        end = start + MAX_CHUNK
        places = [match.start() for match in _ALWAYS_SPLIT.finditer(text, start + 1, end)]
        end = places[-1] if places else end
        yield text[start:end]
        start = end
    yield text[start:]


def _bpe_model(vocab: Vocab, rules: PreTokenizer) -> Any:
    """The merges over the vocabulary's ordinary tokens.

    Bytes that have no token are appended behind the vocabulary: the library would drop them silently.
    """
    from tokenizers.models import BPE

    ids = dict(vocab.ids)
    for token_id in vocab.ids_of_type(TokenType.CONTROL, TokenType.UNKNOWN):
        if ids.get(vocab.texts[token_id]) == token_id:
            del ids[vocab.texts[token_id]]
    for letter in BYTE_OF_LETTER:
        ids.setdefault(letter, len(vocab.texts) + BYTE_OF_LETTER[letter])
    stored = list(vocab.merges)
    merges = _read_merges(stored)
    # The library's cache of words outlives its tokenizer (1.5 KB of each stay behind), and gains less than a tenth.
    options = {"ignore_merges": rules.whole_words, "cache_capacity": 0}
    if not _make_long_tokens(stored, ids):
        with suppress(Exception):  # the library's only kind of error: a merge names a token that does not exist
            return BPE(ids, merges, **options)
    usable = [(a, b) for a, b in merges if a in ids and b in ids and a + b in ids]
    vocab.warnings.append(f"{len(merges) - len(usable)} merges name tokens that do not exist; ignored")
    return BPE(ids, usable, **options)


def _make_long_tokens(stored: Sequence[str], ids: Mapping[str, int]) -> bool:
    """Whether a merge makes a token longer than any in the vocabulary: the library panics where it should refuse."""
    longest = max(len(text.encode("utf-8")) for text in ids)
    return any(len(pair.encode("utf-8")) - 1 > longest for pair in stored if 4 * len(pair) > longest)


def _read_merges(stored: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of token texts. Byte letters contain no space, so the first space is the separator.

    Raises:
        TokenizerError: an entry is not a pair.
    """
    merges = [tuple(pair.split(" ", 1)) for pair in stored]
    if any(len(pair) != 2 for pair in merges):
        index = next(i for i, pair in enumerate(merges) if len(pair) != 2)
        raise TokenizerError(f"tokenizer.ggml.merges[{index}] is not two tokens with a space between them")
    return merges  # type: ignore[return-value]  # the length of each was just checked


def _pre_tokenizer(rules: PreTokenizer) -> Any:
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, to_letters])
