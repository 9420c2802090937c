from __future__ import annotations

import os
from pathlib import Path

import pytest

from iqrun import machine
from tests.emulated import EMULATED


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


def fake_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")


def speeds(file: str, values: list[int]) -> dict[str, str]:
    return {f"system/cpu/cpu{cpu}/{file}": str(value) for cpu, value in enumerate(values)}


@pytest.mark.parametrize(
    ("files", "allowed", "cores"),
    [
        (speeds("cpu_capacity", [414, 414, 414, 414, 1024, 1024]), range(6), 2),  # RK3399
        (
            speeds("cpu_capacity", [290, 290, 290, 290, 890, 890, 890, 1024]),
            range(8),
            4,
        ),  # a phone: the prime core counts
        (speeds("cpu_capacity", [414, 414, 1024, 1024]), [0, 1], 2),  # only slow ones are allowed
        (speeds("cpu_capacity", [1024] * 4), range(4), 4),  # Raspberry Pi
        (speeds("cpufreq/cpuinfo_max_freq", [1800000, 1800000, 3000000, 3000000]), range(4), 2),
        (speeds("cpufreq/cpuinfo_max_freq", [5000000, 5000000, 5300000, 5300000]), range(4), 4),  # favoured cores
        (speeds("cpufreq/cpuinfo_max_freq", [1800000, 1800000, 3000000]), range(4), 4),  # one says nothing
        ({"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-7"}, range(8), 4),  # hybrid Intel
        ({"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-7"}, [5, 6], 2),
        ({"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4,6-7"}, range(8), 5),
        ({"cpu_atom/cpus": "nonsense-"}, range(3), 3),
    ],
)
def test_only_fast_cores_count(
    files: dict[str, str], allowed: list[int], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several kinds the fast ones, by capacity, Intel's kinds, or frequency; never none."""
    fake_files(tmp_path / "devices", files)
    monkeypatch.setattr(machine, "_allowed_cpus", lambda: set(allowed))
    assert machine.physical_cores(tmp_path / "devices" / "system" / "cpu", tmp_path / "none") == cores


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


@pytest.mark.parametrize(
    ("line", "base", "limit", "use", "cache"),
    [
        ("0::/app.slice/iqrun.service", "", "memory.max", "memory.current", "inactive_file"),
        (
            "4:cpu,memory:/app.slice/iqrun.service",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_available_memory_knows_the_group_of_this_process(
    line: str, base: str, limit: str, use: str, cache: str, tmp_path: Path
) -> None:
    """A limit of its own group or of one above it counts, the tightest of them."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemAvailable:    1000 kB\n")
    (proc / "self" / "cgroup").write_text(f"9:name=systemd:/\n{line}\n")
    own = cgroup / base / "app.slice" / "iqrun.service"
    own.mkdir(parents=True)
    for folder, most in ((own, 900_000), (own.parent, 700_000)):
        (folder / limit).write_text(str(most))
        (folder / use).write_text("300000")
        (folder / "memory.stat").write_text(f"{cache} 50000\n")
    assert machine.available_memory(proc, cgroup) == 450_000


def test_process_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    """Pages of the resident set, or what a limited control group is charged with; nothing where there is no /proc."""
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    assert machine.process_memory(proc, cgroup) is None
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "statm").write_text("1000 200 30 1 0 5 0\n")
    resident = 200 * os.sysconf("SC_PAGE_SIZE")
    assert machine.process_memory(proc, cgroup) == resident
    cgroup.mkdir()
    (cgroup / "memory.max").write_text("900000000")
    (cgroup / "memory.current").write_text(str(resident - 1000))
    (cgroup / "memory.stat").write_text("anon 1\ninactive_file 4000\n")
    assert machine.process_memory(proc, cgroup) == resident - 5000
    (cgroup / "memory.max").write_text("max")
    assert machine.process_memory(proc, cgroup) == resident


@pytest.mark.skipif(EMULATED, reason="/proc/cpuinfo is that of the machine that emulates")
def test_instruction_sets_that_the_system_names_run_here() -> None:
    """CPUID, or what the system tells instead, is read as Linux reads it; an old kernel may not name what is new."""
    flags = set((machine._read(Path("/proc/cpuinfo")) or "").split())
    names = {"avx2": "avx2", "avxvnni": "avx_vnni", "neon_dotprod": "asimddp", "neon_i8mm": "i8mm"}
    isas = machine.cpu_info()["isas"]
    assert [isa for isa, flag in names.items() if flag in flags and not isas.get(isa, True)] == []


def test_cpu_info_describes_this_machine() -> None:
    """The instruction set in use is one of those that run here, the portable one always does."""
    info = machine.cpu_info()
    assert info["isas"]["portable"] is True
    assert info["isas"][os.environ.get("IQRUN_ISA") or info["isa"]] is True
    assert info["n_cores"] >= 1
    assert info["model"]
