"""The vocabulary stored in a GGUF file, read and checked.

What would make encoding wrong is refused; what can be left out (a special id that points nowhere, a duplicate piece)
is left out and recorded in `Vocab.warnings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from iqrun.errors import TokenizerError
from iqrun.gguf import keys
from iqrun.gguf.reader import GGUFFile

# Texts of tokens that end an answer. Files name one eos id, while chat models end a turn with another token.
END_TEXTS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|EOT|>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
)


class TokenType(IntEnum):
    """What a token is: the numbers of SentencePiece, which GGUF took over."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocab:
    """Tokens and what the file says about them; the position of a token is its id.

    Attributes:
        model: the kind of tokenizer, e.g. ``llama`` or ``gpt2``.
        pre: the name of the pre-tokenizer, if the file gives one.
        architecture: of the model that the file holds, or "".
        texts: each token as stored (SentencePiece writes a space as U+2581, byte-level BPE maps bytes to letters).
        types: the `TokenType` of each token, one byte each.
        scores: float32, one per token (zeros where the file has none).
        merges: pairs of texts joined by a space, most important first (BPE only).
        bos_id, eos_id, unk_id: special tokens, None where there is none.
        end_ids: tokens that end an answer.
        add_bos, add_eos, add_space_prefix: how the file wants text to be encoded; None where it says nothing.
        warnings: what was wrong with the file and left out.
    """

    model: str
    pre: str | None
    architecture: str
    texts: Sequence[str]
    types: bytes
    scores: npt.NDArray[np.float32]
    merges: Sequence[str]
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    end_ids: frozenset[int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    warnings: list[str]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each text; the first one where a text occurs twice."""
        ids = dict(zip(self.texts, range(len(self.texts)), strict=True))
        if len(ids) < len(self.texts):
            self.warnings.append(f"{len(self.texts) - len(ids)} tokens occur twice; the first of each is used")
            ids = dict(zip(reversed(self.texts), range(len(self.texts) - 1, -1, -1), strict=True))
        return ids

    def ids_of_type(self, *types: TokenType) -> list[int]:
        """Ids of the tokens of these types, ascending."""
        return _ids_of(self.types, types)


def read_vocab(file: GGUFFile) -> Vocab:
    """Reads the vocabulary of a file.

    Raises:
        TokenizerError: there is none, or its arrays do not fit together.
        GGUFError: a key holds a value of the wrong type.
    """
    metadata = file.metadata
    if keys.TOKENIZER_MODEL not in metadata or keys.TOKENS not in metadata:
        missing = keys.TOKENIZER_MODEL if keys.TOKENIZER_MODEL not in metadata else keys.TOKENS
        raise TokenizerError(f"{file.path}: there is no vocabulary in this file (no key {missing!r})")
    texts = metadata.get_array(keys.TOKENS, "str").copy()  # decoded when needed; outlives the file
    if not texts:
        raise TokenizerError(f"{file.path}: the vocabulary is empty ({keys.TOKENS} has no elements)")
    warnings: list[str] = []
    types = _read_types(file, texts, warnings)
    ids = {
        key: _special_id(file, key, len(texts), warnings)
        for key in (keys.BOS_TOKEN_ID, keys.EOS_TOKEN_ID, keys.UNKNOWN_TOKEN_ID, keys.EOT_TOKEN_ID, keys.EOM_TOKEN_ID)
    }
    if metadata.get_str(keys.TOKENIZER_MODEL) == "llama":
        _add_spm_defaults(ids, file, types)
    ends = [ids[keys.EOS_TOKEN_ID], ids[keys.EOT_TOKEN_ID], ids[keys.EOM_TOKEN_ID]]
    return Vocab(
        model=metadata.get_str(keys.TOKENIZER_MODEL),
        pre=metadata.get_str(keys.TOKENIZER_PRE, None),
        architecture=metadata.get_str(keys.ARCHITECTURE, ""),
        texts=texts,
        types=types,
        scores=_read_scores(file, len(texts), warnings),
        merges=_read_merges(file),
        bos_id=ids[keys.BOS_TOKEN_ID],
        eos_id=ids[keys.EOS_TOKEN_ID],
        unk_id=ids[keys.UNKNOWN_TOKEN_ID],
        end_ids=frozenset(i for i in ends if i is not None) | _named_ends(texts, types),
        add_bos=metadata.get_bool(keys.ADD_BOS_TOKEN, None),
        add_eos=metadata.get_bool(keys.ADD_EOS_TOKEN, None),
        add_space_prefix=metadata.get_bool(keys.ADD_SPACE_PREFIX, None),
        warnings=warnings,
    )


def _check_length(file: GGUFFile, key: str, n: int, n_vocab: int) -> None:
    if n != n_vocab:
        raise TokenizerError(f"{file.path}: {key} has {n} elements, but there are {n_vocab} tokens; convert it again")


def _read_types(file: GGUFFile, texts: Sequence[str], warnings: list[str]) -> bytes:
    """The type of each token; guessed from the texts where the file has none."""
    stored = file.metadata.get_array(keys.TOKEN_TYPES, "int", None)
    if stored is None:
        warnings.append(f"there is no {keys.TOKEN_TYPES}; guessed from the texts")
        return bytes(_guess_type(text) for text in texts)
    _check_length(file, keys.TOKEN_TYPES, len(stored), len(texts))
    known = (stored >= TokenType.NORMAL) & (stored <= TokenType.BYTE)
    if not known.all():
        warnings.append(f"{int((~known).sum())} tokens have an unknown type; taken as normal text")
    return np.where(known, stored, TokenType.NORMAL).astype(np.uint8).tobytes()


def _guess_type(text: str) -> TokenType:
    if byte_value(text) is not None:
        return TokenType.BYTE
    if text == "<unk>":
        return TokenType.UNKNOWN
    return TokenType.CONTROL if text == "<s>" or text in END_TEXTS else TokenType.NORMAL


def byte_value(text: str) -> int | None:
    """The byte that a SentencePiece byte token stands for: ``<0x0A>`` is 10."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        try:
            return int.from_bytes(bytes.fromhex(text[3:5]), "big") if text[3:5].isalnum() else None
        except ValueError:
            return None
    return None


def _read_scores(file: GGUFFile, n_vocab: int, warnings: list[str]) -> npt.NDArray[np.float32]:
    """Scores as float32. NaN, which has no order, counts as lowest."""
    stored = file.metadata.get_array(keys.SCORES, "float", None)
    if stored is None:
        return np.zeros(n_vocab, np.float32)
    _check_length(file, keys.SCORES, len(stored), n_vocab)
    with np.errstate(over="ignore"):
        scores = stored.astype(np.float32)
    bad = np.isnan(scores)
    if bad.any():
        warnings.append(f"{int(bad.sum())} tokens have a score that is not a number; they count as the least likely")
        scores[bad] = -np.inf
    return scores


def _read_merges(file: GGUFFile) -> Sequence[str]:
    """The merges, undecoded: only text that is encoded needs them. They outlive the file."""
    stored = file.metadata.get_array(keys.MERGES, "str", None)
    return () if stored is None else stored.copy()


def _special_id(file: GGUFFile, key: str, n_vocab: int, warnings: list[str]) -> int | None:
    """An id stored under a key; None (and a warning) if it points outside of the vocabulary."""
    if key not in file.metadata:
        return None
    value = file.metadata[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenizerError(f"{file.path}: {key} must be an integer; convert the model again")
    if not 0 <= value < n_vocab:
        warnings.append(f"{key} is {value}, but there are only {n_vocab} tokens; ignored")
        return None
    return value


def _add_spm_defaults(ids: dict[str, int | None], file: GGUFFile, types: bytes) -> None:
    """SentencePiece's usual ids, for keys the file lacks, if the tokens there are what they should be."""
    usual = {
        keys.UNKNOWN_TOKEN_ID: (0, TokenType.UNKNOWN),
        keys.BOS_TOKEN_ID: (1, TokenType.CONTROL),
        keys.EOS_TOKEN_ID: (2, TokenType.CONTROL),
    }
    for key, (token_id, kind) in usual.items():
        if key not in file.metadata and token_id < len(types) and types[token_id] == kind:
            ids[key] = token_id


def _named_ends(texts: Sequence[str], types: bytes) -> frozenset[int]:
    marks = _ids_of(types, (TokenType.CONTROL, TokenType.USER_DEFINED))
    return frozenset(i for i in marks if texts[i] in END_TEXTS)


def _ids_of(types: bytes, wanted: Sequence[TokenType]) -> list[int]:
    """Where in the types of all tokens one of the wanted stands, ascending."""
    is_wanted = np.zeros(256, np.bool_)
    is_wanted[list(wanted)] = True
    found: list[int] = np.flatnonzero(is_wanted[np.frombuffer(types, np.uint8)]).tolist()
    return found
