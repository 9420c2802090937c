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
from functools import cache, cached_property
from typing import Any

from iqrun.errors import TokenizerError
from iqrun.tokenizer.base import Tokenizer
from iqrun.tokenizer.vocab import TokenType, Vocab, byte_value

SPACE = "\u2581"  # how the vocabulary writes a space
_MODEL_TYPE_BPE = 2
_SCORE_AND_TYPE = struct.Struct("<BfBB")
_NORMAL = int(TokenType.NORMAL)
_SHORT = 0x7F - 2 - _SCORE_AND_TYPE.size  # bytes of a text in a piece whose length is one byte
_HEADS = [bytes((0x0A, size + 2 + _SCORE_AND_TYPE.size, 0x0A, size)) for size in range(_SHORT + 1)]


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
    encoded, present = _encoded_pieces(vocab)
    encoded.extend(_byte_piece(byte) for byte in sorted(set(range(256)) - present))
    if vocab.types.find(TokenType.UNKNOWN) < 0:
        encoded.append(_piece(_placeholder(len(encoded)), 0.0, TokenType.UNKNOWN))
    trainer = _varint_field(3, _MODEL_TYPE_BPE) + _varint_field(35, 1)
    normalizer = _bytes_field(1, b"identity") + _varint_field(3, 0) + _varint_field(4, 0) + _varint_field(5, 1)
    return b"".join(encoded) + _bytes_field(2, trainer) + _bytes_field(3, normalizer)


def _encoded_pieces(vocab: Vocab) -> tuple[list[bytes], set[int]]:
    """Each piece such that the library accepts it (unique, one unknown, true bytes), and the bytes that are there.

    Start-up waits for this loop over the vocabulary: what most pieces are has a short way.
    """
    seen: set[str] = set()
    present: set[int] = set()
    encoded: list[bytes] = []
    unknown = vocab.types.find(TokenType.UNKNOWN)
    pieces = zip(vocab.texts, vocab.scores.tolist(), vocab.types, strict=True)
    for index, (stored, score, declared) in enumerate(pieces):
        text, kind = stored, declared
        if declared != _NORMAL or not stored or stored in seen or "\0" in stored or stored.startswith("<0x"):
            text, kind = _accepted(stored, declared, index, seen, unknown)
            if kind == TokenType.BYTE:
                present.add(int(text[3:5], 16))
        seen.add(text)
        encoded.append(_piece(text, score, kind))
    return encoded, present


def _accepted(stored: str, declared: int, index: int, seen: set[str], unknown: int) -> tuple[str, int]:
    """Text and type of a piece that may be unusual."""
    value = byte_value(stored)
    text = stored if value is None else f"<0x{value:02X}>"
    no_byte = (declared == TokenType.BYTE) != (value is not None)
    second_unknown = declared == TokenType.UNKNOWN and index != unknown
    unusable = not text or text in seen or no_byte or "\0" in text
    if unusable:
        text = _placeholder(index)
    found_before = declared == TokenType.USER_DEFINED and SPACE not in text  # by the splitter, in the raw text
    if second_unknown or found_before or (unusable and index != unknown):
        return text, TokenType.CONTROL
    return text, declared


def _placeholder(index: int) -> str:
    """A name that no text can spell, for a token that no text may become."""
    return f"\uffff{index}\uffff"


@cache
def _byte_piece(byte: int) -> bytes:
    return _piece(f"<0x{byte:02X}>", 0.0, TokenType.BYTE)


def _piece(text: str, score: float, kind: int) -> bytes:
    """One of the model's pieces. A vocabulary has many, so what stands before and behind a short text is packed."""
    data = text.encode("utf-8")
    score_and_type = _SCORE_AND_TYPE.pack(0x15, score, 0x18, kind)
    if len(data) <= _SHORT:
        return _HEADS[len(data)] + data + score_and_type
    return _bytes_field(1, _bytes_field(1, data) + score_and_type)


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
