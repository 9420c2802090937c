"""Llama (Touvron et al. 2023) and its relatives that go by its name: Llama 1 to 3, Mistral, Mixtral, SmolLM ...

Pre-norm decoder, grouped-query attention, SwiGLU. RoPE pairs neighbouring columns, as Meta's weights have them (the
GGUF converter permutes q and k back). Biases and an own output matrix are optional; Llama 3.1 stretches its context by
the tensor ``rope_freqs.weight``; Mixtral has experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqrun.gguf import GGUFFile
from iqrun.hparams import HParams
from iqrun.models.experts import Experts
from iqrun.models.rope import Rope
from iqrun.program import Program


@dataclass(frozen=True)
class Config:
    """Hyper-parameters, by their GGUF names; ``head_dim`` is ``attention.key_length``."""

    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_vocab: int | None
    rms_eps: float
    rope: Rope
    experts: Experts | None

    @classmethod
    def from_gguf(cls, hp: HParams) -> Config:
        """Reads and checks the file's hyper-parameters.

        Raises:
            GGUFError: a key is missing or has the wrong type.
            UnsupportedModelError: a value is out of range, or a key asks for what is not implemented.
        """
        n_embd, n_head = hp.uint("embedding_length"), hp.uint("attention.head_count")
        n_head_kv = hp.uint("attention.head_count_kv", n_head, high=n_head)
        hp.expect(n_head % n_head_kv == 0, f"{n_head} heads cannot share {n_head_kv} KV heads")
        head_dim = hp.head_dim(n_embd, n_head)
        n_ff = hp.uint("feed_forward_length")
        config = cls(
            n_layer=hp.uint("block_count"),
            n_embd=n_embd,
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=head_dim,
            n_ff=n_ff,
            n_vocab=hp.n_tokens(),
            rms_eps=hp.positive("attention.layer_norm_rms_epsilon"),
            rope=Rope.from_gguf(hp, head_dim),
            experts=Experts.from_gguf(hp, n_ff),
        )
        hp.refuse_sliding_window()
        hp.finish()
        return config


def program(file: GGUFFile) -> Program:
    """Writes the program of a Llama-like model.

    Raises:
        GGUFError: a key or tensor is missing, or does not fit the hyper-parameters.
        UnsupportedModelError: the file asks for something that is not implemented.
    """
    c = Config.from_gguf(HParams(file))
    p = Program(file, n_layer=c.n_layer)
    n_q, n_kv = c.n_head * c.head_dim, c.n_head_kv * c.head_dim
    x = p.embed("token_embd.weight", n_rows=c.n_vocab, n_cols=c.n_embd)  # (tokens, n_embd), the residual stream
    rope = c.rope.table(p)  # (tokens, n_rot)
    for i in range(c.n_layer):
        b = f"blk.{i}"
        h = p.rms_norm(x, f"{b}.attn_norm.weight", c.rms_eps)
        q, k, v = p.matmul(
            h,
            [f"{b}.attn_{s}.weight" for s in "qkv"],
            n_rows=[n_q, n_kv, n_kv],
            biases=[p.optional(f"{b}.attn_{s}.bias") for s in "qkv"],
        )
        p.rope(q, rope, head_dim=c.head_dim, halves=False)
        p.rope(k, rope, head_dim=c.head_dim, halves=False)
        a = p.attention(q, k, v, layer=i, head_dim=c.head_dim, scale=c.head_dim**-0.5)  # (tokens, n_head * head_dim)
        if i == c.n_layer - 1:  # the last layer's keys and values are all cached: only wanted rows go on
            x, a = p.select(x), p.select(a)
        p.matmul_add(x, a, f"{b}.attn_output.weight", bias=p.optional(f"{b}.attn_output.bias"))
        h = p.rms_norm(x, f"{b}.ffn_norm.weight", c.rms_eps)
        if c.experts:
            c.experts.write(p, x, h, b)
            continue
        g = p.gated_matmul(
            h,
            f"{b}.ffn_gate.weight",
            f"{b}.ffn_up.weight",
            n_rows=c.n_ff,
            into="ffn",
            biases=(p.optional(f"{b}.ffn_gate.bias"), p.optional(f"{b}.ffn_up.bias")),
        )
        p.matmul_add(x, g, f"{b}.ffn_down.weight", bias=p.optional(f"{b}.ffn_down.bias"))
    h = p.rms_norm(x, "output_norm.weight", c.rms_eps)
    head = p.optional("output.weight") or "token_embd.weight"  # tied
    p.output(*p.matmul(h, [head], n_rows=[p.n_vocab], into=["logits"]))  # (outputs, n_vocab)
    p.refuse_unused()
    return p
