"""Tiny random models as Hugging Face describes them, and their conversion to GGUF.

Weights come from a seed, so golden data need only hold the logits. The conversion does what the field's converters do:
names, the permutation of Llama's q and k rows, Llama 3.1's frequency factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from iqrun.gguf import GGUFPlan, GGUFWriter, ValueType

N_TOKENS = 48


@dataclass(frozen=True)
class Case:
    """A model: the `model_type` of transformers, what is special in its config, and its GGUF architecture."""

    model_type: str
    arch: str
    seed: int
    rope: dict[str, Any] = field(default_factory=lambda: {"rope_type": "default", "rope_theta": 10000.0})
    config: dict[str, Any] = field(default_factory=dict)

    def full_config(self) -> dict[str, Any]:
        """Every number that matters, by its Hugging Face name."""
        base = {
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 112,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 64,
            "tie_word_embeddings": False,
        }
        return base | self.config | {"rope_parameters": self.rope}

    @property
    def bias(self) -> set[str]:
        """Projections that have a bias."""
        attn = {"q_proj", "k_proj", "v_proj"}
        if self.model_type == "qwen2":
            return attn
        mlp = {"gate_proj", "up_proj", "down_proj"} if self.config.get("mlp_bias") else set()
        return (attn | {"o_proj"} if self.config.get("attention_bias") else set()) | mlp

    @property
    def experts(self) -> tuple[int, int, int] | None:
        """Experts per layer, those that a token uses, and the hidden units of one; None without."""
        c = self.full_config()
        n_expert = c.get("num_local_experts", c.get("num_experts"))
        return n_expert and (n_expert, c["num_experts_per_tok"], c.get("moe_intermediate_size", c["intermediate_size"]))


CASES: dict[str, Case] = {
    "llama_gqa": Case("llama", "llama", 1),
    "llama_mha_tied_biases": Case(
        "llama",
        "llama",
        2,
        config={"num_key_value_heads": 4, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama3_rope": Case(
        "llama",
        "llama",
        3,
        rope={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "llama_linear_rope": Case("llama", "llama", 4, rope={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "llama_yarn_rope": Case(
        "llama",
        "llama",
        5,
        rope={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "mistral_wide_heads": Case("mistral", "llama", 6, config={"head_dim": 24, "sliding_window": None}),
    "qwen2_tied": Case(
        "qwen2",
        "qwen2",
        7,
        rope={"rope_type": "default", "rope_theta": 1000000.0},
        config={"rms_norm_eps": 1e-6, "tie_word_embeddings": True},
    ),
    "qwen3_wide_heads": Case(
        "qwen3",
        "qwen3",
        8,
        rope={"rope_type": "default", "rope_theta": 1000000.0},
        config={"head_dim": 32, "rms_norm_eps": 1e-6},
    ),
    "mixtral": Case("mixtral", "llama", 12, config={"num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen3_moe": Case(
        "qwen3_moe",
        "qwen3moe",
        10,
        config={"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "norm_topk_prob": True},
    ),
    "qwen3_moe_own_shares": Case(
        "qwen3_moe",
        "qwen3moe",
        11,
        config={"num_experts": 5, "num_experts_per_tok": 5, "moe_intermediate_size": 32, "norm_topk_prob": False}
        | {"head_dim": 32, "tie_word_embeddings": True},
    ),
}


def token_ids(case: Case) -> np.ndarray:
    """The tokens whose logits are compared."""
    return np.random.default_rng(case.seed + 1000).integers(0, case.full_config()["vocab_size"], N_TOKENS)


def state_dict(case: Case) -> dict[str, np.ndarray]:
    """Seeded float32 weights by their Hugging Face names; large enough for every part to matter."""
    c = case.full_config()
    rng = np.random.default_rng(case.seed)
    n_embd, n_ff = c["hidden_size"], c["intermediate_size"]
    n_q, n_kv = (c[f"num_{kind}_heads"] * c["head_dim"] for kind in ("attention", "key_value"))

    def matrix(n_rows: int, n_cols: int, gain: float = 1.5) -> np.ndarray:
        return (rng.standard_normal((n_rows, n_cols)) * gain / np.sqrt(n_cols)).astype(np.float32)

    def vector(n: int, mean: float) -> np.ndarray:
        return (mean + 0.3 * rng.standard_normal(n)).astype(np.float32)

    state = {"model.embed_tokens.weight": matrix(c["vocab_size"], n_embd, 8.0)}
    for i in range(c["num_hidden_layers"]):
        block = f"model.layers.{i}"
        state[f"{block}.input_layernorm.weight"] = vector(n_embd, 1.0)
        state[f"{block}.post_attention_layernorm.weight"] = vector(n_embd, 1.0)
        shapes = {
            "self_attn.q_proj": (n_q, n_embd),
            "self_attn.k_proj": (n_kv, n_embd),
            "self_attn.v_proj": (n_kv, n_embd),
            "self_attn.o_proj": (n_embd, n_q),
        }
        if not case.experts:
            shapes |= {"mlp.gate_proj": (n_ff, n_embd), "mlp.up_proj": (n_ff, n_embd), "mlp.down_proj": (n_embd, n_ff)}
        for name, shape in shapes.items():
            state[f"{block}.{name}.weight"] = matrix(*shape)
            if name.split(".")[1] in case.bias:
                state[f"{block}.{name}.bias"] = vector(shape[0], 0.0)
        if case.experts:
            n_expert, _, width = case.experts
            state[f"{block}.mlp.gate.weight"] = matrix(n_expert, n_embd)
            state[f"{block}.mlp.experts.gate_up_proj"] = np.stack([matrix(2 * width, n_embd) for _ in range(n_expert)])
            state[f"{block}.mlp.experts.down_proj"] = np.stack([matrix(n_embd, width) for _ in range(n_expert)])
        if case.model_type in ("qwen3", "qwen3_moe"):
            state[f"{block}.self_attn.q_norm.weight"] = vector(c["head_dim"], 1.0)
            state[f"{block}.self_attn.k_norm.weight"] = vector(c["head_dim"], 1.0)
    state["model.norm.weight"] = vector(n_embd, 1.0)
    if not c["tie_word_embeddings"]:
        state["lm_head.weight"] = matrix(c["vocab_size"], n_embd)
    return state


_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}


def gguf_name(name: str) -> str:
    """The GGUF name of a Hugging Face weight."""
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        index, rest = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{index}.{_NAMES[rest]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def gguf_tensors(case: Case) -> dict[str, np.ndarray]:
    """The weights of a case as a GGUF file holds them, in float32."""
    c = case.full_config()
    tensors = {}
    for name, value in state_dict(case).items():
        if ".mlp.experts." in name:
            tensors |= _experts(name, value)
            continue
        if case.arch == "llama" and ".q_proj." in name:
            value = _pair_columns(value, c["num_attention_heads"])
        if case.arch == "llama" and ".k_proj." in name:
            value = _pair_columns(value, c["num_key_value_heads"])
        tensors[gguf_name(name)] = value
    if case.rope["rope_type"] == "llama3":
        tensors["rope_freqs.weight"] = _llama3_factors(case.rope, c["head_dim"])
    return tensors


def _experts(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """The matrices of all experts; transformers holds gate and up as one."""
    block = f"blk.{name.split('.')[2]}"
    if name.endswith("down_proj"):
        return {f"{block}.ffn_down_exps.weight": value}
    gate, up = np.split(value, 2, axis=1)
    return {f"{block}.ffn_gate_exps.weight": gate, f"{block}.ffn_up_exps.weight": up}


def _pair_columns(w: np.ndarray, n_head: int) -> np.ndarray:
    """Reorders each head's rows from (first half, second half) to neighbouring pairs."""
    return w.reshape(n_head, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    freq = rope["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = rope["original_max_position_embeddings"] * freq / (2 * pi)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)


def metadata(case: Case) -> dict[str, tuple[Any, ValueType]]:
    """The architecture's keys of a case."""
    c, rope, arch = case.full_config(), case.rope, case.arch
    uint, real, text = ValueType.UINT32, ValueType.FLOAT32, ValueType.STRING
    values: dict[str, tuple[Any, ValueType]] = {
        "general.architecture": (arch, text),
        f"{arch}.vocab_size": (c["vocab_size"], uint),
        f"{arch}.context_length": (c["max_position_embeddings"], uint),
        f"{arch}.embedding_length": (c["hidden_size"], uint),
        f"{arch}.block_count": (c["num_hidden_layers"], uint),
        f"{arch}.feed_forward_length": (c["intermediate_size"], uint),
        f"{arch}.attention.head_count": (c["num_attention_heads"], uint),
        f"{arch}.attention.head_count_kv": (c["num_key_value_heads"], uint),
        f"{arch}.attention.key_length": (c["head_dim"], uint),
        f"{arch}.attention.value_length": (c["head_dim"], uint),
        f"{arch}.attention.layer_norm_rms_epsilon": (c["rms_norm_eps"], real),
        f"{arch}.rope.freq_base": (rope["rope_theta"], real),
    }
    if case.experts:
        n_expert, n_used, width = case.experts
        values[f"{arch}.expert_count"] = (n_expert, uint)
        values[f"{arch}.expert_used_count"] = (n_used, uint)
        if "moe_intermediate_size" in c:
            values[f"{arch}.expert_feed_forward_length"] = (width, uint)
        if not c.get("norm_topk_prob", True):
            values[f"{arch}.expert_weights_norm"] = (False, ValueType.BOOL)
    if arch == "llama":
        values[f"{arch}.rope.dimension_count"] = (c["head_dim"], uint)
    if rope["rope_type"] in ("linear", "yarn"):
        values[f"{arch}.rope.scaling.type"] = (rope["rope_type"], text)
        values[f"{arch}.rope.scaling.factor"] = (rope["factor"], real)
    if rope["rope_type"] == "yarn":
        original = rope["original_max_position_embeddings"]
        values[f"{arch}.rope.scaling.original_context_length"] = (original, uint)
    return values


def write_gguf(
    path: Path,
    tensors: dict[str, np.ndarray],
    values: dict[str, tuple[Any, ValueType]],
    tokens: list[str] | None = None,
) -> Path:
    """A GGUF file of float32 tensors."""
    plan = GGUFPlan()
    for key, (value, kind) in values.items():
        plan.set(key, value, kind)
    if tokens is not None:
        plan.set_array("tokenizer.ggml.tokens", tokens, ValueType.STRING)
    for name, value in tensors.items():
        plan.add_tensor(name, value.shape[::-1], 0)
    with GGUFWriter(path, plan, overwrite=True) as writer:
        for value in tensors.values():
            writer.write(np.ascontiguousarray(value, np.float32))
    return path


def write_case(path: Path, case: Case) -> Path:
    """The GGUF file of a case."""
    return write_gguf(path, gguf_tensors(case), metadata(case))
