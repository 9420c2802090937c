"""Rotary position embedding: the frequencies of a file, with the scaling that stretches its context.

Plain RoPE turns pair i of a head by ``position * base^(-2i/n_rot)`` (Su et al. 2021). Scaling changes the frequencies:

- linear (Chen et al. 2023): all divided by a factor;
- llama3: each divided by its own factor, stored in the tensor ``rope_freqs.weight``;
- yarn (Peng et al. 2023): slow pairs divided, fast pairs kept, a ramp between, and cos and sin scaled a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log, pi

import numpy as np
import numpy.typing as npt

from iqrun.errors import shown
from iqrun.hparams import HParams
from iqrun.program import Buffer, Program

FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Rope:
    """How positions become angles.

    Attributes:
        n_rot: columns of a head that are turned; even, at most head_dim.
        freq_base: base of the geometric series of frequencies.
        scaling: ``none``, ``linear`` or ``yarn``.
        factor: by how much the context is stretched.
        n_ctx_original: context before stretching (yarn).
        attn_factor, beta_fast, beta_slow: yarn's other parameters; the betas are turns within `n_ctx_original`.
    """

    n_rot: int
    freq_base: float
    scaling: str
    factor: float
    n_ctx_original: int
    attn_factor: float
    beta_fast: float
    beta_slow: float

    @classmethod
    def from_gguf(cls, hp: HParams, head_dim: int) -> Rope:
        """Reads the ``rope.*`` keys.

        Raises:
            GGUFError: a key has the wrong type.
            UnsupportedModelError: a value is out of range, or the kind of scaling is unknown.
        """
        n_rot = hp.uint("rope.dimension_count", head_dim, low=2, high=head_dim)
        hp.expect(n_rot % 2 == 0, f"{hp.arch}.rope.dimension_count is {n_rot}, but must be even")
        factor = hp.positive("rope.scaling.factor", hp.positive("rope.scale_linear", 1.0))
        scaling = hp.text("rope.scaling.type", "none" if factor == 1.0 else "linear")
        hp.expect(
            scaling in ("none", "linear", "yarn"),
            f"{hp.arch}.rope.scaling.type is {shown(scaling)}, but only none, linear and yarn are implemented",
        )
        freq_base = hp.positive("rope.freq_base", 10000.0)
        hp.expect(freq_base > 1.0, f"{hp.arch}.rope.freq_base is {freq_base}, but must be above 1")
        return cls(
            n_rot=n_rot,
            freq_base=freq_base,
            scaling=scaling,
            factor=factor,
            n_ctx_original=hp.uint("rope.scaling.original_context_length", hp.uint("context_length")),
            attn_factor=hp.positive("rope.scaling.attn_factor", 1.0),
            beta_fast=hp.positive("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=hp.positive("rope.scaling.yarn_beta_slow", 1.0),
        )

    def inv_freq(self) -> npt.NDArray[np.float64]:
        """Radians per position of each pair, shape ``(n_rot / 2,)``."""
        pairs = np.arange(self.n_rot // 2, dtype=np.float64)
        fast = self.freq_base ** (-2.0 * pairs / self.n_rot)
        if self.scaling == "none":
            return fast
        slow = fast / self.factor
        if self.scaling == "linear":
            return slow
        low, high = (
            max(floor(self._pair_of(self.beta_fast)), 0),
            min(ceil(self._pair_of(self.beta_slow)), self.n_rot - 1),
        )
        stretched = np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)
        return slow * stretched + fast * (1.0 - stretched)

    def scale(self) -> float:
        """Factor of cos and sin: yarn's attention temperature."""
        return self.attn_factor * (1.0 + 0.1 * log(max(self.factor, 1.0))) if self.scaling == "yarn" else 1.0

    def table(self, p: Program) -> Buffer:
        """Writes the operation that makes the cosines and sines of a step, with the file's llama3 factors if any."""
        inv_freq = self.inv_freq()
        if p.has(FACTORS):
            inv_freq = inv_freq / p.floats(FACTORS, self.n_rot // 2)
        return p.rope_table(inv_freq.astype(np.float32), scale=self.scale())

    def _pair_of(self, n_turns: float) -> float:
        """The (fractional) pair that turns `n_turns` times within the original context."""
        return self.n_rot * log(self.n_ctx_original / (n_turns * 2 * pi)) / (2 * log(self.freq_base))
