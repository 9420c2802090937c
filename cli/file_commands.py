"""The chat's commands for conversations on disk: /save, /load, /list, /export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import ui
from iqrun.cli.conversations import (
    Conversation,
    as_bytes,
    as_json,
    as_markdown,
    vocabulary_hash,
)
from iqrun.errors import IqrunError
from iqrun.whole_file import write_whole

if TYPE_CHECKING:
    from iqrun.cli.repl import Repl


def save_conversation(repl: Repl, name: str) -> None:
    """Keeps it, with what the model has read if that is wanted."""
    if not name:
        raise ValueError("under which name? /save NAME")
    state = repl.chat.save_state() if repl.settings.keep_state == "on" else None
    repl.store.save(name, conversation(repl), state)
    size = "" if state is None else f" with {repl.chat.n_tokens} tokens of state, {ui.human_bytes(len(state))}"
    repl.note(f"saved{size}; /load {name} brings it back")


def load_conversation(repl: Repl, name: str) -> None:
    """Goes on with one that was kept."""
    if not name:
        raise ValueError("which one? /load NAME; /list shows what there is")
    loaded, ours = repl.store.load(name), conversation(repl)
    repl.chat.restore(loaded.messages, system=loaded.system)
    repl.attached.clear()
    repl.forget_left_out()
    repl.note(f"loaded {len(loaded.messages)} messages")
    _load_state(repl, name)
    if loaded.vocabulary != ours.vocabulary:
        repl.note(f"[they are of another model, {loaded.model}, with other tokens; {ours.model} goes on with the text]")
    elif loaded.model != ours.model:
        repl.note(f"[they are of another model, {loaded.model}; {ours.model} goes on]")


def _load_state(repl: Repl, name: str) -> None:
    """What the model has read, if it was kept; without it the text is read anew."""
    try:
        state = repl.store.state(name)
        if state is not None:
            repl.chat.load_state(state)
            repl.note(f"{repl.chat.n_tokens} tokens need not be read again")
    except (IqrunError, OSError, MemoryError) as error:
        repl.note(f"[its state is of no use, the text will be read again: {error}]")


def list_conversations(repl: Repl, _: str) -> None:
    """One line for each."""
    names = repl.store.names()
    if not names:
        repl.note("no conversation was saved yet; /save NAME does")
    for name in names:
        repl.note(_listed(repl, name))


def _listed(repl: Repl, name: str) -> str:
    try:
        found = repl.store.load(name)
    except (IqrunError, OSError, ValueError):
        return f"  {name:<20} (cannot be read)"
    state = ui.human_bytes(size) + " of state" if (size := repl.store.state_bytes(name)) else ""
    parts = [found.saved[:16].replace("T", " "), f"{len(found.messages)} messages", found.model, state]
    return f"  {name:<20} {'  '.join(filter(None, parts))}"


def export_conversation(repl: Repl, text: str) -> None:
    """Writes it to a file that is not there yet, as Markdown or JSON."""
    path = Path(text).expanduser()
    formats = {".md": as_markdown, ".json": as_json}
    if path.suffix not in formats:
        raise ValueError("a file that ends with .md or .json, please: /export FILE")
    if path.exists():
        raise ValueError(f"{path} is there already")
    try:
        write_whole(path, as_bytes(formats[path.suffix](conversation(repl))), private=True)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    repl.note(f"wrote {path}")


def conversation(repl: Repl) -> Conversation:
    """The conversation as it is saved."""
    return Conversation(
        model=model_name(repl),
        vocabulary=vocabulary_hash(repl.model.tokenizer),
        system=repl.chat.system,
        messages=repl.chat.messages,
    )


def model_name(repl: Repl) -> str:
    """The model's name, from the file or of the file."""
    return repl.model.metadata.get_str("general.name", None) or Path(repl.model.path).stem
