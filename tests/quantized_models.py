"""A small model with quantized weights, for tests of what must not depend on how tokens are cut into steps."""

from __future__ import annotations

from pathlib import Path

from tests.gguf_builder import tiny_llama


def quantized_llama(path: Path, *, n_ctx: int = 256) -> Path:
    """IQ4_KS matrices with random weights: the two ways to multiply differ in their last bits."""
    return tiny_llama(path, n_embd=256, n_head=4, n_head_kv=2, n_ff=256, weight_type="IQ4_KS", n_ctx=n_ctx, seed=5)
