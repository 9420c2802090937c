"""What fits on this machine: `iqrun fit`.

- `board`: what the machine has, measured: cores, memory, how fast the disk is read (`disk`), how fast weights of each
  type are multiplied (`kernels`);
- `sources`: the model, a file or a size such as 3b; `candidates`: that model in each type;
- `estimate`: memory and speed of each, and which one to take;
- `quality`: what each type keeps of a model, as measured.
"""

from iqrun.fitting.board import Board, measure_board
from iqrun.fitting.candidates import TYPES, Candidate, candidates
from iqrun.fitting.estimate import PACE, Estimate, Estimator, Recommendation, verdict
from iqrun.fitting.sources import open_source

__all__ = [
    "PACE",
    "TYPES",
    "Board",
    "Candidate",
    "Estimate",
    "Estimator",
    "Recommendation",
    "candidates",
    "measure_board",
    "open_source",
    "verdict",
]
