"""How an answer appears: thinking sections, Markdown, word wrap and the status bar, in this order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from types import TracebackType
from typing import Literal, TypeAlias

from iqrun.chat.thinking import Part, ThinkingSplitter
from iqrun.cli import ui
from iqrun.cli.markdown import FAINT, Markdown, Span
from iqrun.cli.status_bar import StatusBar
from iqrun.cli.wrap import WordWrap

Think: TypeAlias = Literal["show", "dim", "hide"]
THINK: tuple[Think, ...] = ("show", "dim", "hide")


class AnswerView:
    """Shows the pieces of answers; each answer is one ``with`` block.

    Without a terminal the text comes out as the model wrote it, except for thinking that shall be hidden.

    Attributes:
        think: whether thinking sections stand there with their markers, faint without them, or not at all. Where
            nothing can be faint, they keep their markers.
        status: gives the parts of the bar, the most important first.
        bar: the bar; None where there is none.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        wrap: WordWrap | None = None,
        markdown: Callable[[str], Markdown] | None = None,
        bar: StatusBar | None = None,
        keys: Callable[[], AbstractContextManager[None]] = nullcontext,
        terminal: bool = False,
    ) -> None:
        """Takes the way out and what it can do.

        Args:
            write: sends text.
            wrap: breaks lines.
            markdown: makes a renderer with a base style; needs `wrap`.
            bar: the status bar; needs `wrap`.
            keys: what to do with the keyboard meanwhile.
            terminal: control characters must not get through.
        """
        self.think: Think = "dim"
        self.status: Callable[[], Sequence[str]] = tuple
        self.bar = bar
        self._send = write if bar is None else bar.write
        self._wrap, self._new_markdown, self._new_keys, self._terminal = wrap, markdown, keys, terminal
        self._splitter: ThinkingSplitter | None = None
        self._markdown: Markdown | None = None
        self._keys: AbstractContextManager[None] = nullcontext()
        self._progress: ui.Progress | None = None
        self._section: bool | None = None  # what was shown last: thinking, answer or nothing yet
        self._blanks = ""  # at the end of thinking: shown if more of it comes
        self._start = 0.0

    def __enter__(self) -> AnswerView:
        apart = self.think == "hide" or (self.think == "dim" and self._new_markdown is not None)
        self._splitter = ThinkingSplitter() if apart else None
        self._section, self._blanks, self._markdown, self._start = None, "", None, monotonic()
        self._keys = self._new_keys()
        self._keys.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end_progress()
            self._show_all([] if self._splitter is None else self._splitter.finish())
            self._end_section()
            if self.bar is not None:
                self.bar.clear()
            if self._section is not None or error is None:
                self._send("\n" if self._wrap is None else self._wrap.end())
        finally:
            self._keys.__exit__(None, None, None)

    def write(self, piece: str) -> None:
        """Shows a piece of the answer."""
        self._end_progress()
        self._show_all([Part(piece, False)] if self._splitter is None else self._splitter.feed(piece))
        if self.bar is not None:
            hidden = self.think == "hide" and self._splitter is not None and self._splitter.in_section
            self.bar.draw(["thinking", *self.status()] if hidden else self.status())

    def progress(self, n_read: int, n_tokens: int) -> None:
        """Shows how much of a prompt is read, and the time left."""
        if self.bar is None:
            if n_read:
                self._progress = self._progress or ui.Progress("reading", unit="tokens")
                self._progress(n_read, n_tokens)
            return
        left = (monotonic() - self._start) * (n_tokens - n_read) / n_read if n_read else 0.0
        times = [f"{n_read / n_tokens:.0%}", f"{ui.human_seconds(left)} left"] if n_read else []
        self.bar.draw([f"reading {n_tokens} tokens", *times, *self.status()])

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None

    def _show_all(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if not part.thinking:
                self._show(part.text, thinking=False)
            elif self.think == "dim":
                self._think(part.text)

    def _think(self, text: str) -> None:
        """Thinking without the blank lines around it."""
        text = self._blanks + text
        shown = text.rstrip() if self._section else text.strip()
        self._blanks = text[len(text.rstrip()) :] if shown or self._section else ""
        if shown:
            self._show(shown, thinking=True)

    def _show(self, text: str, *, thinking: bool) -> None:
        if thinking is not self._section:
            if self._section:
                self._end_section()
                self._send("\n\n" if self._wrap is None else self._wrap.feed("\n\n"))
            self._section = thinking
            self._markdown = None if self._new_markdown is None else self._new_markdown(FAINT if thinking else "")
        text = ui.without_controls(text) if self._terminal else text
        if self._markdown is not None:
            text = "".join(map(self._span, self._markdown.feed(text)))
        elif self._wrap is not None:
            text = self._wrap.feed(text)
        self._send(text)

    def _end_section(self) -> None:
        """Shows what the renderer held back."""
        if self._markdown is not None:
            self._send("".join(map(self._span, self._markdown.feed("", final=True))))

    def _span(self, span: Span) -> str:
        assert self._wrap is not None
        self._wrap.hang = self._wrap.hang if span.hang is None else span.hang
        self._wrap.verbatim = span.verbatim
        return self._wrap.feed(span.text, span.style)
