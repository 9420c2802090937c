"""Conversations on disk: one JSON file each, in a folder of the user's, and beside it what the model has read, if kept.

{"format": "iqrun conversation", "version": 1, "saved": "2026-01-31T12:00:00+00:00",
 "model": NAME, "vocabulary": SHA-256 of the tokens, "system": TEXT or null,
 "messages": [{"role": "user", "content": TEXT},
              {"role": "assistant", "content": TEXT, "reasoning_content": TEXT, if the model thought}, ...]}

The state is what `iqrun.Chat.save_state` gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqrun.errors import IqrunError
from iqrun.whole_file import write_whole

if TYPE_CHECKING:
    from iqrun import Tokenizer

FORMAT, VERSION = "iqrun conversation", 1
_TURN = {"role", "content"}
_LARGEST = 64 << 20  # bytes of a file that is read


@dataclass(frozen=True)
class Conversation:
    """What is saved.

    Attributes:
        model: the name of the model that gave the answers.
        vocabulary: hash of its tokens, as `vocabulary_hash` makes it.
        system: the system message.
        messages: as in `iqrun.Chat.messages`.
        saved: when, ISO 8601 in UTC.
    """

    model: str
    vocabulary: str
    system: str | None
    messages: Sequence[Mapping[str, str]]
    saved: str = ""


class Store:
    """The conversations in a folder."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder, which need not exist yet."""
        self._folder = folder

    def names(self) -> list[str]:
        """What is there, in alphabetical order."""
        return sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []

    def save(self, name: str, conversation: Conversation, state: bytes | None = None) -> None:
        """Writes a conversation and perhaps its state, in place of an older one with this name.

        Raises:
            OSError: it cannot be written.
            ValueError: the name is not one.
        """
        path = self._path(name)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, as_bytes(as_json(conversation)), private=True)
        if state is None:
            self._state_path(name).unlink(missing_ok=True)
        else:
            write_whole(self._state_path(name), state, private=True)

    def load(self, name: str) -> Conversation:
        """Reads a conversation.

        Raises:
            IqrunError: the file is not a conversation, or of a later version.
            ValueError: there is none with this name.
        """
        path = self._path(name)
        if not path.is_file():
            raise ValueError(f"there is no conversation {name}; /list shows what there is")
        return _parse(path)

    def state(self, name: str) -> bytes | None:
        """The kept state of a conversation; None if there is none.

        Raises:
            OSError: it cannot be read.
        """
        return self._state_path(name).read_bytes() if self.state_bytes(name) else None

    def state_bytes(self, name: str) -> int:
        """The size of the kept state; 0 if there is none."""
        path = self._state_path(name)
        return path.stat().st_size if path.is_file() else 0

    def _state_path(self, name: str) -> Path:
        return self._path(name).with_name(f"{name}.state")

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise ValueError(f"{name!r} is not a name: take letters, digits, - and _")
        return self._folder / f"{name}.json"


def vocabulary_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 of all tokens in order, each behind its length."""
    digest = sha256()
    for token_id in range(tokenizer.n_vocab):
        text = tokenizer.token_text(token_id).encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(4, "little") + text)
    return digest.hexdigest()


def as_json(conversation: Conversation) -> str:
    """The file's text."""
    saved = {"saved": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    return json.dumps(
        {"format": FORMAT, "version": VERSION, **asdict(conversation), **saved}, indent=1, ensure_ascii=False
    )


def as_markdown(conversation: Conversation) -> str:
    """For people: a heading for each turn."""
    turns = [{"role": "system", "content": conversation.system}] if conversation.system else []
    parts = [f"# A conversation with {conversation.model}\n"]
    for turn in [*turns, *conversation.messages]:
        thought = turn.get("reasoning_content")
        parts.append(f"## {turn['role'].capitalize()}\n")
        parts += [f"<details><summary>Thinking</summary>\n\n{thought}\n\n</details>\n"] if thought else []
        parts.append(f"{turn['content']}\n")
    return "\n".join(parts)


def as_bytes(text: str) -> bytes:
    """UTF-8; what a broken name or message holds beside it comes back unchanged."""
    return text.encode("utf-8", "surrogatepass")


def _parse(path: Path) -> Conversation:
    if path.stat().st_size > _LARGEST:
        raise IqrunError(f"{path}: too large for a conversation")
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise IqrunError(f"{path}: not a conversation: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise IqrunError(f"{path}: not a conversation of iqrun")
    if value.get("version") != VERSION:
        raise IqrunError(
            f"{path}: version {value.get('version')!r}, but this iqrun reads {VERSION}; take a later iqrun"
        )
    if not _is_valid(value):
        raise IqrunError(f"{path}: a damaged conversation")
    return Conversation(**{name: value[name] for name in ("model", "vocabulary", "system", "messages", "saved")})


def _is_valid(value: dict[str, Any]) -> bool:
    texts = [value.get(name) for name in ("model", "vocabulary", "saved")]
    messages = value.get("messages")
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(value.get("system"), (str, type(None)))
        and isinstance(messages, list)
        and all(isinstance(turn, dict) and _TURN <= turn.keys() <= _TURN | {"reasoning_content"} for turn in messages)
        and all(isinstance(text, str) for turn in messages for text in turn.values())
        and all(turn["role"] in ("user", "assistant") for turn in messages)
    )
