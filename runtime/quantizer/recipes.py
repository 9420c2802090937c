"""Which type for which tensor: tables, and the few rules that read them.

A file "of type T" is a mix: most matrices in T, the few that hurt most in something wider. The mixes below take no
more bytes than those that people know under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from iqrun.errors import QuantizeError
from iqrun.formats import FORMATS, Format, by_name
from iqrun.gguf import TensorInfo

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"

# What a matrix does in the model, by its name; the first match counts. `tied` is the token embedding of a model
# without output.weight: it is also the output matrix.
_ROLES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("embedding", re.compile(r"^(token_embd|per_layer_token_embd)\.weight$")),
    ("output", re.compile(r"^output\.weight$")),
    ("attn_v", re.compile(r"\.attn_v\.weight$")),
    ("attn_output", re.compile(r"\.attn_output\.weight$")),
)

# Types of the roles that differ from the file's type.
RECIPES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "IQ2_KS": {"output": "IQ5_K", "tied": "IQ4_K", "attn_v": "IQ4_K"},
        "IQ2_K": {"output": "IQ5_K", "tied": "IQ4_K", "attn_v": "IQ4_K", "attn_output": "IQ3_K"},
        "IQ2_KL": {"output": "IQ5_K", "tied": "IQ4_K", "attn_v": "IQ4_KS"},
        "IQ3_KS": {"output": "IQ5_K", "tied": "IQ4_K", "attn_v": "IQ4_KS"},
        "IQ3_K": {"output": "IQ5_K", "tied": "IQ4_K", "attn_v": "IQ4_K"},
        "IQ4_KSS": {"output": "Q6_K", "tied": "IQ5_K", "attn_v": "IQ5_K"},
        "IQ4_KS": {"output": "Q6_K", "tied": "IQ5_K", "attn_v": "IQ5_K"},
        "IQ4_K": {"output": "Q6_K", "tied": "Q6_K", "attn_v": "IQ5_K"},
        "IQ5_KS": {"output": "Q6_K", "tied": "Q6_K"},
        "IQ5_K": {"output": "Q6_K", "tied": "Q6_K"},
        "Q4_0": {"output": "Q6_K", "tied": "Q6_K"},
        "Q4_1": {"output": "Q6_K", "tied": "Q6_K"},
        "Q5_0": {"output": "Q6_K", "tied": "Q6_K"},
        "Q5_1": {"output": "Q6_K", "tied": "Q6_K"},
        "IQ4_NL": {"output": "Q6_K", "tied": "Q6_K"},
    }
)

# Rows that do not fill whole blocks: the narrowest type of 32-blocks that loses nothing against the one wanted.
# These are the substitutes in the files of the field.
FALLBACKS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS"), "IQ4_NL"),
        **dict.fromkeys(("IQ4_K", "IQ5_KS"), "Q5_0"),
        "IQ5_K": "Q6_0",
        **dict.fromkeys(("IQ6_K", "Q6_K"), "Q8_0"),
    }
)
LAST_RESORT = "F16"  # for rows that are not even a multiple of 32

# Types so narrow that an importance matrix matters much
LOW_BIT = frozenset({"IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K"})

# Matrices that stay as they are: tiny, or they choose (experts, positions) rather than compute.
_KEPT = re.compile(
    r"_norm\.weight$|ffn_gate_inp|^rope_freqs|position_embd|token_types|\.ssm_(conv1d|a|d|dt)\b|\.shortconv\.conv|"
    r"time_mix_(first|w0|w1|w2|v0|v1|v2|a0|a1|a2|g1|g2)|altup|laurel|\.bias$"
)


@dataclass(frozen=True)
class Choice:
    """The type of one tensor in the new file.

    Attributes:
        tensor: the tensor in the old file.
        target: its new type; None means that the bytes are copied.
        wanted: the type that the recipe or an override named; differs from `target` after a fallback.
    """

    tensor: TensorInfo
    target: Format | None
    wanted: Format | None

    @property
    def fallback(self) -> bool:
        """Whether the type wanted did not fit the rows."""
        return self.target is not self.wanted


class Recipe:
    """Chooses a type for every tensor of a model."""

    def __init__(
        self,
        main: Format,
        *,
        pure: bool = False,
        tensor_types: Sequence[tuple[str, str]] = (),
        output_type: str | None = None,
        embedding_type: str | None = None,
        keep_f32: str | None = None,
    ) -> None:
        """See `iqrun.quantizer.quantize` for the arguments.

        Raises:
            FormatError: a type name is unknown.
            QuantizeError: a type cannot be written, or a regular expression is wrong.
        """
        self._main = _writable(main)
        self._mix = {} if pure else RECIPES.get(main.name, {})
        self._overrides = [(_pattern(regex), _writable(by_name(name))) for regex, name in tensor_types]
        self._output = None if output_type is None else _writable(by_name(output_type))
        self._embedding = None if embedding_type is None else _writable(by_name(embedding_type))
        self._keep_f32 = None if keep_f32 is None else _pattern(keep_f32)

    def choose(self, tensor: TensorInfo, *, tied: bool) -> Choice:
        """The type of `tensor`; `tied`: the model has no output matrix of its own."""
        wanted = self._wanted(tensor, tied)
        return Choice(tensor, None if wanted is None else fitting(wanted, tensor.n_cols), wanted)

    def unmatched(self, names: Collection[str]) -> list[str]:
        """The regular expressions that are found in none of the tensors' names: most likely a slip of the pen."""
        patterns = [pattern for pattern, _ in self._overrides] + ([self._keep_f32] if self._keep_f32 else [])
        return [p.pattern for p in patterns if not any(p.search(name) for name in names)]

    def _wanted(self, tensor: TensorInfo, tied: bool) -> Format | None:
        for pattern, chosen in self._overrides:
            if pattern.search(tensor.name):
                return chosen
        if self._keep_f32 is not None and self._keep_f32.search(tensor.name):
            return FORMATS["F32"]
        if tensor.format is None and tensor.type.block_weights == 1:
            return None  # integers: indices, not weights
        if self._main.name == "F32":
            return self._main
        if len(tensor.shape) < 2 or _KEPT.search(tensor.name):
            return None
        return self._by_role(_role(tensor.name), tied)

    def _by_role(self, role: str, tied: bool) -> Format:
        is_output = role == "output" or (role == "embedding" and tied)
        if role == "embedding" and self._embedding is not None:
            return self._embedding
        if is_output and self._output is not None:
            return self._output
        name = self._mix.get("tied" if is_output and role == "embedding" else role)
        return self._main if name is None else FORMATS[name]


def fitting(wanted: Format, n_cols: int) -> Format:
    """`wanted`, or its substitute if rows of `n_cols` are no whole number of its blocks."""
    if n_cols % wanted.block_weights == 0:
        return wanted
    substitute = FORMATS[FALLBACKS.get(wanted.name, LAST_RESORT)]
    return substitute if n_cols % substitute.block_weights == 0 else FORMATS[LAST_RESORT]


def _role(name: str) -> str:
    return next((role for role, pattern in _ROLES if pattern.search(name)), "")


def _writable(format_: Format) -> Format:
    if not format_.can_encode:
        names = ", ".join(row.name for row in FORMATS.values() if row.can_encode)
        raise QuantizeError(f"iqrun reads {format_.name} but does not write it; choose one of {names}")
    return format_


def _pattern(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise QuantizeError(f"the regular expression {regex!r} is wrong: {error}") from None
