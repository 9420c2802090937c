"""What this machine has for running a model, measured in a few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from statistics import median
from time import sleep

from iqrun import machine
from iqrun.benchmark.timing import read_bandwidth
from iqrun.errors import IqrunError
from iqrun.fitting.disk import read_speed
from iqrun.fitting.kernels import bytes_per_second, computing, seconds_per_operation

_READ_BYTES = 256 << 20  # larger than caches are
_ALONE = 0.3  # seconds of computing beside a disk at rest


@dataclass(frozen=True, slots=True)
class Board:
    """A machine.

    Attributes:
        cpu: the processor's name; isa: the instruction set in use.
        n_threads: threads that will compute.
        free_memory: bytes that can be used without swapping, within the limit of the control group.
        read_bandwidth: bytes per second that these threads read from memory together.
        disk_speed: bytes per second that a stream reads from the disk, or None if it could not be measured.
        disk_speed_busy: the same while the threads compute: readers wait for a core then.
        speed_beside_disk: the part of their speed at which the threads compute meanwhile: both need the memory.
        bytes_per_second: by type, of weights that these threads multiply together with one token.
        op_seconds: what an operation of a step takes besides its weights.
    """

    cpu: str
    isa: str
    n_threads: int
    free_memory: int
    read_bandwidth: float
    disk_speed: float | None
    disk_speed_busy: float | None
    speed_beside_disk: float
    bytes_per_second: Mapping[str, float]
    op_seconds: float


def measure_board(
    path: str | PathLike[str] | None = None, *, n_threads: int | None = None, free_memory: int | None = None
) -> Board:
    """Measures this machine.

    Args:
        path: a model on the disk that matters; by default the temporary folder is measured.
        n_threads: threads that will compute; by default as for a model.
        free_memory: bytes to reckon with; by default what is free.

    Raises:
        IqrunError: this system does not tell how much memory is free.
    """
    info = machine.cpu_info()
    free = machine.available_memory() if free_memory is None else free_memory
    if free is None:
        raise IqrunError("this system does not tell how much memory is free: give --memory")
    threads = info["n_cores"] if n_threads is None else n_threads
    disk_speed_busy, speed_beside_disk = _both_at_once(path, threads)
    return Board(
        cpu=info["model"],
        isa=info["isa"],
        n_threads=threads,
        free_memory=free,
        read_bandwidth=read_bandwidth(threads, _READ_BYTES),
        disk_speed=read_speed(path),
        disk_speed_busy=disk_speed_busy,
        speed_beside_disk=speed_beside_disk,
        bytes_per_second=bytes_per_second(threads),
        op_seconds=seconds_per_operation(threads),
    )


def _both_at_once(path: str | PathLike[str] | None, n_threads: int) -> tuple[float | None, float]:
    """The disk's speed while threads compute, and the part of their speed that they keep."""
    with computing(n_threads) as rates:
        sleep(_ALONE)
        alone = list(rates)
        speed = read_speed(path)
        beside = rates[len(alone) :]
    if speed is None or not alone or not beside:
        return speed, 1.0
    return speed, min(1.0, median(beside) / median(alone))
