"""`StopFinder`: stop strings in a stream of text, also where they span its pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Cuts a stream of text at the first stop string, holding back what may become one.

    Attributes:
        found: whether a stop string was met; everything after it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError("a stop string must be a str that is not empty")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that cannot be part of a stop string any more."""
        if not self._stops:
            return text
        if self.found:
            return ""
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """What was held back to the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
