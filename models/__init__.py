"""The architectures that iqrun runs: one file each, and the table that finds them.

To add one, write ``program(file) -> Program`` in a new file and a line here. What is shared is little on purpose: each
file can be read alone.
"""

from __future__ import annotations

from collections.abc import Callable

from iqrun.gguf import GGUFFile
from iqrun.models import llama, qwen2, qwen3
from iqrun.program import Program

ARCHITECTURES: dict[str, Callable[[GGUFFile], Program]] = {
    "llama": llama.program,
    "qwen2": qwen2.program,
    "qwen3": qwen3.program,
    "qwen3moe": qwen3.program,
}
