"""Byte-level BPE for the first short texts: the merges looked up in the file as it is, no tables built.

The tokenizers library reads all merges into tables before its first text: half a second with a vocabulary of 128,000
tokens, which is most of the time to the first token of a small model. This encodes some hundred words in less.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from iqrun.gguf import StringArray
from iqrun.tokenizer.string_index import StringIndex
from iqrun.tokenizer.vocab import TokenType, Vocab

MIN_MERGES = 20_000  # with fewer the library is ready at once
MAX_LETTERS = 8192  # encoded here in all; who has more to encode is better served by the library
MAX_PIECE = 64  # letters of a piece: each merge looks at all of them again

_NEVER = 1 << 62


class Merger:
    """Puts pieces of text, written in byte letters, together from the vocabulary's tokens."""

    def __init__(self, vocab: Vocab, merges: StringArray, texts: StringArray, *, whole_words: bool) -> None:
        self._tokens, self._merges = StringIndex(texts), StringIndex(merges)
        self._types = vocab.types
        self._whole_words = whole_words
        self._ranks: dict[tuple[str, str], int] = {}
        self._ids: dict[str, int | None] = {}
        self._left = MAX_LETTERS

    @classmethod
    def of(cls, vocab: Vocab, *, whole_words: bool) -> Merger | None:
        """For a vocabulary that the library takes long to read, whose merges are pairs that are quickly found; else
        None.
        """
        merges, texts = vocab.merges, vocab.texts
        if not (isinstance(merges, StringArray) and isinstance(texts, StringArray)) or len(merges) < MIN_MERGES:
            return None
        if not _are_pairs(merges):
            return None
        made = cls(vocab, merges, texts, whole_words=whole_words)
        return None if made._tokens.is_slow or made._merges.is_slow else made

    def takes(self, pieces: Sequence[str]) -> bool:
        """Whether these are few and short enough; they count as taken."""
        n_letters = sum(map(len, pieces))
        if n_letters > self._left or max(map(len, pieces), default=0) > MAX_PIECE:
            return False
        self._left -= n_letters
        return True

    def tokens(self, piece: str) -> list[tuple[str, int | None]]:
        """The tokens of a piece: text and id, or None for a letter that has no token."""
        if self._whole_words and (whole := self._id(piece)) is not None:
            return [(piece, whole)]
        parts = list(piece)
        while len(parts) > 1:
            ranks = [self._rank(a, b) for a, b in pairwise(parts)]
            best = min(ranks)
            if best == _NEVER:
                break
            at = ranks.index(best)  # the leftmost
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [(part, self._id(part)) for part in parts]

    def _rank(self, a: str, b: str) -> int:
        """The place of a merge in the list: the lower, the sooner."""
        found = self._ranks.get((a, b))
        if found is None:
            places = self._merges.find(f"{a} {b}".encode())
            found = places[-1] if places and self._id(a + b) is not None else _NEVER
            self._ranks[a, b] = found
        return found

    def _id(self, text: str) -> int | None:
        """The token with a text, unless it is a mark."""
        if text not in self._ids:
            places = self._tokens.find(text.encode())
            special = not places or self._types[places[0]] in (TokenType.CONTROL, TokenType.UNKNOWN)
            self._ids[text] = None if special else places[0]
        return self._ids[text]


def _are_pairs(merges: StringArray) -> bool:
    """Whether every merge has a space in it."""
    blob, begins, ends = merges.bounds()
    if (begins == ends).any():
        return False
    bounds = np.stack([begins, ends], axis=1).astype(np.intp).reshape(-1)[:-1]  # between strings, too: dropped below
    return bool(np.logical_or.reduceat(blob == ord(" "), bounds)[::2].all())
