"""Thinking sections: what a reasoning model writes for itself, between markers, before it answers."""

from __future__ import annotations

from typing import NamedTuple

# Opening and closing markers of the model families: DeepSeek-R1, Qwen3 and most others; Magistral; Cohere; Seed; Kimi;
# gpt-oss.
MARKERS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)


class Part(NamedTuple):
    """A piece of an answer.

    Attributes:
        text: without markers.
        thinking: whether it stands in a thinking section.
    """

    text: str
    thinking: bool


class ThinkingSplitter:
    """Tells thinking from answer in a text that comes in pieces; markers may span them.

    A section counts only at the beginning of the answer or right behind another one: an answer may well write about
    ``<think>``. Nothing is held back but what may still become a marker.
    """

    def __init__(self) -> None:
        self._close = ""  # the marker that ends the open section; empty outside of one
        self._in_answer = False  # no section can begin any more
        self._held = ""
        self._n_sections = 0

    @property
    def in_section(self) -> bool:
        """Whether a thinking section is open."""
        return bool(self._close)

    def feed(self, text: str) -> list[Part]:
        """What became certain with this piece."""
        self._held += text
        parts: list[Part] = []
        while self._advance(parts):
            pass
        return parts

    def finish(self) -> list[Part]:
        """What was held back to the end."""
        rest, self._held = self._held, ""
        if not self._close and self._n_sections and not self._in_answer:
            rest = rest.lstrip()
        return [Part(rest, bool(self._close))] if rest else []

    def _advance(self, parts: list[Part]) -> bool:
        """Gives out what is certain; whether a marker was passed, so that more may be."""
        if self._in_answer:
            self._give(len(self._held), parts)
            return False
        return self._in_section(parts) if self._close else self._before_section()

    def _before_section(self) -> bool:
        begun = self._held.lstrip()
        for opening, closing in MARKERS:
            if begun.startswith(opening):
                self._held, self._close = begun[len(opening) :], closing
                self._n_sections += 1
                return True
        if any(opening.startswith(begun) for opening, _ in MARKERS):
            return False
        self._in_answer = True
        self._held = begun if self._n_sections else self._held
        return True

    def _in_section(self, parts: list[Part]) -> bool:
        place = self._held.find(self._close)
        if place < 0:
            self._give(len(self._held) - _overlap(self._held, self._close), parts)
            return False
        self._give(place, parts)
        self._held, self._close = self._held[len(self._close) :], ""
        return True

    def _give(self, n_chars: int, parts: list[Part]) -> None:
        if n_chars:
            parts.append(Part(self._held[:n_chars], bool(self._close)))
            self._held = self._held[n_chars:]


def split_thinking(text: str) -> tuple[str, str]:
    """The thinking sections of a whole answer, and the answer itself; the first is empty if it has none."""
    splitter = ThinkingSplitter()
    parts = splitter.feed(text) + splitter.finish()
    thought = "".join([part.text for part in parts if part.thinking])
    return thought.strip(), "".join([part.text for part in parts if not part.thinking])


def opened_section(prompt: str) -> str:
    """The end of a prompt that opens a thinking section on the model's behalf; empty if it does not."""
    begun = prompt.rstrip()
    opening = next((opening for opening, _ in MARKERS if begun.endswith(opening)), "")
    return prompt[len(begun) - len(opening) :] if opening else ""


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that `marker` begins with."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)
