"""A screen and a keyboard for the chat's loop, around a scripted model: transcripts without a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from iqrun import SamplingOptions
from iqrun.chat.chat import Chat
from iqrun.cli.answer_view import AnswerView
from iqrun.cli.conversations import Store
from iqrun.cli.repl import Repl
from iqrun.cli.settings import Settings
from tests.scripted_model import ScriptedModel

SPEED = re.compile(r"(\d+ tokens), [\d.]+ tokens/s")


class Screen:
    """What a user of the loop types and sees: lines behind ``>`` were typed, lines in ``(...)`` are notes."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter(lines)
        self.text = ""

    def read(self, prompt: str, default: str = "") -> str | None:
        line = next(self._lines, None)
        if isinstance(line, BaseException):
            raise line
        if line is not None and default:
            line = line.replace("^E", default)  # the line as it stands for editing
        self.text += prompt + ("^D" if line is None else line) + "\n"
        return line

    def write(self, text: str) -> None:
        self.text += text

    def note(self, text: str) -> None:
        self.text += "(" + SPEED.sub(lambda match: f"{match[1]}, N tokens/s", text) + ")\n"


def loop(screen: Screen, *answers: str, n_ctx: int = 400, system: str | None = None, **options: Any) -> Repl:
    """The loop around a scripted model."""
    model = ScriptedModel(*answers, n_ctx=n_ctx)
    options = {
        "store": Store(Path(user_data_path("iqrun"))),
        "view": AnswerView(screen.write),
        "note": screen.note,
        **options,
    }
    settings = Settings(SamplingOptions(temperature=0.0))
    return Repl(Chat(model, system=system), settings, model=model, **options)  # type: ignore[arg-type]


def transcript(answers: list[str], *lines: str | BaseException, **options: Any) -> str:
    """The screen after a conversation with a scripted model."""
    screen = Screen(*lines)
    loop(screen, *answers, **options).run(screen.read)
    return screen.text
