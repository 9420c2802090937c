"""What this process may use of the machine: cores and memory, within affinity masks and control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from iqrun import native

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_FAST_SHARE = (
    0.7  # of the fastest core's speed: less is another kind of core, not a boost that varies from core to core
)
_NO_LIMIT = 1 << 60  # how version 1 of control groups says that there is none


class CpuInfo(TypedDict):
    """What `cpu_info` returns."""

    model: str
    n_cores: int
    isa: str
    isas: dict[str, bool]


def cpu_info() -> CpuInfo:
    """The processor as iqrun sees it.

    Returns:
        ``model`` (the processor's name), ``n_cores`` (threads used by default), ``isa`` (the instruction set in use)
        and ``isas`` (all that are built in, best first, and whether each runs here).

    Example:
        >>> iqrun.cpu_info()["isa"]
        'avx2'
    """
    return {"model": _cpu_model(), "n_cores": physical_cores(), "isa": native.isa_name(), "isas": native.built_isas()}


def physical_cores(cpus: Path = _CPUS, cgroup: Path = _CGROUP) -> int:
    """Fast physical cores that this process may run on: two threads of one core gain nothing when both multiply.

    On a processor with several kinds of cores only the fast ones count: memory, which sets the pace, is read by them as
    fast, with less power. Respects the affinity mask and the CPU quota of the control group. Memory pressure
    takes no core away: a stage waits for work, not for threads, so a core that the system needs is given up at once.
    """
    allowed = _fast_cpus(_allowed_cpus(), cpus)
    cores = {_siblings(cpus / f"cpu{cpu}") or str(cpu) for cpu in allowed}
    quota = _cpu_quota(cgroup)
    return max(1, len(cores) if quota is None else min(len(cores), quota))


def available_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be allocated without swapping, or None where it cannot be told.

    The smallest of what the kernel calls available and what the limits of the control groups leave.
    """
    left = [max(0, limit - charge) for limit, charge in _memory_charges(proc, cgroup)]
    free = _mem_available(proc)
    return min(left if free is None else [free, *left], default=None)


def process_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes of memory that this process uses now, or None where it cannot be told.

    Its resident set; or what its control group is charged with, if that is less: libraries that others use, too, may be
    on their account.
    """
    words = (_read(proc / "self" / "statm") or "").split()
    if len(words) < 2 or not words[1].isdigit():
        return None
    resident = int(words[1]) * os.sysconf("SC_PAGE_SIZE")
    charged = [max(0, charge) for limit, charge in _memory_charges(proc, cgroup) if limit < _NO_LIMIT]
    return min([resident, *charged])


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _fast_cpus(allowed: set[int], cpus: Path) -> set[int]:
    """Those of the fastest kind, as far as the system tells kinds apart.

    Linux tells a relative capacity (ARM), lists the kinds of a hybrid Intel processor, or tells the highest frequency.
    """
    atoms = allowed & _cpu_list(_read(cpus.parent.parent / "cpu_atom" / "cpus") or "")
    if atoms:
        return (allowed - atoms) or allowed
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {cpu: _read_int(cpus / f"cpu{cpu}" / file) or 0 for cpu in allowed}
        if min(speeds.values(), default=0) > 0:
            return {cpu for cpu, speed in speeds.items() if speed >= _FAST_SHARE * max(speeds.values())}
    return allowed


def _cpu_list(text: str) -> set[int]:
    """The numbers of a list such as ``0-3,8``; what is no number is left out."""
    ranges = [part.split("-") for part in text.split(",")]
    numbers = [[int(end) for end in ends] for ends in ranges if all(end.strip().isdigit() for end in ends)]
    return {cpu for ends in numbers for cpu in range(ends[0], ends[-1] + 1)}


def _siblings(cpu: Path) -> str | None:
    """The logical CPUs of this one's core, e.g. ``0,4``: the name of the core, so to speak."""
    return _read(cpu / "topology" / "thread_siblings_list")


def _cpu_quota(cgroup: Path) -> int | None:
    """Whole CPUs that the control group grants (at least one), or None without a limit."""
    period = _read_int(cgroup / "cpu" / "cpu.cfs_period_us")
    limit = _read_int(cgroup / "cpu" / "cpu.cfs_quota_us")
    words = (_read(cgroup / "cpu.max") or "").split()
    if len(words) == 2 and all(word.isdigit() for word in words):
        limit, period = int(words[0]), int(words[1])
    return max(1, limit // period) if limit and period and limit > 0 else None


def _mem_available(proc: Path) -> int | None:
    for line in (_read(proc / "meminfo") or "").splitlines():
        words = line.split()
        if words[:1] == ["MemAvailable:"] and words[1].isdigit():
            return int(words[1]) * 1024
    return None


def _memory_groups(proc: Path, cgroup: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The control groups that this process is in, from its own to the root: folder, limit, use, name of the cache."""
    lines = (_read(proc / "self" / "cgroup") or "").splitlines()
    for line in ["0::/", "0:memory:/", *(line for line in lines if line.count(":") >= 2)]:
        _, kinds, path = line.split(":", 2)
        names = [part for part in path.split("/") if part]
        for depth in range(len(names), -1, -1):
            own = Path(*names[:depth])
            if not kinds:
                yield cgroup / own, "memory.max", "memory.current", "inactive_file"
            elif "memory" in kinds.split(","):
                base = cgroup / "memory" / own
                yield base, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def _memory_charges(proc: Path, cgroup: Path) -> Iterator[tuple[int, int]]:
    """Limit and charge of each of these groups, where clean page cache does not count: it gives way."""
    for base, limit_file, use_file, cache_key in _memory_groups(proc, cgroup):
        limit, use = _read_int(base / limit_file), _read_int(base / use_file)
        if limit is not None and use is not None:
            yield limit, use - _stat(base / "memory.stat", cache_key)


def _stat(path: Path, key: str) -> int:
    for line in (_read(path) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == key and words[1].isdigit():
            return int(words[1])
    return 0


def _cpu_model() -> str:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    import platform

    return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _read_int(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text and text.lstrip("-").isdigit() else None
