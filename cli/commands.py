"""The commands of the chat: what ``/name text`` does."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from iqrun.cli.conversations import Conversation
    from iqrun.cli.repl import Repl

_LARGEST_FILE = 16 << 20
_MOST_TOKENS_SHOWN = 200


class Command(NamedTuple):
    """One command.

    Attributes:
        function: what it does with the text behind its name.
        usage: how that text looks; None: another name for a command, not listed.
        what: a line for `/help`.
    """

    function: Callable[[Repl, str], None]
    usage: str | None
    what: str = ""


def run(repl: Repl, text: str) -> None:
    """Does what a line that begins with ``/`` says; suggests the nearest command if there is no such one."""
    word, _, rest = text[1:].partition(" ")
    found = COMMANDS.get(word)
    if found is not None:
        found.function(repl, rest.strip())
        return
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
    repl.note(f"unknown command /{word}; {hint}")


def complete(repl: Repl, text: str) -> list[str]:
    """What the last word of a line may become: commands, names of options and conversations, files."""
    if not text.startswith("/"):
        return []
    command, space, rest = text.partition(" ")
    if not space:
        return _starting(command, [f"/{name}" for name in COMMANDS])
    if command in ("/read", "/export"):
        return _files(rest)
    known = {"/set": repl.settings.names, "/load": repl.store.names, "/save": repl.store.names}.get(command)
    return _starting(rest, known()) if known and " " not in rest else []


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


# ---- the conversation ----


def _help(repl: Repl, _: str) -> None:
    for name, command in COMMANDS.items():
        if command.usage is not None:
            repl.note(f"  {f'/{name} {command.usage}'.rstrip():<20} {command.what}")
    repl.note('  A line that ends with \\ goes on in the next one; """ before and after encloses several lines.')
    repl.note("  In a terminal, Alt-Enter begins a new line, Tab completes, Ctrl-R searches what was typed earlier.")


def _exit(repl: Repl, _: str) -> None:
    from iqrun.cli.repl import Leave

    raise Leave


def _clear(repl: Repl, _: str) -> None:
    repl.chat.clear()
    repl.attached.clear()
    repl.forget_skipped()
    repl.note("the conversation starts anew")


def _regen(repl: Repl, _: str) -> None:
    repl.answer(repl.chat.regenerate(**repl.settings.options()))


def _undo(repl: Repl, _: str) -> None:
    question = repl.chat.undo()
    repl.note("there is nothing to take back" if question is None else f"took back: {question}")


def _edit(repl: Repl, text: str) -> None:
    """The new question comes from the command itself or from an editable line."""
    from iqrun.cli.repl import PROMPT

    question = _last(repl, "user")
    if question is None:
        raise ValueError("there is no message to edit")
    new = text or repl.read(PROMPT, question)
    if new is None or not new.strip():
        repl.note("nothing was changed")
        return
    repl.answer(repl.chat.regenerate(question=new, **repl.settings.options()))


def _system(repl: Repl, text: str) -> None:
    if text:
        repl.chat.system = None if text == "none" else text
    system = repl.chat.system
    repl.note("there is no system message" if system is None else f"system message: {system}")


def _read(repl: Repl, text: str) -> None:
    """A file joins the next message."""
    if not text:
        raise ValueError("which file? /read FILE")
    path = Path(text).expanduser()
    if path.is_file() and path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{path} is too large to be read in a chat")
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text in UTF-8") from None
    n_tokens = len(repl.model.tokenizer.encode(content, add_special=False))
    if n_tokens >= repl.chat.n_ctx:
        raise ValueError(f"{path} has {n_tokens} tokens, but the context holds {repl.chat.n_ctx}")
    repl.attached.append(content)
    repl.note(f"{path}: {n_tokens} tokens join your next message")


def _multiline(repl: Repl, _: str) -> None:
    if not repl.interactive:
        raise ValueError('put """ before and after a text of several lines')
    repl.multiline = not repl.multiline
    repl.note("Alt-Enter sends, Enter begins a new line" if repl.multiline else "Enter sends")


# ---- what is shown ----


def _set(repl: Repl, text: str) -> None:
    name, _, value = text.partition(" ")
    if value:
        repl.settings.set(name, value.strip())
    for line in repl.settings.shown(name or None):
        repl.note(line)


def _show(repl: Repl, _: str) -> None:
    metadata, tokenizer = repl.model.metadata, repl.model.tokenizer
    repl.note(f"model: {_model_name(repl)} ({metadata.get_str('general.architecture', 'unknown')})")
    repl.note(f"file: {repl.model.path}")
    repl.note(f"vocabulary: {tokenizer.n_vocab} tokens")
    repl.note(f"{repl.context()}; {len(repl.chat.messages)} messages, {repl.chat.n_skipped} of them left out")
    _system(repl, "")
    repl.note("template:")
    for line in repl.chat.template.source.splitlines():
        repl.note(f"  {line}")


def _stats(repl: Repl, _: str) -> None:
    from iqrun.cli.repl import speed

    last = repl.chat.last
    text = "no answer yet" if last is None or last.timings is None else speed(last.timings)
    repl.note(f"{text}; {repl.context()}; {len(repl.chat.messages)} messages")


def _tokens(repl: Repl, text: str) -> None:
    """Of a text, or of the last message."""
    if not text:
        messages = repl.chat.messages
        if not messages:
            raise ValueError("which text? /tokens TEXT")
        text = messages[-1]["content"]
    tokenizer = repl.model.tokenizer
    ids = tokenizer.encode(text, add_special=False)
    pieces = [f"{i} {tokenizer.token_bytes(i).decode('utf-8', 'replace')!r}" for i in ids[:_MOST_TOKENS_SHOWN]]
    more = f"  ... and {len(ids) - len(pieces)} more" if len(ids) > len(pieces) else ""
    repl.note(f"{len(ids)} tokens: {'  '.join(pieces)}{more}")


def _copy(repl: Repl, _: str) -> None:
    answer = _last(repl, "assistant")
    if answer is None:
        raise ValueError("there is no answer to copy")
    if repl.copy is None:
        raise ValueError("there is no terminal whose clipboard could be used")
    repl.copy(answer)
    repl.note(f"sent {len(answer)} letters to the terminal's clipboard")


# ---- the disk ----


def _save(repl: Repl, name: str) -> None:
    if not name:
        raise ValueError("under which name? /save NAME")
    repl.store.save(name, _conversation(repl))
    repl.note(f"saved; /load {name} brings it back")


def _load(repl: Repl, name: str) -> None:
    if not name:
        raise ValueError("which one? /load NAME; /list shows what there is")
    loaded, ours = repl.store.load(name), _conversation(repl)
    repl.chat.restore(loaded.messages, system=loaded.system)
    repl.attached.clear()
    repl.forget_skipped()
    repl.note(f"loaded {len(loaded.messages)} messages")
    if loaded.vocabulary != ours.vocabulary:
        repl.note(f"[they are of another model, {loaded.model}, with other tokens; {ours.model} goes on with the text]")
    elif loaded.model != ours.model:
        repl.note(f"[they are of another model, {loaded.model}; {ours.model} goes on]")


def _list(repl: Repl, _: str) -> None:
    names = repl.store.names()
    if not names:
        repl.note("no conversation was saved yet; /save NAME does")
    for name in names:
        repl.note(_listed(repl, name))


def _listed(repl: Repl, name: str) -> str:
    from iqrun.errors import IqrunError

    try:
        found = repl.store.load(name)
    except (IqrunError, OSError, ValueError):
        return f"  {name:<20} (cannot be read)"
    return f"  {name:<20} {found.saved[:16].replace('T', ' ')}  {len(found.messages)} messages  {found.model}"


def _export(repl: Repl, text: str) -> None:
    from iqrun.cli.conversations import as_json, as_markdown, write_atomically

    path = Path(text).expanduser()
    formats = {".md": as_markdown, ".json": as_json}
    if path.suffix not in formats:
        raise ValueError("a file that ends with .md or .json, please: /export FILE")
    if path.exists():
        raise ValueError(f"{path} is there already")
    try:
        write_atomically(path, formats[path.suffix](_conversation(repl)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    repl.note(f"wrote {path}")


def _conversation(repl: Repl) -> Conversation:
    from iqrun.cli.conversations import Conversation, vocabulary_hash

    return Conversation(
        model=_model_name(repl),
        vocabulary=vocabulary_hash(repl.model.tokenizer),
        system=repl.chat.system,
        messages=repl.chat.messages,
    )


def _model_name(repl: Repl) -> str:
    return repl.model.metadata.get_str("general.name", None) or Path(repl.model.path).stem


def _last(repl: Repl, role: str) -> str | None:
    texts = [message["content"] for message in repl.chat.messages if message["role"] == role]
    return texts[-1] if texts else None


COMMANDS = {
    "help": Command(_help, "", "list the commands"),
    "exit": Command(_exit, "", "leave (also /bye, Ctrl-D)"),
    "bye": Command(_exit, None),
    "quit": Command(_exit, None),
    "clear": Command(_clear, "", "forget the conversation"),
    "regen": Command(_regen, "", "give the last answer anew"),
    "undo": Command(_undo, "", "take back the last question and its answer"),
    "edit": Command(_edit, "[TEXT]", "change the last question and answer it anew"),
    "read": Command(_read, "FILE", "put a text file into the next message"),
    "multiline": Command(_multiline, "", "Enter begins a new line, Alt-Enter sends; again: back"),
    "system": Command(_system, "[TEXT|none]", "show or change the system message"),
    "set": Command(_set, "[NAME [VALUE]]", "show or change how answers are generated"),
    "show": Command(_show, "", "the model, its template, the context"),
    "stats": Command(_stats, "", "speed and context"),
    "tokens": Command(_tokens, "[TEXT]", "the tokens of a text, or of the last message"),
    "copy": Command(_copy, "", "put the last answer on the clipboard"),
    "save": Command(_save, "NAME", "keep the conversation"),
    "load": Command(_load, "NAME", "go on with one that was kept"),
    "list": Command(_list, "", "the conversations that were kept"),
    "export": Command(_export, "FILE.md|.json", "write the conversation to a file"),
}
