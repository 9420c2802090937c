"""Mixture of experts (Shazeer et al. 2017) in place of a layer's feed-forward network: Mixtral, Qwen3-MoE.

A router scores every expert for each token; the best run, and what they make is added up by shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqrun.hparams import HParams
from iqrun.program import Buffer, Program

_SOFTMAX = 1  # of the values of `expert_gating_func`


@dataclass(frozen=True)
class Experts:
    """What the hyper-parameters say about the experts of each layer.

    Attributes:
        n_expert: experts per layer.
        n_used: how many of them a token uses.
        n_ff: hidden units of one expert.
        norm_shares: whether the shares of the used ones add up to 1.
        scale: factor of the shares.
    """

    n_expert: int
    n_used: int
    n_ff: int
    norm_shares: bool
    scale: float

    @classmethod
    def from_gguf(cls, hp: HParams, n_ff: int) -> Experts | None:
        """Reads and checks the keys; None for a model without experts.

        Args:
            hp: the file's hyper-parameters.
            n_ff: the width of the feed-forward network, for files that do not give one for their experts.

        Raises:
            GGUFError: a key has the wrong type.
            UnsupportedModelError: a value is out of range, or asks for what is not implemented.
        """
        n_expert = hp.uint("expert_count", 0, low=0, high=4096)
        if n_expert == 0:
            return None
        hp.expect(
            hp.uint("expert_gating_func", _SOFTMAX, low=0) in (0, _SOFTMAX),
            f"{hp.arch}.expert_gating_func asks for something else than a softmax, which iqrun does not implement",
        )
        return cls(
            n_expert=n_expert,
            n_used=hp.uint("expert_used_count", high=n_expert),
            n_ff=hp.uint("expert_feed_forward_length", n_ff),
            norm_shares=hp.flag("expert_weights_norm", True),
            scale=hp.positive("expert_weights_scale", 1.0),
        )

    def write(self, p: Program, x: Buffer, h: Buffer, block: str) -> None:
        """``x +=`` what the experts of a block make of `h`."""
        (scores,) = p.matmul(h, [f"{block}.ffn_gate_inp.weight"], n_rows=[self.n_expert], into=["scores"])
        experts, shares = p.route(scores, self.n_used, norm_shares=self.norm_shares, scale=self.scale)
        dealt = p.deal(h, experts)  # (tokens * n_used, n_embd)
        g = p.gated_matmul(
            dealt, f"{block}.ffn_gate_exps.weight", f"{block}.ffn_up_exps.weight", n_rows=self.n_ff, into="ffn_exps"
        )
        (y,) = p.matmul(g, [f"{block}.ffn_down_exps.weight"], n_rows=[h.n_cols], into=["down_exps"])
        p.collect(x, y, shares)
