"""SentencePiece BPE (``tokenizer.ggml.model = llama``): the GGUF vocabulary, given to the sentencepiece library.

The library reads a model as a protocol buffer, so one is written here from the file's tokens. Only a few fields are
needed (sentencepiece_model.proto)::

    ModelProto      1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
    SentencePiece   1 piece (text)        2 score (float)  3 type
    TrainerSpec     3 model_type          35 byte_fallback
    NormalizerSpec  1 name                3 add_dummy_prefix  4 remove_extra_whitespaces  5 escape_whitespaces
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

from iqrun.errors import TokenizerError
from iqrun.tokenizer.base import Tokenizer
from iqrun.tokenizer.vocab import TokenType, Vocab, byte_value

SPACE = "\u2581"  # how the vocabulary writes a space
_MODEL_TYPE_BPE = 2
_SCORE_AND_TYPE = struct.Struct("<BfBB")


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece BPE with byte fallback."""

    def __init__(self, vocab: Vocab) -> None:
        super().__init__(vocab)
        self.add_bos = vocab.add_bos is not False
        self.adds_space = vocab.add_space_prefix is not False

    @cached_property
    def _processor(self) -> Any:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model_proto(self._vocab))
        except RuntimeError as error:
            raise TokenizerError(f"sentencepiece cannot use this vocabulary: {error}") from error
        return processor

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self._processor.EncodeAsIds(f" {text}" if self.adds_space else text)
        return ids

    def _text_bytes(self, token_id: int, text: str) -> bytes:
        if self._vocab.types[token_id] == TokenType.BYTE:
            value = byte_value(text)
            if value is not None:
                return bytes([value])
        return text.replace(SPACE, " ").encode("utf-8")

    @property
    def _strip_after_special(self) -> bool:
        """Phi-3's special tokens swallow the white space behind them; a GGUF file has no key that would say so."""
        return self._vocab.architecture == "phi3"


def model_proto(vocab: Vocab) -> bytes:
    """The vocabulary as a serialized sentencepiece ModelProto.

    The library wants one unknown piece and all 256 bytes. What is missing is appended behind the vocabulary: an id
    from there means that the text cannot be written with this vocabulary.
    """
    pieces = list(_pieces(vocab))
    encoded = [_piece(*piece) for piece in pieces]
    encoded.extend(_byte_piece(byte) for byte in sorted(_missing_bytes(pieces)))
    if not any(kind == TokenType.UNKNOWN for _, _, kind in pieces):
        encoded.append(_piece(_placeholder(len(encoded)), 0.0, TokenType.UNKNOWN))
    trainer = _varint_field(3, _MODEL_TYPE_BPE) + _varint_field(35, 1)
    normalizer = _bytes_field(1, b"identity") + _varint_field(3, 0) + _varint_field(4, 0) + _varint_field(5, 1)
    return b"".join(encoded) + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def _pieces(vocab: Vocab) -> Iterator[tuple[str, float, int]]:
    """Text, score and type of each piece, such that the library accepts them: unique, one unknown, true bytes."""
    seen: set[str] = set()
    unknown = vocab.types.find(TokenType.UNKNOWN)
    for index, (stored, score, declared) in enumerate(
        zip(vocab.texts, vocab.scores.tolist(), vocab.types, strict=True)
    ):
        value = byte_value(stored)
        text = stored if value is None else f"<0x{value:02X}>"
        kind = declared
        no_byte = (declared == TokenType.BYTE) != (value is not None)
        second_unknown = declared == TokenType.UNKNOWN and index != unknown
        unusable = not text or text in seen or no_byte or "\0" in text
        if unusable:
            text = _placeholder(index)
        found_before = declared == TokenType.USER_DEFINED and SPACE not in text  # by the splitter, in the raw text
        if second_unknown or found_before or (unusable and index != unknown):
            kind = TokenType.CONTROL
        seen.add(text)
        yield text, score, kind


def _placeholder(index: int) -> str:
    """A name that no text can spell, for a token that no text may become."""
    return f"\uffff{index}\uffff"


def _missing_bytes(pieces: list[tuple[str, float, int]]) -> set[int]:
    present = {byte_value(text) for text, _, kind in pieces if kind == TokenType.BYTE}
    return set(range(256)) - present


@cache
def _byte_piece(byte: int) -> bytes:
    return _piece(f"<0x{byte:02X}>", 0.0, TokenType.BYTE)


def _piece(text: str, score: float, kind: int) -> bytes:
    """One of the model's pieces. A vocabulary has many, so the tags of score and type are packed with them."""
    piece = _bytes_field(1, text.encode("utf-8")) + _SCORE_AND_TYPE.pack(0x15, score, 0x18, kind)
    return _bytes_field(1, piece)


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the high bit says that more follow."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data
