"""What becomes of llama-cpp-python's arguments: used, ignored because it changes no answer, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from iqrun.engine.session import KVType
from iqrun.log import logger
from iqrun.sampling import SamplingOptions

RANDOM_SEED = 0xFFFFFFFF

# Where things are computed, how memory is used, what is printed: the answer is the same, so these are ignored.
# fmt: off
HARMLESS = frozenset({
    "embedding", "flash_attn", "lora_base", "lora_scale", "main_gpu", "n_gpu_layers", "n_threads_batch", "n_ubatch",
    "no_perf", "numa", "offload_kqv", "op_offload", "spm_infill", "split_mode", "swa_full", "tensor_split", "use_mlock",
    "use_mmap", "verbose",
})
# fmt: on
# These would change the answer. Only the value that means "as the file says" is accepted.
ONLY_DEFAULT: Mapping[str, tuple[Any, ...]] = {
    "kv_overrides": (None, {}),
    "rope_scaling_type": (None, -1),
    "attention_type": (None, -1, 0),
    "rope_freq_base": (0, None),
    "rope_freq_scale": (0, None),
    "yarn_ext_factor": (-1.0, None),
    "yarn_attn_factor": (1.0, -1.0, None),
    "yarn_beta_fast": (32.0, -1.0, None),
    "yarn_beta_slow": (1.0, -1.0, None),
    "yarn_orig_ctx": (0, None),
    "lora_path": (None,),
    "tokenizer": (None,),
}
_KV_TYPES: Mapping[int | None, KVType] = {None: "f16", 1: "f16", 8: "q8_0", 0: "f32"}  # by ggml's type ids


@dataclass(frozen=True)
class LlamaPromptLookupDecoding:
    """As ``draft_model``: guesses tokens from the text so far, which changes no answer; see `iqrun.generation.lookup`.

    The numbers are taken and forgotten: iqrun adapts the length of its guesses.
    """

    max_ngram_size: int = 2
    num_pred_tokens: int = 10


def check_constructor(others: Mapping[str, Any]) -> None:
    """Looks at the constructor's arguments that `Llama` does not use itself.

    Raises:
        NotImplementedError: one asks for something that iqrun does not do.
        TypeError: there is no such argument.
    """
    for name, value in others.items():
        if name == "draft_model" and not isinstance(value, (LlamaPromptLookupDecoding, NoneType)):
            raise NotImplementedError("draft_model must be LlamaPromptLookupDecoding(): iqrun has no other")
        if name in ONLY_DEFAULT:
            if value not in ONLY_DEFAULT[name]:
                raise NotImplementedError(f"{name}={value!r} is not supported by iqrun.compat: leave it out")
        elif name not in HARMLESS | {"draft_model"}:
            raise TypeError(f"Llama() has no argument {name!r}")
    if others.get("n_gpu_layers"):
        logger.info("n_gpu_layers=%s is ignored: iqrun computes on the CPU", others["n_gpu_layers"])


def kv_type(type_k: int | None, type_v: int | None) -> KVType:
    """The type of the KV cache.

    Raises:
        NotImplementedError: a type that the cache does not have, or different types for keys and values.
    """
    if type_k not in _KV_TYPES or type_v not in _KV_TYPES or _KV_TYPES[type_k] != _KV_TYPES[type_v]:
        raise NotImplementedError(
            f"type_k={type_k}, type_v={type_v}: iqrun caches keys and values both as F16 (1), both as Q8_0 (8) "
            "or both as F32 (0)"
        )
    return _KV_TYPES[type_k]


def sampling_options(
    *,
    temperature: float,
    repeat_last_n: int,
    top_k: int = 40,
    top_p: float = 0.95,
    min_p: float = 0.05,
    typical_p: float = 1.0,
    mirostat_mode: int = 0,
    logit_bias: Mapping[int, float] | Mapping[str, float] | None = None,
    tfs_z: float = 1.0,
    penalize_nl: bool = True,
    **same: Any,
) -> SamplingOptions:
    """Sampling arguments as `SamplingOptions`; those in `same` have the same name there.

    Numbers beyond the range in which a sampler acts turn it off (``top_k=-1``, ``top_p=1.5``). `tfs_z` and
    `penalize_nl` do nothing, as in llama-cpp-python since llama.cpp dropped them.

    Raises:
        NotImplementedError: Mirostat 1.
        ValueError: an option is out of its range.
    """
    if mirostat_mode == 1:
        raise NotImplementedError("mirostat_mode=1 is not supported by iqrun.compat: use 2")
    if temperature < 0.0:  # draws from the model's own distribution
        same.update(samplers=("penalties",))
        temperature = 1.0
    return SamplingOptions(
        temperature=temperature,
        top_k=max(top_k, 0),
        top_p=min(top_p, 1.0),
        min_p=max(min_p, 0.0),
        typical_p=min(typical_p, 1.0),
        repeat_last_n=repeat_last_n,
        mirostat=mirostat_mode if temperature > 0.0 else 0,
        logit_bias={int(token): float(bias) for token, bias in (logit_bias or {}).items()},
        **same,
    )
