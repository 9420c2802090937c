"""Sessions of several threads in one engine.

- `parallel`: the engine that they share: one step for all that wait, prompts read once;
- `session`: a sequence of it, with the face of `iqrun.Session`.
"""

from iqrun.parallel.parallel import Parallel
from iqrun.parallel.session import ParallelSession

__all__ = ["Parallel", "ParallelSession"]
