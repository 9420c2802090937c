"""`Grammar`: what a text must look like. A JSON schema, a regular expression, or a grammar in GBNF or Lark.

The work is done by the package llguidance, an extra (``pip install 'iqrun[grammar]'``): before each token it tells
which ones keep the text valid, so that it is valid whatever the model prefers; and it knows when the text is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from iqrun.errors import GrammarError, TokenizerError
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

_MAX_CHARACTERS = 1 << 20
_MAX_DEPTH = 64  # of a schema: its reader calls itself for each level

# Between the parts of JSON: nothing, a space, or one line break with its indent. Small models would never leave a run
# of white space that may be endless.
_JSON_OPTIONS = {"whitespace_pattern": r"( |\n[ \t]{0,20})?"}

_MARK = "\x02"  # a character that no piece of a vocabulary joins to what follows

_tokenizers: WeakKeyDictionary[Tokenizer, Any] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar, made by one of the methods below. It can be used for any number of texts and models.

    Example:
        >>> yes_or_no = iqrun.Grammar.regex("yes|no")
        >>> model.complete("Is the sky blue? Answer:", response_format=yes_or_no)
        'yes'

    Attributes:
        source: as llguidance reads it.
    """

    source: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Grammar:
        """JSON that a schema describes.

        Args:
            schema: a dictionary, or its JSON text.

        Raises:
            GrammarError: it is not JSON, too large or too deep, or llguidance does not know something in it.
        """
        text = schema if isinstance(schema, str) else _dump(schema)
        _check_size(text)
        if _depth(text) > _MAX_DEPTH:
            raise GrammarError(f"the JSON schema is nested deeper than {_MAX_DEPTH} levels: use $defs and $ref")
        try:
            source = _llguidance().LLMatcher.grammar_from_json_schema(text, defaults=_JSON_OPTIONS)
        except ValueError as error:
            raise GrammarError(f"this is not a JSON schema: {_one_line(error)}") from error
        return cls._checked(source, "JSON schema")

    @classmethod
    def json(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """A grammar as llama.cpp writes it; its first rule is ``root``.

        Raises:
            GrammarError: it cannot be read.
        """
        _check_size(text)
        _llguidance()
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            lark = gbnf_to_lark(text)
        except Exception as error:  # that is what it raises
            raise GrammarError(f"this is not a valid GBNF grammar: {_one_line(error)}") from error
        return cls._checked(_llguidance().LLMatcher.grammar_from_lark(lark), "GBNF grammar")

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A grammar in llguidance's dialect of Lark; its first rule is ``start``.

        Raises:
            GrammarError: it cannot be read.
        """
        _check_size(text)
        return cls._checked(_llguidance().LLMatcher.grammar_from_lark(text), "Lark grammar")

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that a regular expression (Rust's syntax, without look-around) matches as a whole.

        Raises:
            GrammarError: it cannot be read.
        """
        _check_size(pattern)
        return cls._checked(_llguidance().LLMatcher.grammar_from_regex(pattern), "regular expression")

    @classmethod
    def of(cls, response_format: Grammar | Mapping[str, Any]) -> Grammar:
        """A grammar itself, or what a dictionary of the openai package asks for.

        Args:
            response_format: ``{"type": "json_object"}`` (with an optional ``"schema"``), or
                ``{"type": "json_schema", "json_schema": {"schema": {...}}}``.

        Raises:
            GrammarError: it is something else.
        """
        if isinstance(response_format, Grammar):
            return response_format
        kind = response_format.get("type") if isinstance(response_format, Mapping) else None
        if kind == "json_object":
            schema = response_format.get("schema")
            return cls.json() if schema is None else cls.json_schema(schema)
        if kind == "json_schema":
            inner = response_format.get("json_schema")
            schema = inner.get("schema") if isinstance(inner, Mapping) else None
            if isinstance(schema, (Mapping, str)):
                return cls.json_schema(schema)
        raise GrammarError(
            "response_format must be an iqrun.Grammar, {'type': 'json_object'} or "
            f"{{'type': 'json_schema', 'json_schema': {{'schema': ...}}}}, not {str(response_format)[:100]!r}"
        )

    @classmethod
    def _checked(cls, source: str, kind: str) -> Grammar:
        message = _llguidance().LLMatcher.validate_grammar(source)
        if message and not message.startswith("WARNING"):
            raise GrammarError(f"this is not a valid {kind}: {_one_line(message)}")
        return cls(source)

    def constraint(self, tokenizer: Tokenizer) -> TextConstraint:
        """What keeps one text valid.

        Raises:
            GrammarError: the grammar is too complex.
        """
        module = _llguidance()
        matcher = module.LLMatcher(_vocabulary(tokenizer), self.source, log_level=0)
        _check(matcher)
        return TextConstraint(matcher, tokenizer)


class TextConstraint:
    """Follows one text through a grammar; see `iqrun.generation.writer.Constraint`."""

    def __init__(self, matcher: llguidance.LLMatcher, tokenizer: Tokenizer) -> None:
        self._matcher, self._n_vocab, self._ends = matcher, tokenizer.n_vocab, list(tokenizer.end_ids)

    def allow(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The logits with -inf for every token that may not come next; a copy.

        Raises:
            GrammarError: the grammar is too complex at this place.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        _check(self._matcher)
        n = min(self._n_vocab, len(logits))
        allowed = np.zeros(len(logits), np.bool_)
        allowed[:n] = np.unpackbits(mask, bitorder="little")[:n]
        allowed[self._ends] = self.is_complete
        out: npt.NDArray[np.float32] = np.where(allowed, logits, np.float32(-np.inf))
        return out

    def accept(self, token_id: int) -> None:
        """Goes on by a token that was allowed.

        Raises:
            GrammarError: it was not.
        """
        self._matcher.consume_token(token_id)
        _check(self._matcher)

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())

    @property
    def is_over(self) -> bool:
        """Whether it must."""
        return bool(self._matcher.is_stopped())


class _Wrapper:
    """A `Tokenizer` as llguidance reads it."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids, ends = range(tokenizer.n_vocab), tokenizer.end_ids
        self._tokenizer = tokenizer
        self._mark = tokenizer.encode(_MARK, add_special=False) if tokenizer.adds_space else []
        self.tokens = [*(tokenizer.token_bytes(token_id) for token_id in ids), b"<end>"]
        self.eos_token_id = tokenizer.n_vocab  # none of ours: a vocabulary may have several ends, or none
        self.bos_token_id = tokenizer.bos_id
        special = [i for i in ids if tokenizer.is_special(i) or i in ends or not self.tokens[i]]
        self.special_token_ids = [*special, self.eos_token_id]

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text that continues another: without the space that may be put in front of a whole one."""
        mark = _MARK if self._tokenizer.adds_space else ""
        try:
            return self._tokenizer.encode(mark + text, add_special=False)[len(self._mark) :]
        except TokenizerError:
            return []  # what must come next cannot be written: it is found out token by token


def _vocabulary(tokenizer: Tokenizer) -> Any:
    """The vocabulary as llguidance wants it; made once per tokenizer, as that takes a while."""
    known = _tokenizers.get(tokenizer)
    if known is None:
        known = _tokenizers[tokenizer] = _llguidance().LLTokenizer(_Wrapper(tokenizer))
    return known


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise GrammarError(
            "response formats need the package llguidance: install it with pip install 'iqrun[grammar]'"
        ) from error
    return llguidance


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise GrammarError(f"the grammar cannot be followed: {_one_line(matcher.get_error())}")


def _check_size(text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise GrammarError(f"the grammar has {len(text)} characters, more than {_MAX_CHARACTERS}")


def _dump(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"this is not a JSON schema: {_one_line(error)}") from error


def _depth(text: str) -> int:
    """How deep brackets are nested, those in strings included: an upper bound."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    steps = np.isin(codes, list(b"[{")).astype(np.int64) - np.isin(codes, list(b"]}"))
    return int(steps.cumsum().max(initial=0))


def _one_line(error: object) -> str:
    """The message without the parser's inner state, which llguidance appends."""
    return " ".join(str(error).split("<state>")[0].split())[:300]
