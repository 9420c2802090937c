"""The commands of the chat, as transcripts with a scripted model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from iqrun.cli import file_commands
from iqrun.cli.commands import COMMANDS
from iqrun.cli.settings import Settings
from tests.chat_screen import Screen, loop, transcript


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or written to the user's folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def notes(text: str) -> list[str]:
    """The notes of a transcript, without the numbers behind answers."""
    return [line[1:-1] for line in text.splitlines() if line.startswith("(") and "tokens/s" not in line]


def test_help_lists_every_command() -> None:
    """With its use; other names for the same are not listed."""
    text = transcript([], "/help")
    for name, command in COMMANDS.items():
        assert (f"(  /{name} {command.usage or ''}".rstrip() in text) == (command.usage is not None)


def test_help_explains_one_command() -> None:
    """With the options where it is /set; a wrong name suggests the nearest."""
    assert notes(transcript([], "/help undo", "/help /bye", "/help udno")) == [
        "  /undo                take back the last question and its answer",
        "  /exit                leave (also /bye, Ctrl-D)",
        "error: unknown command /udno; did you mean /undo?",
    ]
    lines = notes(transcript([], "/help set"))
    for name in Settings.names():
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1


def test_edit_answers_another_question() -> None:
    """The last question stands there for editing; its answer is replaced."""
    screen = Screen("Name a color", "/edit", "^E, please", "/edit And now a number", "/exit")
    repl = loop(screen, "Red.", "Blue.", "Seven.")
    repl.run(screen.read)
    assert "> Name a color, please\nBlue.\n" in screen.text
    assert [m["content"] for m in repl.chat.messages] == ["And now a number", "Seven."]


@pytest.mark.parametrize("typed", ["", "   ", KeyboardInterrupt()])
def test_edit_can_be_given_up(typed: str | BaseException) -> None:
    """An empty line or Ctrl-C leaves everything as it was."""
    screen = Screen("Name a color", "/edit", typed, "/exit")
    repl = loop(screen, "Red.")
    repl.run(screen.read)
    assert [m["content"] for m in repl.chat.messages] == ["Name a color", "Red."]


def test_edit_needs_a_question() -> None:
    """There is nothing to edit in the beginning."""
    assert notes(transcript([], "/edit")) == ["error: there is no message to edit"]


def test_save_and_load() -> None:
    """A conversation comes back with its system message, in another run, and goes on."""
    transcript(["Red.", "Blue."], "One", "/save colors", "Two", "/save colors", system="Rules.")
    screen = Screen("/list", "/load colors", "/system", "Three", "/exit")
    repl = loop(screen, "Green.")
    repl.run(screen.read)
    found = notes(screen.text)
    assert re.fullmatch(r"  colors +\d{4}-\d\d-\d\d \d\d:\d\d  4 messages  .+", found[0])
    assert found[1:] == ["loaded 4 messages", "system message: Rules."]
    assert [m["content"] for m in repl.chat.messages] == ["One", "Red.", "Two", "Blue.", "Three", "Green."]


def test_a_conversation_of_another_model_is_told(tmp_path: Path) -> None:
    """By name, and by vocabulary; the text is taken over all the same."""
    transcript(["Red."], "One", "/save colors")
    (path,) = tmp_path.rglob("colors.json")
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "model": "Other"}))
    assert "they are of another model, Other; " in transcript([], "/load colors")
    path.write_text(json.dumps({**saved, "model": "Other", "vocabulary": "0" * 64}))
    assert "Other, with other tokens; " in transcript([], "/load colors")


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("/save", "error: under which name? /save NAME"),
        ("/save ../x", "error: '../x' is not a name: take letters, digits, - and _"),
        ("/save .x", "error: '.x' is not a name: take letters, digits, - and _"),
        ("/load", "error: which one? /load NAME; /list shows what there is"),
        ("/load nothing", "error: there is no conversation nothing; /list shows what there is"),
        ("/list", "no conversation was saved yet; /save NAME does"),
        ("/read", "error: which file? /read FILE"),
        ("/read nothing.txt", "error: nothing.txt: No such file or directory"),
        ("/copy", "error: there is no answer to copy"),
        ("/tokens", "error: which text? /tokens TEXT"),
        ("/export x.txt", "error: a file that ends with .md or .json, please: /export FILE"),
        ("/export no/folder/x.md", "error: no/folder/x.md: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_told(typed: str, note: str) -> None:
    """In one line, and the loop goes on."""
    assert notes(transcript([], typed)) == [note]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": "else"}', "[" * 100_000, '{"format": "iqrun conversation", "version": 1}'],
)
def test_damaged_conversations_are_told(content: str, tmp_path: Path) -> None:
    """Whatever is in the file; /list says so too."""
    transcript(["Red."], "One", "/save colors")
    (path,) = tmp_path.rglob("colors.json")
    path.write_text(content)
    first, second = notes(transcript([], "/load colors", "/list"))
    assert first.startswith("error: ") and "colors.json" in first
    assert "cannot be read" in second


def test_state_is_kept_if_asked_for(tmp_path: Path) -> None:
    """Beside the text; what it holds need not be read again; /list tells its size; a later /save takes it away."""
    screen = Screen("One", "/save a", "/list", "/set keep-state on", "/save a", "/list", "/exit")
    loop(screen, "Red.").run(screen.read)
    first, listed, _, second, listed_again = notes(screen.text)
    assert first == "saved; /load a brings it back" and "state" not in listed
    assert re.fullmatch(r"saved with \d+ tokens of state, \d+ B; /load a brings it back", second)
    assert re.search(r"  \d+ B of state$", listed_again)
    screen = Screen("/load a", "Two", "/set keep-state off", "/save a", "/exit")
    repl = loop(screen, "Blue.")
    repl.run(screen.read)
    assert re.fullmatch(r"\d+ tokens need not be read again", notes(screen.text)[1])
    assert len(repl.model.session().evaluated[0]) < 8  # type: ignore[attr-defined]
    assert [path.suffix for path in tmp_path.rglob("a.*")] == [".json"]


def test_a_damaged_state_is_told_and_not_needed(tmp_path: Path) -> None:
    """The text is read again."""
    transcript(["Red."], "One", "/set keep-state on", "/save a")
    (path,) = tmp_path.rglob("a.state")
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"x" + path.read_bytes())
    text = transcript(["Blue."], "/load a", "Two")
    assert "(loaded 2 messages)\n([its state is of no use, the text will be read again: this state is damaged])" in text
    assert "Blue.\n" in text


def test_thinking_is_saved_apart(tmp_path: Path) -> None:
    """In JSON under its own key, in Markdown folded away; it comes back."""
    transcript(["<think>Hm.</think>Red."], "One", "/save a", "/export a.json", "/export a.md")
    turn = {"role": "assistant", "content": "Red.", "reasoning_content": "Hm."}
    assert json.loads((tmp_path / "a.json").read_text())["messages"][1] == turn
    assert "<details><summary>Thinking</summary>\n\nHm.\n\n</details>\n\nRed.\n" in (tmp_path / "a.md").read_text()
    screen = Screen("/load a", "/exit")
    repl = loop(screen)
    repl.run(screen.read)
    assert repl.chat.messages[1] == turn


def test_stats_of_an_answer() -> None:
    """Speed, context, messages."""
    (stats,) = re.findall(r"\((\d+ tokens, .*messages)\)", transcript(["Red."], "One", "/stats"))
    assert re.fullmatch(r"3 tokens, N tokens/s; prompt 5 tokens, N tokens/s; context \d+/400; 2 messages", stats)


@pytest.mark.parametrize(
    ("policy", "expected"), [("drop", r"the oldest \d messages"), ("shift", r".*\d+ letters of the (next|oldest) ones")]
)
def test_what_is_left_out_is_told(policy: str, expected: str) -> None:
    """Once for each time."""
    text = transcript(["word " * 10] * 3, f"/set context-full {policy}", *["A question of some words."] * 3, n_ctx=60)
    found = re.findall(r"\(\[the model does not see (.*) any more: the context was full\]\)", text)
    assert 1 <= len(found) <= 2 and re.fullmatch(expected, found[0])


def test_a_full_context_that_stops() -> None:
    """The question is refused with what to do, and /undo makes room."""
    lines = ["/set context-full stop", "A question of some words.", "A question of some words. " * 4, "/undo", "Short"]
    text = transcript(["word " * 10] * 3, *lines, n_ctx=40)
    assert re.search(r"\(error: the conversation has \d+ tokens .* holds 40: begin anew, .* context_full to drop", text)
    assert "> Short\nword " in text


def test_a_later_version_is_told(tmp_path: Path) -> None:
    """It is not misread."""
    transcript(["Red."], "One", "/save colors")
    (path,) = tmp_path.rglob("colors.json")
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    assert "version 2, but this iqrun reads 1" in transcript([], "/load colors")


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes nothing away, and leaves nothing behind."""
    transcript(["Red."], "One", "/save colors")
    (path,) = tmp_path.rglob("colors.json")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in transcript([], "/save colors")
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o077 == 0


def test_export(tmp_path: Path) -> None:
    """As Markdown for people, as JSON for programs; a file that exists is left alone."""
    text = transcript(["Red."], "A color?", "/export talk.md", "/export talk.json", "/export talk.md", system="Rules.")
    assert notes(text) == ["wrote talk.md", "wrote talk.json", "error: talk.md is there already"]
    markdown = (tmp_path / "talk.md").read_text()
    assert markdown.endswith("## System\n\nRules.\n\n## User\n\nA color?\n\n## Assistant\n\nRed.\n")
    assert json.loads((tmp_path / "talk.json").read_text())["messages"][1] == {"role": "assistant", "content": "Red."}


def test_read_joins_the_next_message(tmp_path: Path) -> None:
    """The file stands in front of the question; only once."""
    (tmp_path / "a.txt").write_text("The fox ran.")
    screen = Screen("/read a.txt", "Who ran?", "Again?", "/exit")
    repl = loop(screen, "The fox.", "Yes.")
    repl.run(screen.read)
    assert re.fullmatch(r"a.txt: \d+ tokens join your next message", notes(screen.text)[0])
    assert [m["content"] for m in repl.chat.messages[::2]] == ["The fox ran.\n\nWho ran?", "Again?"]


def test_read_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """Too many tokens, or no text."""
    (tmp_path / "a.txt").write_text("word " * 500)
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    first, second = notes(transcript([], "/read a.txt", "/read b.bin", n_ctx=100))
    assert re.fullmatch(r"error: a.txt has \d+ tokens, but the context holds 100", first)
    assert second == "error: b.bin is not a text in UTF-8"


def test_quotes_enclose_several_lines() -> None:
    """Whatever the lines are, also empty ones and those that look like commands."""
    screen = Screen('"""one', "", "/exit", 'two"""', '"""', "three", '"""', '"""four"""', '"""unfinished')
    repl = loop(screen, "A.", "B.", "C.", "D.")
    repl.run(screen.read)
    assert [m["content"] for m in repl.chat.messages[::2]] == ["one\n\n/exit\ntwo", "three", "four", "unfinished"]


def test_multiline_mode() -> None:
    """The loop takes what it reads as it is; a pipe has no keys to swap."""
    screen = Screen("/multiline", 'one \\\n"""two', "/multiline", "/exit")
    repl = loop(screen, "A.")
    repl.run(screen.read)
    assert repl.chat.messages[0]["content"] == 'one \\\n"""two'
    assert notes(screen.text) == ["Alt-Enter sends, Enter begins a new line", "Enter sends"]
    assert 'put """ before and after' in transcript([], "/multiline", interactive=False)


def test_tokens() -> None:
    """Ids and texts, of what is given or of the last message."""
    first, second = notes(transcript(["Red fox."], "/tokens the cat", "Hi", "/tokens"))
    assert re.fullmatch(r"\d+ tokens: \d+ '.*cat'", first)
    assert "fox" in second


def test_copy() -> None:
    """The last answer goes to the clipboard, if there is one."""
    copied: list[str] = []
    screen = Screen("Hi", "/copy", "/exit")
    loop(screen, "Red fox.", copy=copied.append).run(screen.read)
    assert copied == ["Red fox."] and notes(screen.text) == ["sent 8 letters to the terminal's clipboard"]
    assert "no terminal whose clipboard" in transcript(["Red."], "Hi", "/copy")


def test_show() -> None:
    """Model, file, vocabulary, context, system message, template."""
    text = "\n".join(notes(transcript([], "/show", system="Rules.")))
    for part in ("file: scripted.gguf", "context 0/400; 0 messages", "system message: Rules.", "template:"):
        assert part in text
    assert re.search(r"model: .+ \(llama\)\n", text) and re.search(r"vocabulary: \d+ tokens", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/re", ["/regen", "/read"]),
        ("/set xtc", ["xtc-probability", "xtc-threshold"]),
        ("/set temp 0", []),
        ("/set think ", ["show", "dim", "hide"]),
        ("/set keep-state of", ["off"]),
        ("/help st", ["stats"]),
        ("/load co", ["colors"]),
        ("/read no", ["notes/", "notes.txt"]),
        ("/read notes/", ["notes/a.txt"]),
        ("/read nowhere/", []),
        ("hello /re", []),
    ],
)
def test_completion(text: str, found: list[str], tmp_path: Path) -> None:
    """Commands, names of options and conversations, files."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    (tmp_path / "notes.txt").touch()
    repl: Any = loop(Screen(), "Red.")
    repl.store.save("colors", file_commands.conversation(repl))
    assert repl.complete(text) == found
