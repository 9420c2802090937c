"""What fits on this machine: `iqrun fit`.

- `board`: what the machine has, measured: cores, memory, how fast memory and disk are read (`disk`), what a weight of
  each type costs the kernels (`kernels`);
- `shapes`: the tensors of a model, from a file or from a size such as 3b;
- `estimate`: size, memory and speed of the model in each type, and which one to take;
- `quality`: what each type keeps of a model, as measured.
"""

from iqrun.fitting.board import Board, measure_board
from iqrun.fitting.estimate import TYPES, Estimate, Recommendation, estimate_all, recommend, verdict
from iqrun.fitting.shapes import ModelShape, shape_of

__all__ = [
    "TYPES",
    "Board",
    "Estimate",
    "ModelShape",
    "Recommendation",
    "estimate_all",
    "measure_board",
    "recommend",
    "shape_of",
    "verdict",
]
