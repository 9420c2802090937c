"""A control group (version 1) of our own for a child process: a limit of memory, a slow disk. Needs root."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finished:
    """A command that ended: what it printed, the most memory that its group used, bytes that it read from disks."""

    output: str
    peak: int
    n_read: int


class ControlGroup:
    """Use it as a context manager; the groups are removed at its end."""

    def __init__(self, memory: int, read_speed: int | None, disk_of: Path) -> None:
        """Limits memory (with page cache) to so many bytes and, if given, the disk of a file to bytes per second."""
        name = f"iqrun-{os.getpid()}"
        self._memory, self._blkio = _ROOT / "memory" / name, _ROOT / "blkio" / name
        self._limit, self._read_speed, self._disk_of = memory, read_speed, disk_of

    @staticmethod
    def usable() -> bool:
        """Whether this user may make such groups on this system."""
        return all(os.access(_ROOT / kind / "cgroup.procs", os.W_OK) for kind in ("memory", "blkio"))

    def __enter__(self) -> ControlGroup:
        for folder in (self._memory, self._blkio):
            folder.mkdir()
        (self._memory / "memory.limit_in_bytes").write_text(str(self._limit))
        if self._read_speed is not None:
            device = self._disk_of.stat().st_dev
            rule = f"{os.major(device)}:{os.minor(device)} {self._read_speed}"
            (self._blkio / "blkio.throttle.read_bps_device").write_text(rule)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in (self._memory, self._blkio):
            folder.rmdir()

    def run(self, command: Sequence[str]) -> Finished:
        """Runs a command inside and waits for it.

        Raises:
            SystemExit: it failed.
        """
        (self._memory / "memory.force_empty").write_text("0")  # of page cache that the last command left
        (self._memory / "memory.max_usage_in_bytes").write_text("0")
        enter = f'echo $$ > {self._memory}/cgroup.procs; echo $$ > {self._blkio}/cgroup.procs; exec "$@"'
        with subprocess.Popen(["sh", "-c", enter, "sh", *command], stdout=subprocess.PIPE, text=True) as child:
            n_read = _watch_reads(child)
            output = child.stdout.read() if child.stdout else ""
        if child.returncode != 0:
            raise SystemExit(f"{command[0]} ended with {child.returncode}")
        return Finished(output, int((self._memory / "memory.max_usage_in_bytes").read_text()), n_read)


def _watch_reads(child: subprocess.Popen[str]) -> int:
    """Bytes that a process read from disks, as far as they were counted shortly before its end."""
    n_read = 0
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/io").read_text().splitlines()
        except OSError:
            break
        n_read = next((int(line.split()[1]) for line in lines if line.startswith("read_bytes:")), n_read)
        time.sleep(0.02)
    return n_read
