"""The mixes of each type, as data: which matrices differ from the type that a file goes by.

A role is a tensor's name without ``blk.N.`` and ``.weight``; ``tied`` is the token embedding of a model without an
output matrix of its own. A table says what differs from the one below it, for models of one kind, which is recognised
by the tensors, so that an architecture never seen before gets a sensible mix too:

- `MOE`: with experts. They are more than nine tenths of the weights, so everything else can have more bits for little.
- `GQA`: with at least four query heads per KV head. `attn_k` and `attn_v` are small, and all heads of a group suffer
  from an error in them: they get bits that `attn_q` can do without.
- `BASE`: all others. `attn_v` and a fused `attn_qkv` are one class wider, as is what decompresses keys and values in
  multi-head latent attention.

The sizes stay at or below those of the files that people know under the same names. Routers, norms and biases are not
quantized at all (`iqrun.quantizer.recipes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

Table = Mapping[str, Mapping[str, str]]  # type of the file -> role -> type


def _mix(output: str, tied: str, values: str | None = None, **others: str) -> dict[str, str]:
    fused = {} if values is None else dict.fromkeys(("attn_v", "attn_v_b", "attn_kv_b", "attn_qkv"), values)
    return {"output": output, "tied": tied, **fused, **others}


BASE: Table = MappingProxyType(
    {
        "IQ2_KS": _mix("IQ5_K", "IQ4_K", "IQ4_K", attn_qkv="IQ3_K"),
        "IQ2_K": _mix("IQ5_K", "IQ4_K", "IQ4_K", attn_qkv="IQ3_K", attn_output="IQ3_K"),
        "IQ2_KL": _mix("IQ5_K", "IQ4_K", "IQ4_KS", attn_qkv="IQ3_K"),
        "IQ3_KS": _mix("IQ5_K", "IQ4_K", "IQ4_KS"),
        "IQ3_K": _mix("IQ5_K", "IQ4_K", "IQ4_K"),
        "IQ4_KSS": _mix("Q6_K", "IQ5_K", "IQ5_K"),
        "IQ4_KS": _mix("Q6_K", "IQ5_K", "IQ5_K"),
        "IQ4_K": _mix("Q6_K", "Q6_K", "IQ5_K"),
        "IQ5_KS": _mix("Q6_K", "Q6_K"),
        "IQ5_K": _mix("Q6_K", "Q6_K"),
        **{name: _mix("Q6_K", "Q6_K") for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL")},
    }
)

GQA: Table = MappingProxyType(
    {
        "IQ2_KS": {"attn_k": "IQ2_KL", "attn_v": "IQ3_KS", "attn_output": "IQ2_K"},
        "IQ2_K": {"attn_k": "IQ3_KS", "attn_output": "IQ3_KS"},
        "IQ2_KL": {"attn_q": "IQ2_K", "attn_k": "IQ4_KSS"},
        "IQ3_KS": {"attn_q": "IQ2_KL", "attn_k": "IQ4_KSS", "attn_v": "IQ4_K", "attn_output": "IQ3_K"},
        "IQ3_K": {"attn_q": "IQ3_KS", "attn_k": "IQ4_KSS"},
        "IQ4_KSS": {"attn_q": "IQ3_K", "attn_k": "IQ5_KS", "attn_output": "IQ4_KS"},
        "IQ4_KS": {"attn_q": "IQ4_KSS", "attn_k": "IQ4_K", "attn_output": "IQ4_K"},
        "IQ4_K": {"attn_q": "IQ4_KS", "attn_k": "IQ5_KS", "attn_v": "IQ5_KS"},
        "IQ5_KS": {"attn_q": "IQ4_K", "attn_k": "IQ6_K", "attn_v": "IQ6_K"},
        "IQ5_K": {"attn_q": "IQ5_KS", "attn_v": "Q6_K", "attn_output": "IQ5_KS"},
        "IQ6_K": {"attn_q": "IQ5_K", "attn_k": "Q8_0", "attn_v": "Q8_0"},
    }
)

_KEYS_AND_VALUES = ("attn_k", "attn_v", "attn_k_b", "attn_v_b", "attn_kv_b", "attn_kv_a_mqa")
_SHARED = (
    *("attn_q", "attn_q_a", "attn_q_b", "attn_qkv", "attn_output"),
    *("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
)


def _around_experts(names: Iterable[str], shared: str, keys_and_values: str) -> dict[str, dict[str, str]]:
    mix = {**dict.fromkeys(_SHARED, shared), **dict.fromkeys(_KEYS_AND_VALUES, keys_and_values)}
    return dict.fromkeys(names, mix)


MOE: Table = MappingProxyType(
    {
        **_around_experts(("IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K"), "IQ4_K", "IQ5_K"),
        **_around_experts(("IQ4_KSS", "IQ4_KS", "IQ4_K"), "IQ5_K", "Q6_K"),
        **_around_experts(("IQ5_KS", "IQ5_K"), "Q6_K", "Q8_0"),
    }
)
