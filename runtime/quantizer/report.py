"""What a quantization did: per tensor and in total."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the new file.

    Attributes:
        name: its name.
        shape: GGUF order, row length first.
        source: type in the old file.
        target: type in the new file.
        fallback: the type that was wanted, if the rows did not fit it, else None.
        n_bytes: size in the new file.
        weighted: whether an importance matrix guided it.
        relative_error: sqrt(sum w (x - y)^2 / sum w x^2) over all weights, w being the importance (1 without);
            0 for a copied tensor, None in a dry run.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    target: str
    fallback: str | None
    n_bytes: int
    weighted: bool
    relative_error: float | None

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        n = 1
        for size in self.shape:
            n *= size
        return n

    @property
    def bpw(self) -> float:
        """Bits per weight."""
        return 8 * self.n_bytes / self.n_weights

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "shape": list(self.shape), "n_weights": self.n_weights, "bpw": self.bpw}


@dataclass(frozen=True)
class QuantizeReport:
    """A quantization.

    Attributes:
        source, destination: the files.
        type: the type asked for.
        effort: how hard the encoder searched.
        imatrix: path of the importance matrix, or None.
        source_bytes, n_bytes: sizes of the old and the new file, headers included.
        seconds: wall time.
        dry_run: nothing was encoded or written.
        warnings: what the user should know, one sentence each.
        tensors: the tensors in file order.
    """

    source: str
    destination: str
    type: str
    effort: str
    imatrix: str | None
    source_bytes: int
    n_bytes: int
    seconds: float
    dry_run: bool
    warnings: tuple[str, ...]
    tensors: tuple[TensorReport, ...]

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def bpw(self) -> float:
        """Bits per weight over all tensors, headers left out."""
        return 8 * sum(tensor.n_bytes for tensor in self.tensors) / max(self.n_weights, 1)

    @property
    def n_fallbacks(self) -> int:
        """Tensors that got a substitute type."""
        return sum(tensor.fallback is not None for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        totals = {"n_weights": self.n_weights, "bpw": self.bpw, "n_fallbacks": self.n_fallbacks}
        fields = {key: value for key, value in vars(self).items() if key not in ("tensors", "warnings")}
        rows = [tensor.to_dict() for tensor in self.tensors]
        return {**fields, **totals, "warnings": list(self.warnings), "tensors": rows}
