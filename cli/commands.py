"""The commands of the chat: what ``/name text`` does."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iqrun.cli import file_commands

if TYPE_CHECKING:
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
    repl.note(_unknown(word))


def _unknown(word: str) -> str:
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
    return f"unknown command /{word}; {hint}"


# ---- the conversation ----


def _help(repl: Repl, name: str) -> None:
    """All commands, or one; of /set all options, too."""
    name = name.removeprefix("/")
    if name and name not in COMMANDS:
        raise ValueError(_unknown(name))
    for other, command in COMMANDS.items():
        if command.usage is not None and (not name or COMMANDS[name].function is command.function):
            repl.note(f"  {f'/{other} {command.usage}'.rstrip():<20} {command.what}")
    if name == "set":
        for line in repl.settings.described():
            repl.note(line)
    if not name:
        repl.note('  A line that ends with \\ goes on in the next one; """ before and after encloses several lines.')
        repl.note("  In a terminal, Alt-Enter begins a new line, Tab completes, Ctrl-R searches earlier lines.")


def _exit(repl: Repl, _: str) -> None:
    from iqrun.cli.repl import Leave

    raise Leave


def _clear(repl: Repl, _: str) -> None:
    repl.chat.clear()
    repl.attached.clear()
    repl.forget_left_out()
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
    repl.note(f"model: {file_commands.model_name(repl)} ({metadata.get_str('general.architecture', 'unknown')})")
    repl.note(f"file: {repl.model.path}")
    repl.note(f"vocabulary: {tokenizer.n_vocab} tokens")
    repl.note(f"{repl.context()}; {len(repl.chat.messages)} messages, {repl.chat.n_skipped} of them left out")
    _system(repl, "")
    repl.note("template:")
    for line in repl.chat.template.source.splitlines():
        repl.note(f"  {line}")


def _stats(repl: Repl, _: str) -> None:
    from iqrun.cli.repl import speed

    timings = repl.chat.timings
    text = "no answer yet" if timings is None else speed(timings)
    stopped = " (stopped)" if timings is not None and repl.chat.last is None else ""
    repl.note(f"{text}{stopped}; {repl.context()}; {len(repl.chat.messages)} messages")


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


def _last(repl: Repl, role: str) -> str | None:
    texts = [message["content"] for message in repl.chat.messages if message["role"] == role]
    return texts[-1] if texts else None


COMMANDS = {
    "help": Command(_help, "[COMMAND]", "list the commands; /help set explains the options"),
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
    "save": Command(file_commands.save_conversation, "NAME", "keep the conversation"),
    "load": Command(file_commands.load_conversation, "NAME", "go on with one that was kept"),
    "list": Command(file_commands.list_conversations, "", "the conversations that were kept"),
    "export": Command(file_commands.export_conversation, "FILE.md|.json", "write the conversation to a file"),
}
