"""What Tab makes of the beginning of a command in the chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli.commands import COMMANDS

if TYPE_CHECKING:
    from iqrun.cli.repl import Repl


def complete(repl: Repl, text: str) -> list[str]:
    """What the last word of a line may become: commands, names of options and conversations, files."""
    if not text.startswith("/"):
        return []
    command, space, rest = text.partition(" ")
    if not space:
        return _starting(command, [f"/{name}" for name in COMMANDS])
    if command in ("/read", "/export"):
        return _files(rest)
    if command == "/help":
        return _starting(rest, [*COMMANDS])
    if command == "/set":
        name, value, beginning = rest.partition(" ")
        return _starting(beginning, [*repl.settings.values(name)]) if value else _starting(name, repl.settings.names())
    return _starting(rest, repl.store.names()) if command in ("/load", "/save") and " " not in rest else []


def _starting(beginning: str, words: list[str]) -> list[str]:
    return [word for word in words if word.startswith(beginning)]


def _files(beginning: str) -> list[str]:
    if " " in beginning:
        return []
    folder, slash, name = beginning.rpartition("/")
    try:
        paths = sorted(Path(f"{folder}{slash}" or ".").expanduser().iterdir())
    except OSError:
        return []
    found = [path for path in paths if path.name.startswith(name) and (name or not path.name.startswith("."))]
    return [f"{folder}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in found]
