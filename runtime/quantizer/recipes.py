"""Which type for which tensor: what the user said, else the mix of the file's type.

A file "of type T" is a mix: most matrices in T, the few that hurt most in something wider (`recipe_tables`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from iqrun.errors import QuantizeError
from iqrun.formats import FORMATS, Format, by_name
from iqrun.gguf import GGUFFile, TensorInfo
from iqrun.quantizer.recipe_tables import BASE, GQA, MOE, Table

TOKEN_EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"

_EMBEDDINGS = frozenset({TOKEN_EMBEDDING, "per_layer_token_embd.weight"})
_ROLE = re.compile(r"(?:blk\.\d+\.)?(.+)\.weight")

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
        free: the recipe named it, so that another type would do as well; not the user or the nature of the tensor.
    """

    tensor: TensorInfo
    target: Format | None
    wanted: Format | None
    free: bool = False

    @property
    def fallback(self) -> bool:
        """Whether the type wanted did not fit the rows."""
        return self.target is not self.wanted


@dataclass(frozen=True)
class Traits:
    """What kind of model it is.

    Attributes:
        tied: it has no output matrix of its own: the token embedding is both.
        gqa: at least four query heads share a KV head.
        moe: it has experts.
    """

    tied: bool = False
    gqa: bool = False
    moe: bool = False

    @staticmethod
    def of(tensors: Mapping[str, TensorInfo]) -> Traits:
        """The traits of a model with these tensors."""
        keys = {name: info.n_rows for name, info in tensors.items() if name.endswith(".attn_k.weight")}
        queries = {name: tensors.get(name.replace(".attn_k.", ".attn_q.")) for name in keys}
        return Traits(
            tied=OUTPUT not in tensors,
            gqa=any(4 * n <= (0 if (q := queries[name]) is None else q.n_rows) for name, n in keys.items()),
            moe=any(name.endswith("_exps.weight") for name in tensors),
        )

    @property
    def tables(self) -> list[Table]:
        """Where to look for a mix, the most special first."""
        return [*([MOE] if self.moe else []), *([GQA] if self.gqa else []), BASE]


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
        self._main = writable(main)
        self._pure = pure
        self._overrides = [(_pattern(regex), writable(by_name(name))) for regex, name in tensor_types]
        self._output = None if output_type is None else writable(by_name(output_type))
        self._embedding = None if embedding_type is None else writable(by_name(embedding_type))
        self._keep_f32 = None if keep_f32 is None else _pattern(keep_f32)

    def choose_all(self, source: GGUFFile) -> list[Choice]:
        """The types of all tensors of a model."""
        traits = Traits.of(source.tensors)
        return [self.choose(tensor, traits) for tensor in source.tensors.values()]

    def choose(self, tensor: TensorInfo, traits: Traits) -> Choice:
        """The type of a tensor of such a model."""
        is_output = tensor.name == OUTPUT or (traits.tied and tensor.name == TOKEN_EMBEDDING)
        wanted = self._named(tensor, is_output)
        free = wanted is None and _is_matrix(tensor)
        if free:
            wanted = self._by_role("tied" if is_output and traits.tied else _role(tensor.name), traits)
        elif wanted is None and self._main.name == "F32" and not _is_integer(tensor):
            wanted = self._main
        return Choice(tensor, None if wanted is None else fitting(wanted, tensor.n_cols), wanted, free)

    def unmatched(self, names: Collection[str]) -> list[str]:
        """The regular expressions that are found in none of the tensors' names: most likely a slip of the pen."""
        patterns = [pattern for pattern, _ in self._overrides] + ([self._keep_f32] if self._keep_f32 else [])
        return [p.pattern for p in patterns if not any(p.search(name) for name in names)]

    def _named(self, tensor: TensorInfo, is_output: bool) -> Format | None:
        """What the user said about the tensor."""
        for pattern, chosen in self._overrides:
            if pattern.search(tensor.name):
                return chosen
        if self._keep_f32 is not None and self._keep_f32.search(tensor.name):
            return FORMATS["F32"]
        if tensor.name in _EMBEDDINGS and self._embedding is not None:
            return self._embedding
        return self._output if is_output else None

    def _by_role(self, role: str, traits: Traits) -> Format:
        if self._pure:
            return self._main
        mixes = [table[self._main.name] for table in traits.tables if self._main.name in table]
        return next((FORMATS[mix[role]] for mix in mixes if role in mix), self._main)


def _is_integer(tensor: TensorInfo) -> bool:
    """Whether it holds indices, not weights."""
    return tensor.format is None and tensor.type.block_weights == 1


def _is_matrix(tensor: TensorInfo) -> bool:
    """Whether it is worth quantizing."""
    return len(tensor.shape) >= 2 and not _is_integer(tensor) and not _KEPT.search(tensor.name)


def fitting(wanted: Format, n_cols: int) -> Format:
    """`wanted`, or its substitute if rows of `n_cols` are no whole number of its blocks."""
    if n_cols % wanted.block_weights == 0:
        return wanted
    substitute = FORMATS[FALLBACKS.get(wanted.name, LAST_RESORT)]
    return substitute if n_cols % substitute.block_weights == 0 else FORMATS[LAST_RESORT]


def _role(name: str) -> str:
    """``blk.3.attn_v.weight`` is an ``attn_v``."""
    found = _ROLE.fullmatch(name)
    return "" if found is None else found[1]


def writable(format_: Format) -> Format:
    """The type itself.

    Raises:
        QuantizeError: iqrun does not write it.
    """
    if not format_.can_encode:
        names = ", ".join(row.name for row in FORMATS.values() if row.can_encode)
        raise QuantizeError(f"iqrun reads {format_.name} but does not write it; choose one of {names}")
    return format_


def _pattern(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise QuantizeError(f"the regular expression {regex!r} is wrong: {error}") from None
