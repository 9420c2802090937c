"""The chat in a real pseudo-terminal, with a scripted model and with the demo model."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pexpect")
pytest.importorskip("pyte")

from tests.pty_terminal import Terminal


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or written to the user's folders."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))


class Chat(Terminal):
    """A terminal in which a chat runs."""

    def ask(self, text: str) -> None:
        """Types a line when the prompt is there."""
        self.wait_prompt()
        self.settle()
        self.keys(text + "\r")

    def wait_words(self, pattern: str) -> re.Match[str]:
        """As `wait`, wherever lines are broken."""
        return self.wait(pattern.replace(" ", r"\s+"))

    def wait_bar(self) -> None:
        """Waits for an empty prompt with the bar below."""
        self.wait(r"\n> *\n+ (context )?\d+/\d+ .*$")

    def wait_prompt(self) -> None:
        """Waits for an empty prompt below everything but the bar."""
        self.wait(r"(^|\n)> *(\n+ (context )?\d+/\d+ .*)?$")


@contextmanager
def scripted(
    tmp_path: Path, *answers: str, seconds: float = 0.0, n_ctx: int = 1000, options: tuple[str, ...] = (), **window: int
) -> Iterator[Chat]:
    """A chat with a model that gives these answers, and takes its time for each token."""
    script = tmp_path / "answers.json"
    script.write_text(json.dumps({"answers": answers, "seconds": seconds, "n_ctx": n_ctx}))
    with Chat("-m", "tests.scripted_chat", str(script), *options, **window) as terminal:  # type: ignore[arg-type]
        terminal.wait(r"^>")
        yield terminal


def test_forty_columns(tmp_path: Path) -> None:
    """Words stay whole, lists hang, wide letters and emoji fit, styles are there, and the bar is the lowest row."""
    answer = (
        "# Foxes\nThe **quick** brown fox jumps over the lazy dog.\n\n- an item that goes on and on and on\n\n"
        "```\ncode  stays\n```\n中文字符测试中文字符测试中文字符测试 👍🏽👍 end"
    )
    with scripted(tmp_path, answer, columns=40, lines=24) as chat:
        chat.ask("Tell me")
        chat.wait("end")
        chat.wait_bar()
        assert chat.lines()[:12] == [
            "> Tell me",
            "Foxes",
            "The quick brown fox jumps over the lazy",
            "dog.",
            "",
            "• an item that goes on and on and on",
            "",
            "```",
            "code  stays",
            "```",
            "中文字符测试中文字符测试中文字符测试 👍🏽",
            "👍 end",
        ]
        assert chat.styles("quick")["bold"] and chat.styles("Foxes")["bold"]
        assert chat.styles("code")["color"] == "magenta" and not chat.styles("jumps")["bold"]
        assert re.match(r" \d+/1000  \d+(\.\d)? t/s  iqrun-stories", chat.row(-1))
        assert chat.styles("t/s")["reverse"]


def test_the_bar_while_an_answer_comes(tmp_path: Path) -> None:
    """Below the text, with context, speed and name; nothing of it stays in what scrolled away."""
    answer = "\n".join(f"line number {number}" for number in range(30))
    with scripted(tmp_path, answer, seconds=0.02, columns=60, lines=10) as chat:
        chat.ask("Count")
        chat.wait(r"line number 1\d\n context \d+/1000  \d+\.\d tokens/s  iqrun-stories$")
        chat.wait("line number 29")
        chat.wait_bar()
        text = chat.text()
        assert [line for line in chat.lines() if line.startswith("line")] == answer.split("\n")
        assert text.count("context ") == 1 and text.count("\n> Count") + text.startswith("> Count") == 1
        assert len(chat.sent) < 20_000


def test_plain(tmp_path: Path) -> None:
    """--plain: the markers stay, there is no bar, the numbers stand behind the answer."""
    with scripted(tmp_path, "# A **b** `c`", options=("--plain",)) as chat:
        chat.ask("Go")
        chat.wait(r"# A \*\*b\*\* `c`\n\[\d+ tokens, \d+ tokens/s; prompt \d+ tokens, .*; context \d+/1000\]\n>")
        assert not chat.styles("**b")["bold"]


def test_no_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR: the text as it was written."""
    script = tmp_path / "answers.json"
    script.write_text(json.dumps({"answers": ["# A **b** `c`"]}))
    with Chat("-m", "tests.scripted_chat", str(script), NO_COLOR="1") as chat:
        chat.wait("^>")
        chat.ask("Go")
        chat.wait(r"# A \*\*b\*\* `c`")
        assert not chat.styles("**b")["bold"] and not re.search(rb"\x1b\[[0-9;]*[34]\dm", chat.sent)


def test_thinking(tmp_path: Path) -> None:
    """Faint without its markers; hidden after /set think hide; as it is after /set think show."""
    thought = "<think>\nI **think**.\n</think>\n\nDone."
    with scripted(tmp_path, thought, thought, thought) as chat:
        chat.ask("One")
        chat.wait(r"> One\nI think\.\n\nDone\.")
        assert chat.styles("think")["color"] == "faint" and chat.styles("think")["bold"]
        assert chat.styles("Done")["color"] == "default"
        chat.ask("/set think hide")
        chat.ask("Two")
        chat.wait(r"> Two\nDone\.")
        chat.ask("/set think show")
        chat.ask("Three")
        chat.wait(r"> Three\n<think>\nI think\.\n</think>\n\nDone\.")


def test_pasted_lines_are_one_message(tmp_path: Path) -> None:
    """Bracketed paste: nothing is sent before Enter; wide letters, emoji and commands in it are text."""
    with scripted(tmp_path, "Seen.") as chat:
        chat.settle()
        chat.paste("first 中文\n/exit\n\nlast 👍")
        chat.wait("last 👍")
        chat.settle()
        assert "Seen" not in chat.text()
        chat.keys("\r")
        chat.wait("Seen")
        chat.ask("/export talk.json".replace("talk.json", str(tmp_path / "talk.json")))
        chat.wait("wrote")
        saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
        assert saved["messages"][0]["content"] == "first 中文\n/exit\n\nlast 👍"


def test_ctrl_c_while_reading(tmp_path: Path) -> None:
    """Progress with the time left; Ctrl-C gives the question up, /stats tells, the chat goes on."""
    with scripted(tmp_path, "Fine.", seconds=0.4, n_ctx=4000) as chat:
        chat.settle()
        chat.paste("word " * 1000)
        chat.settle()
        chat.keys("\r")
        chat.wait(r"reading \d+ tokens  \d+%  \d+s left")
        chat.keys("\x03")
        chat.wait(r"\[stopped\]")
        chat.ask("/stats")
        chat.wait_words(r"0 tokens, .*prompt \d+ tokens, .* \(stopped\); context \d+/4000; 0 messages")
        chat.ask("Hi")
        chat.wait("Fine.")
        assert "^C" not in chat.text() and "Traceback" not in chat.text()


def test_ctrl_c_in_an_answer(tmp_path: Path) -> None:
    """What came stays, /stats tells of it, and the chat goes on."""
    with scripted(tmp_path, "word " * 200, "Fine.", seconds=0.03) as chat:
        chat.ask("Go")
        chat.wait("word word word")
        chat.keys("\x03")
        chat.wait(r"> Go\n(word ?\n?)+\n\[stopped\]\n>")
        chat.ask("/stats")
        chat.wait_words(r"\d+ tokens, \d+ tokens/s; prompt \d+ tokens, .* \(stopped\); context \d+/1000; 2 messages")
        chat.ask("Again")
        chat.wait("Fine.")
        assert "^C" not in chat.text()


def test_keys_hit_while_an_answer_comes(tmp_path: Path) -> None:
    """They do not disturb it, and stand in the next prompt."""
    with scripted(tmp_path, "word " * 30 + "end.", "Fine.", seconds=0.03) as chat:
        chat.ask("Go")
        chat.wait("word word word")
        chat.keys("typed ahead")
        chat.wait(r"> Go\n(word\s)+end\.\n+> typed ahead\n")
        chat.keys("\r")
        chat.wait("Fine.")


def test_keys_of_a_shell(tmp_path: Path) -> None:
    """History, Ctrl-R, Ctrl-C at the prompt, Tab, Alt-Enter, Ctrl-D; history survives the program."""
    with scripted(tmp_path, "One.", "Two.", "Three.", "Four.") as chat:
        chat.ask("the first question")
        chat.wait("One.")
        chat.settle()
        chat.keys("second\x1b\rline\r")
        chat.wait("Two.")
        chat.settle()
        chat.keys("\x12first")
        chat.wait("search.*first")
        chat.keys("\r")
        chat.wait("Three.")
        chat.settle()
        chat.keys("half a li")
        chat.wait("half a li")
        chat.keys("\x03")
        chat.wait("Ctrl-D or /exit leaves")
        chat.settle()
        chat.keys("/cle\t")
        chat.wait("/clear")
        chat.keys("\r")
        chat.wait("starts anew")
        chat.settle()
        chat.keys("\x04")
        assert chat.end() == 0
    with scripted(tmp_path, "Five.") as chat:
        chat.settle()
        chat.keys("\x1b[A\x1b[A\x1b[A")
        chat.wait("second\n +line")
        chat.keys("\r")
        chat.wait("Five.")
        chat.settle()
        chat.keys("\x04")
        assert chat.end() == 0


def test_completion(tmp_path: Path) -> None:
    """Commands, names of options, their values."""
    with scripted(tmp_path) as chat:
        chat.settle()
        chat.keys("/set think h\t\r")
        chat.wait("think hide")
        chat.settle()
        chat.keys("/s\t")
        chat.wait(r"/system.*/set.*/show.*/stats.*/save")


def test_the_clipboard(tmp_path: Path) -> None:
    """The terminal is asked to take the answer: this goes through SSH."""
    with scripted(tmp_path, "A **fox** 中文.") as chat:
        chat.ask("Go")
        chat.wait("fox")
        chat.ask("/copy")
        found = chat.wait(r"\x1b\]52;c;([A-Za-z0-9+/=]+)\x07", within="sent")
        assert b64decode(found[1]).decode() == "A **fox** 中文."


def test_several_lines_the_other_way_round(tmp_path: Path) -> None:
    """/multiline swaps Enter and Alt-Enter; /edit opens the last message."""
    with scripted(tmp_path, "One.", "Two.") as chat:
        chat.ask("/multiline")
        chat.wait("Alt-Enter sends")
        chat.settle()
        chat.keys("a\rb\x1b\r")
        chat.wait("One.")
        chat.ask("/multiline")
        chat.wait("Enter sends\n")
        chat.ask("/edit")
        chat.wait(r"> a\n +b")
        chat.settle()
        chat.keys(" and c\r")
        chat.wait(r"> a\n +b and c\nTwo\.")


def test_the_demo(tmp_path: Path) -> None:
    """The real thing: the packaged model, quantized, asked, saved with its state, and gone on with."""
    cache = str(tmp_path / "cache")
    with Chat("-m", "iqrun", "demo", "--temp", "0", "-n", "60", columns=50, IQRUN_CACHE=cache) as chat:
        chat.wait("try: .Tell me a story about a cat")
        chat.wait_prompt()
        chat.ask("Tell me a story about a cat.")
        chat.wait(r"Once upon a time[^\[]*\[cut after 60 tokens")
        chat.ask("/set keep-state on")
        chat.ask("/save cats")
        chat.wait_words(r"saved with \d+ tokens of state, \d+\.\d [KM]iB; /load cats brings it back")
        chat.ask("/exit")
        assert chat.end() == 0
    words = ("-m", "iqrun", "demo", "--temp", "0", "-n", "9", "--load", "cats")
    with Chat(*words, columns=80, IQRUN_CACHE=cache) as chat:
        chat.wait(r"loaded 2 messages\n(\d+) tokens need not be read again")
        chat.wait_prompt()
        chat.ask("And a dog?")
        chat.wait("cut after 9 tokens")
        chat.ask("/stats")
        found = chat.wait(r"9 tokens, \d+ tokens/s; prompt (\d+) tokens")
        assert int(found[1]) < 15
        chat.ask("/bye")
        assert chat.end() == 0
