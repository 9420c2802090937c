"""What is different where an emulator runs each instruction, as tests/aarch64/run.sh does.

``IQRUN_RANDOM_CASES=0.1`` in the environment tries a tenth of the random cases of each property.
"""

from __future__ import annotations

import os

EMULATED = "EMULATED_CPU" in os.environ
SHARE = float(os.environ.get("IQRUN_RANDOM_CASES", "1"))
SLOWER = 20 if EMULATED else 1  # times as long as elsewhere is what must end soon allowed to take
_FEWEST = 3


def n_random(n: int) -> int:
    """How many of `n` random cases to try."""
    return n if SHARE >= 1 else max(min(n, _FEWEST), round(n * SHARE))
