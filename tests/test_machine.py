from __future__ import annotations

import os
from pathlib import Path

import pytest

from iqrun import machine


def fake_cpus(folder: Path, siblings: list[str]) -> Path:
    for cpu, names in enumerate(siblings):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(names + "\n")
    return folder


@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"], range(8), 4),
        (["0", "1", "2", "3"], range(4), 4),
        (["0-1", "0-1", "2-3", "2-3"], range(4), 2),
        (["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"], [0, 4], 1),
        ([], range(3), 3),
    ],
)
def test_physical_cores(
    siblings: list[str], allowed: list[int], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of one core count once; the affinity mask counts; without topology each CPU is a core."""
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: set(allowed))
    assert machine.physical_cores(fake_cpus(tmp_path, siblings), tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_control_group_limits_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions of control groups; no limit and nonsense leave all cores."""
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.physical_cores(tmp_path / "none", tmp_path) == cores


def test_available_memory_is_the_smaller_limit(tmp_path: Path) -> None:
    """The kernel's number, or the control group's limit minus its use without page cache."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    assert machine.available_memory(proc, cgroup) is None
    (proc / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    1000 kB\n")
    assert machine.available_memory(proc, cgroup) == 1024000
    (cgroup / "memory.max").write_text("900000")
    (cgroup / "memory.current").write_text("500000")
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert machine.available_memory(proc, cgroup) == 500000
    (cgroup / "memory.max").write_text("max")
    assert machine.available_memory(proc, cgroup) == 1024000


def test_cpu_info_describes_this_machine() -> None:
    """The instruction set in use is one of those that run here, the portable one always does."""
    info = machine.cpu_info()
    assert info["isas"]["portable"] is True
    assert info["isas"][os.environ.get("IQRUN_ISA") or info["isa"]] is True
    assert info["n_cores"] >= 1
    assert info["model"]
