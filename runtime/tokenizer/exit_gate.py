"""Keeps the end of the interpreter away from threads inside the C++ and Rust tokenizer libraries.

Up to Python 3.13 a daemon thread that comes back from such a library while the interpreter ends is ended on the spot,
by unwinding its stack. C++ and Rust abort the whole process at that. So the exit waits for the threads that are inside,
and lets no other one in: those wait until the process is gone.
"""

from __future__ import annotations

import atexit
import os
from threading import Condition, Lock, get_ident

_MOST_SECONDS = 5.0  # a text of megabytes; longer than that nobody waits


class ExitGate:
    """A context manager around calls into such a library."""

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._inside = 0
        self._closed_by: int | None = None

    def __enter__(self) -> None:
        with self._changed:
            if self._closed_by in (None, get_ident()):
                self._inside += 1
                return
        _wait_for_ever()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed_by is not None:
                self._changed.notify_all()

    def close(self) -> None:
        """Lets only the calling thread in from now on; returns when nobody is inside."""
        with self._changed:
            self._closed_by = get_ident()
            self._changed.wait_for(lambda: self._inside == 0, timeout=_MOST_SECONDS)


def _wait_for_ever() -> None:
    lock = Lock()
    lock.acquire()
    lock.acquire()


gate = ExitGate()
atexit.register(gate.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gate.__init__)  # type: ignore[misc]  # the other threads are not there
