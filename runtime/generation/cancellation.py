"""`CancelToken`: stops a generation from outside, also while a long prompt is being read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from iqrun.errors import CancelledError


class CancelToken:
    """Give it to any number of generations; `cancel` ends them all, from any thread, within one step.

    Example:
        >>> token = iqrun.CancelToken()
        >>> threading.Timer(10, token.cancel).start()
        >>> for piece in model.stream("Once upon a time", cancel=token):  # raises CancelledError after 10 seconds
        ...     print(piece, end="")
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._lock = Lock()
        self._stops: list[Callable[[], object]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ends what runs with this token, and what will; safe to call twice."""
        self._cancelled = True
        with self._lock:
            stops = list(self._stops)
        for stop in stops:
            stop()

    def check(self) -> None:
        """Raises CancelledError if `cancel` was called."""
        if self._cancelled:
            raise CancelledError("the generation was cancelled")

    @contextmanager
    def bound(self, stop: Callable[[], object]) -> Iterator[None]:
        """While the block runs, `cancel` also calls `stop`."""
        with self._lock:
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)
