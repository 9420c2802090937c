"""What each type keeps of a model: mean KL divergence from the F16 file, measured.

The figures are those of docs/quantization.md: the 13M-parameter demo model, files made with ``--calibrate`` and
``--best-mix``, nats per token on held-out text. Larger models lose less at the same type: these figures compare types,
they do not predict a model's own, which ``iqrun compare`` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DIVERGENCE: Mapping[str, float] = MappingProxyType(
    {
        "IQ2_KS": 0.02994,
        "IQ2_K": 0.01988,
        "IQ2_KL": 0.01510,
        "IQ3_KS": 0.00781,
        "IQ3_K": 0.00579,
        "IQ4_KSS": 0.00221,
        "IQ4_KS": 0.00178,
        "IQ4_K": 0.00123,
        "IQ5_KS": 0.00059,
        "IQ5_K": 0.00053,
        "IQ6_K": 0.00028,
        "Q8_0": 0.00019,  # as it is; see docs/which-type.md
    }
)
_CLASSES = ((0.0004, "as good"), (0.001, "near"), (0.0025, "good"), (0.01, "fair"))
_EXACT = ("F16", "BF16", "F32")


def quality_class(type_name: str) -> str | None:
    """A word for what a type keeps: full, as good, near, good, fair, rough; None for a type that was not measured."""
    if type_name in _EXACT:
        return "full"
    divergence = DIVERGENCE.get(type_name)
    if divergence is None:
        return None
    return next((word for limit, word in _CLASSES if divergence <= limit), "rough")
