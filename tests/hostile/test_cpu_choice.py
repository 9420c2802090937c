"""K7: on emulated processors of other kinds the best instruction set that runs is chosen, any other one is refused."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("qemu-x86_64") is None, reason="needs qemu-x86_64 on x86-64"
)

SCRIPT = """
import iqrun
from iqrun.models.demo import model_path
print(iqrun.cpu_info()["isa"])
with iqrun.load(model_path(), n_threads=1, n_ctx=64) as model:
    print(len(model.tokenizer.encode(model.complete("Once", max_tokens=2, temperature=0))) > 0)
"""


def run_on(cpu: str, isa: str = "") -> subprocess.CompletedProcess[str]:
    """Python and iqrun on an emulated processor."""
    environment = {**os.environ, "IQRUN_ISA": isa, "PYTHONFAULTHANDLER": "1"}
    command = ["qemu-x86_64", "-cpu", cpu, sys.executable, "-c", SCRIPT]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.mark.parametrize(
    ("cpu", "best", "too_new"),
    [("Nehalem", "portable", "avx2"), pytest.param("Haswell", "avx2", "avx512", marks=pytest.mark.slow)],
)
def test_k7_old_processors(cpu: str, best: str, too_new: str) -> None:
    """The best table that the processor runs computes; forcing a better one is an error that names the choices. The C
    tests do the same below numpy's baseline (tests/c/run_old_cpus.sh)."""
    found = run_on(cpu)
    assert (found.returncode, found.stdout.split()) == (0, [best, "True"]), found.stderr
    found = run_on(cpu, too_new)
    assert found.returncode == 1
    assert f'instruction set "{too_new}" does not run on this machine; choose one of:' in found.stderr
