"""`Tokenizer`: what all kinds have in common. Special tokens, BOS and EOS, and the way back to text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from os import PathLike

from iqrun.errors import TokenizerError, shown
from iqrun.gguf.reader import GGUFFile
from iqrun.tokenizer.exit_gate import gate
from iqrun.tokenizer.special import PLAIN_MARK, SpecialSplitter
from iqrun.tokenizer.streaming import StreamDecoder
from iqrun.tokenizer.vocab import TokenType, Vocab, read_vocab

MODELS = {"llama": "SentencePiece BPE", "gpt2": "byte-level BPE"}


class Tokenizer(ABC):
    """Text to token ids and back, by the vocabulary of a GGUF file. Safe to use from several threads.

    Example:
        >>> tokenizer = Tokenizer.from_gguf("model.gguf")
        >>> tokenizer.decode(tokenizer.encode("Hello world", add_special=False))
        'Hello world'
    """

    adds_space = False  # whether encoding puts a space in front of each text

    def __init__(self, vocab: Vocab) -> None:
        """Takes a checked vocabulary; use `from_gguf` to read one."""
        self._vocab = vocab
        self._bytes: dict[int, bytes] = {}
        self.add_bos = bool(vocab.add_bos)
        self.add_eos = bool(vocab.add_eos)

    @staticmethod
    def from_gguf(file: str | PathLike[str] | GGUFFile) -> Tokenizer:
        """Reads the tokenizer of a GGUF file (a model, or a vocabulary alone).

        Args:
            file: a path, or a file that is open already (it may be closed afterwards).

        Raises:
            GGUFError: the file is malformed.
            TokenizerError: the vocabulary is missing, inconsistent, or of a kind that iqrun does not know.
        """
        if not isinstance(file, GGUFFile):
            with GGUFFile(file) as opened:
                return Tokenizer.from_gguf(opened)
        vocab = read_vocab(file)
        if vocab.model == "llama":
            from iqrun.tokenizer.spm import SentencePieceTokenizer

            return SentencePieceTokenizer(vocab)
        if vocab.model == "gpt2":
            from iqrun.tokenizer.bpe import BPETokenizer

            return BPETokenizer(vocab)
        known = ", ".join(f"{name!r} ({what})" for name, what in MODELS.items())
        raise TokenizerError(f"{file.path}: tokenizer model {shown(vocab.model)} is not supported; iqrun knows {known}")

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        return len(self._vocab.texts)

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the model has one."""
        return self._vocab.bos_id

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, if the model has one."""
        return self._vocab.eos_id

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: end of text, of turn, of message."""
        return self._vocab.end_ids

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the vocabulary and left out."""
        return tuple(self._vocab.warnings)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The tokens of a text.

        Args:
            text: any string; lone surrogates count as U+FFFD.
            add_special: put BOS in front (and EOS behind) if the model wants it.
            parse_special: read the texts of control tokens, such as ``<|end|>``, as those tokens. Leave it off for
                text that others wrote: they could end the turn and speak in another role.

        Raises:
            TokenizerError: a character cannot be written with this vocabulary, and there is no unknown token.
        """
        ids = [self.bos_id] if add_special and self.add_bos and self.bos_id is not None else []
        splitter = self._all_special if parse_special else self._user_defined
        for part in splitter.split(_well_formed(text)):
            if isinstance(part, int):
                ids.append(part)
            else:
                plain = part.replace(PLAIN_MARK, "") if parse_special else part
                with gate:
                    found = self._encode_text(plain)
                ids.extend(self._known(found))
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def as_plain(self, text: str) -> str:
        """A text that `encode` reads as plain text even with `parse_special`.

        Put what others wrote through this before it goes into a prompt with special tokens: else a message that spells
        ``<|end|>`` ends the turn and speaks in another role. The result carries an invisible mark (U+FDD0) inside each
        such text; `encode` with `parse_special` takes it out again.
        """
        return self._marks.break_up(text)

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of tokens; invalid UTF-8 becomes U+FFFD. The inverse of `encode`.

        Args:
            ids: token ids.
            skip_special: leave out special tokens instead of showing their text.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        stream = StreamDecoder(self, at_start=True, skip_special=skip_special)
        return "".join([stream.feed(token_id) for token_id in ids]) + stream.flush()

    def stream_decoder(self, *, at_start: bool = False, skip_special: bool = False) -> StreamDecoder:
        """A decoder for tokens that come one by one; see `StreamDecoder`."""
        return StreamDecoder(self, at_start=at_start, skip_special=skip_special)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; special tokens stand for their text.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        found = self._bytes.get(token_id)
        if found is None:
            self._check(token_id)
            text = self._vocab.texts[token_id]
            found = text.encode("utf-8") if self.is_special(token_id) else self._text_bytes(token_id, text)
            self._bytes[token_id] = found
        return found

    def token_text(self, token_id: int) -> str:
        """The token as the vocabulary writes it, e.g. ``▁the``, ``Ġthe`` or ``<0x0A>``."""
        self._check(token_id)
        return self._vocab.texts[token_id]

    def token_id(self, text: str) -> int | None:
        """The id of a token, by its text as the vocabulary writes it; None if there is none."""
        return self._vocab.ids.get(text)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is a mark rather than text: a control or an unknown token."""
        return token_id in self._special_ids

    @abstractmethod
    def _encode_text(self, text: str) -> list[int]:
        """Tokens of a text without special tokens; ids from `n_vocab` on stand for what cannot be written."""

    @abstractmethod
    def _text_bytes(self, token_id: int, text: str) -> bytes:
        """The bytes of a token that is not special."""

    @property
    def _strip_after_special(self) -> bool:
        return False

    @cached_property
    def _user_defined(self) -> SpecialSplitter:
        """User-defined tokens are part of ordinary text: they are found always."""
        return self._splitter(TokenType.USER_DEFINED)

    @cached_property
    def _all_special(self) -> SpecialSplitter:
        return self._splitter(TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)

    @cached_property
    def _marks(self) -> SpecialSplitter:
        """What must not come from a message: also marks that a careless converter declared as user-defined text."""
        texts = self._vocab.texts
        declared = self._vocab.ids_of_type(TokenType.USER_DEFINED)
        careless = [i for i in declared if i in self.end_ids or (texts[i].startswith("<|") and texts[i].endswith("|>"))]
        return SpecialSplitter({texts[i]: i for i in [*self._special_ids, *careless]})

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self._vocab.ids_of_type(TokenType.CONTROL, TokenType.UNKNOWN))

    def _splitter(self, *types: TokenType) -> SpecialSplitter:
        found = reversed(self._vocab.ids_of_type(*types))  # the first of two equal texts wins
        ids = {self._vocab.texts[token_id]: token_id for token_id in found}
        return SpecialSplitter(ids, strip_after=self._strip_after_special)

    def _known(self, ids: list[int]) -> list[int]:
        """Replaces what cannot be written by the unknown token."""
        if not ids or max(ids) < self.n_vocab:
            return ids
        unknown = self._vocab.unk_id
        if unknown is None:
            raise TokenizerError("the vocabulary has no tokens for some bytes of this text, and no unknown token")
        return [token_id if token_id < self.n_vocab else unknown for token_id in ids]

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.n_vocab:
            raise TokenizerError(f"token {token_id} is not in the vocabulary (0 to {self.n_vocab - 1})")


def _well_formed(text: str) -> str:
    """The text with pairs of surrogates joined and lone ones replaced: UTF-8 can write neither."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
