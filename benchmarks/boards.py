"""What would a Raspberry Pi do? The table of docs/raspberry-pi.md, computed, not measured.

The estimate of `iqrun fit`, on boards that are described here instead of measured: the read bandwidth that others saw
under decoding, and the instructions per 256 weights of our inner loops (docs/performance.md), at so many per cycle.

    python benchmarks/boards.py
"""

from __future__ import annotations

from dataclasses import dataclass

from iqrun.fitting import Board, Candidate, Estimator, candidates, open_source
from iqrun.formats import FORMATS
from iqrun.text_tables import markdown_table

# Instructions per 256 weights when one token is decoded, counted under emulation (docs/performance.md).
NEON_DOTPROD = {
    "IQ2_K": 116,
    "IQ2_KS": 100,
    "IQ2_KL": 128,
    "IQ3_K": 193,
    "IQ3_KS": 160,
    "IQ4_K": 131,
    "IQ4_KS": 91,
    "IQ4_KSS": 146,
    "IQ5_K": 184,
    "IQ5_KS": 154,
    "IQ6_K": 184,
    "Q4_0": 96,
    "Q8_0": 77,
    "Q4_K": 105,
    "Q6_K": 154,
}
NEON = {
    "IQ2_K": 161,
    "IQ2_KS": 143,
    "IQ2_KL": 166,
    "IQ3_K": 241,
    "IQ3_KS": 208,
    "IQ4_K": 175,
    "IQ4_KS": 129,
    "IQ4_KSS": 188,
    "IQ5_K": 228,
    "IQ5_KS": 194,
    "IQ6_K": 230,
    "Q4_0": 138,
    "Q8_0": 128,
    "Q4_K": 151,
    "Q6_K": 198,
}
# Of the pace that memory or kernels alone would allow: an assumption for boards that were not measured.
ENGINE_SHARE = 0.85
SIZES = ("0.5b", "1.1b", "1.5b", "3b", "8b", "14b")
SHOWN = ("IQ2_KS", "IQ2_K", "IQ3_KS", "IQ3_K", "IQ4_KS", "IQ4_K", "IQ5_K", "IQ6_K")
N_CTX = 2048


@dataclass(frozen=True)
class Kind:
    """A processor: 4 cores."""

    name: str
    clock: float
    per_cycle: float  # instructions
    read_bandwidth: float
    instructions: dict[str, int]

    def estimator(self, gigabytes: int) -> Estimator:
        """With so much memory, of which the system keeps 0.4 GB for itself; no streaming."""
        rates = {name: self._rate(name, n) for name, n in self.instructions.items()}
        free = int(gigabytes * 1e9 - 0.4e9)
        return Estimator(Board(self.name, "neon", 4, free, ENGINE_SHARE * self.read_bandwidth, None, rates, 0.0))

    def _rate(self, name: str, instructions: int) -> float:
        """Bytes per second of a type: the engine's share of what memory and four cores allow."""
        weights_per_second = 4 * 256 * self.per_cycle * self.clock / instructions
        return ENGINE_SHARE * min(self.read_bandwidth, weights_per_second * FORMATS[name].row_bytes(2048) / 2048)


Models = dict[str, list[Candidate]]
PI4 = Kind("Pi 4", 1.8e9, 1.2, 4e9, NEON)
PI5 = Kind("Pi 5", 2.4e9, 2.0, 11e9, NEON_DOTPROD)


def speeds(kind: Kind, models: Models) -> list[list[str]]:
    """Tokens per second by size and type."""
    rows = []
    for size, model in models.items():
        found = {e.type: e.tokens_per_second for e in kind.estimator(64).estimate_all(model, N_CTX)}
        rows.append([size, *(f"{found[name] or 0:.1f}" for name in SHOWN)])
    return rows


def advice(kind: Kind, gigabytes: int, models: Models) -> list[str]:
    """For each size the type to take on a board with so much memory."""
    cells = []
    for model in models.values():
        estimate = kind.estimator(gigabytes).recommend(model, N_CTX).estimate
        speed = f"{estimate.tokens_per_second or 0:.1f}"
        cells.append(f"{estimate.type}, {speed}" if estimate.fits and estimate.n_ctx == N_CTX else "-")
    return cells


def main() -> None:
    models = {size: list(candidates(open_source(size))) for size in SIZES}
    for kind in (PI5, PI4):
        print(f"{kind.name}: tokens/s by size and type\n")
        print(markdown_table(["size", *SHOWN], speeds(kind, models)) + "\n")
    boards = [(PI4, n) for n in (1, 2, 4, 8)] + [(PI5, n) for n in (2, 4, 8, 16)]
    print("what to take: type, tokens/s\n")
    rows = [[f"{kind.name}, {n} GB", *advice(kind, n, models)] for kind, n in boards]
    print(markdown_table(["board", *SIZES], rows))


if __name__ == "__main__":
    main()
