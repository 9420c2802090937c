"""`iqrun chat` and `iqrun demo`: exact transcripts with a scripted model, pipes, and a real terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqrun import Model
from iqrun import load as iqrun_load
from iqrun.cli import demo
from iqrun.cli.main import main
from iqrun.models.demo import model_path
from tests.chat_screen import Screen, loop, transcript
from tests.test_chat import ScriptedSession


def test_a_conversation() -> None:
    """Questions, answers, numbers; empty lines are ignored; Ctrl-D leaves."""
    assert transcript(["Hello there.", "Fine."], "Hi", "", "  ", "How are you?") == (
        "> Hi\n"
        "Hello there.\n"
        "([5 tokens, N tokens/s; prompt 6 tokens, N tokens/s; context 10/400])\n"
        "> \n"
        ">   \n"
        "> How are you?\n"
        "Fine.\n"
        "([4 tokens, N tokens/s; prompt 8 tokens, N tokens/s; context 21/400])\n"
        "> ^D\n"
    )


def test_commands() -> None:
    """What each of them says."""
    text = transcript(
        ["One.", "Two."], "/undo", "/regen", "/stats", "Say", "/regen", "/undo", "/clear", "/bye", "never"
    )
    assert [line for line in text.splitlines() if line.startswith("(") and "[" not in line] == [
        "(there is nothing to take back)",
        "(error: there is no answer to give again: nothing was asked yet)",
        "(no answer yet; context 0/400; 0 messages)",
        "(took back: Say)",
        "(the conversation starts anew)",
    ]
    assert "One.\n" in text and "Two.\n" in text
    assert text.endswith("> /bye\n")


def test_help_lists_the_commands() -> None:
    """Every command with its use."""
    text = transcript([], "/help")
    for command in ("/help", "/exit", "/clear", "/regen", "/undo", "/system", "/set", "/stats"):
        assert f"(  {command} " in text


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("/claer", "unknown command /claer; did you mean /clear?"),
        ("/sytem be nice", "unknown command /sytem; did you mean /system?"),
        ("/xyzzy", "unknown command /xyzzy; /help lists the commands"),
        ("/", "unknown command /; /help lists the commands"),
    ],
)
def test_unknown_commands(typed: str, answer: str) -> None:
    """The nearest one is suggested; the model hears nothing of it."""
    assert f"({answer})\n" in transcript([], typed)


def test_set() -> None:
    """Shows and changes the options; a wrong name or value is told and changes nothing."""
    text = transcript([], "/set", "/set temp 0.5", "/set top-k 3", "/set seed 7", "/set seed none", "/set n 5", "/set")
    lines = [line[1:-1] for line in text.splitlines() if line.startswith("(")]
    assert lines[0] == "temp 0.0  top-k 40  top-p 0.95  min-p 0.05  seed none  repeat-last-n 64"
    assert lines[-1].endswith("logit-bias none  ignore-eos off  n 5")
    assert "temp 0.5  top-k 3  top-p 0.95  min-p 0.05  seed none  repeat-last-n 64" in lines
    assert [line for line in lines if re.match(r"(temp|top-k|seed|n) \S+$", line)] == [
        "temp 0.5",
        "top-k 3",
        "seed 7",
        "seed none",
        "n 5",
    ]
    text = transcript([], "/set temp hot", "/set temp -1", "/set frob 1", "/set frob", "/set n 0", "/set")
    assert text.count("(error: ") == 5
    assert text.count("there is no option frob; there are temp, top-k") == 2 and "(temp 0.0  top-k 40  " in text
    text = transcript(
        [], "/set logit-bias 5+1 7-inf", "/set samplers kt", '/set dry-sequence-breaker "\\n" ab', "/set top-k"
    )
    for line in ("logit-bias 5+1 7-inf", "samplers top_k;temperature", "dry-sequence-breaker '\\n' ab", "top-k 40"):
        assert f"({line})\n" in text


def test_options_reach_the_model() -> None:
    """`/set n` cuts the next answer, and the user is told."""
    text = transcript(["One two three four five."], "/set n 2", "Count")
    assert "([cut after 2 tokens; /set n changes that])" in text and "five" not in text


def test_system_message() -> None:
    """Shown, changed, removed."""
    text = transcript([], "/system", "/system Be  nice.", "/system none", system="Be rude.")
    assert re.findall(r"^\((.*)\)$", text, re.M) == [
        "system message: Be rude.",
        "system message: Be  nice.",
        "there is no system message",
    ]


def test_lines_that_go_on() -> None:
    """A backslash at the end joins lines, into one message."""
    screen = Screen("one \\", "two\\", "", "/exit")
    repl = loop(screen, "Yes.")
    repl.run(screen.read)
    assert repl.chat.messages[0]["content"] == "one \ntwo\n"
    assert screen.text.startswith("> one \\\n  two\\\n  \nYes.\n")


def test_ctrl_c_at_the_prompt_does_not_leave() -> None:
    """It gives up what was typed, also in the middle of several lines."""
    text = transcript(["Yes."], KeyboardInterrupt(), "one \\", KeyboardInterrupt(), "Hi", "/exit")
    assert text.count("((Ctrl-D or /exit leaves))") == 2
    assert "Yes.\n" in text


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partial answer stays on the screen and in the conversation."""
    evaluate, calls = ScriptedSession.evaluate, []

    def interrupted(self: ScriptedSession, ids: Any) -> Any:
        calls.append(ids)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, ids)

    monkeypatch.setattr(ScriptedSession, "evaluate", interrupted)
    text = transcript(["One two three four five six seven."], "Count", "/stats", "/exit")
    assert re.search(r"> Count\nOne.*\n\(\[stopped\]\)\n> /stats\n\(no answer yet; .*; 2 messages\)\n> /exit\n", text)
    assert "seven" not in text


def test_ctrl_c_ends_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to go on."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ScriptedSession, "evaluate", interrupted)
    screen = Screen("Hi", "never")
    repl = loop(screen, interactive=False)
    with pytest.raises(KeyboardInterrupt):
        repl.run(screen.read)
    assert screen.text == "> Hi\n"


def test_errors_do_not_end_the_chat() -> None:
    """A message that does not fit is told; the next one is answered."""
    text = transcript(["Yes."], "many words " * 100, "Hi", n_ctx=60)
    assert re.search(r"\(error: the message has \d+ tokens .* context holds 60; shorten it", text)
    assert "Yes.\n" in text


def test_a_small_context_is_told() -> None:
    """When old messages are left out, the user is told once for each time."""
    text = transcript(["word " * 10] * 9, *(f"Question {n} is here." for n in range(9)), n_ctx=120)
    assert 1 <= text.count("does not see the oldest") <= 4


# ---- the commands ----


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the demo model in its default type."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IQRUN_CACHE", str(folder))
        demo.prepare(demo.DEFAULT_TYPE)
    return folder


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is read from or written to the user's folders."""
    monkeypatch.setenv("IQRUN_CACHE", str(cache))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield


def iqrun(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iqrun.cli.main", *words]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=False)


def test_demo_answers_one_question(cache: Path) -> None:
    """The answer on stdout, everything else on stderr; the model is made once."""
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    done = iqrun("demo", "--prompt", demo.QUESTION, "--temp", "0", "-n", "20")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Once upon a time") and done.stdout.endswith("\n")
    assert "iqrun demo" in done.stderr and demo.QUESTION in done.stderr
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_demo_makes_damaged_files_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was cut off is not used."""
    monkeypatch.setenv("IQRUN_CACHE", str(tmp_path / "deep" / "cache"))
    path = demo.prepare("iq2_ks")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert demo.prepare("IQ2_KS") == path
    assert path.read_bytes() == whole
    assert len(list(path.parent.iterdir())) == 1


def test_demo_refuses_unknown_types(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything is done."""
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "IQ9_Z", "--prompt", "x"])
    assert "IQ9_Z" in capsys.readouterr().err.upper()


def test_chat_through_a_pipe() -> None:
    """A line is a message or a command; answers alone on stdout; no prompt_toolkit needed."""
    words = ["chat", "-m", str(model_path()), "--temp", "0", "-n", "8"]
    done = iqrun(*words, typed="Tell me a story about a cat.\n/stats\nTell me a story about a dog.\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and done.stdout.startswith("Once upon a time")
    assert len(re.findall(r"^\[\d+ tokens, \d+ tokens/s; prompt \d+ tokens", done.stderr, re.M)) == 2
    code = (
        f"import sys\nsys.modules['prompt_toolkit'] = None\nfrom iqrun.cli.main import main\nsys.exit(main({words!r}))"
    )
    same = subprocess.run([sys.executable, "-c", code], input="Hi\n", capture_output=True, text=True, check=False)
    assert same.returncode == 0, same.stderr


def test_chat_without_a_model() -> None:
    """A pipe cannot answer the offer of the demo: the message says what to do."""
    done = iqrun("chat", typed="Hi\n")
    assert done.returncode == 2
    assert "-m FILE" in done.stderr and "iqrun demo" in done.stderr


@pytest.mark.parametrize("words", [["--temp", "-1"], ["--top-p", "3"]])
def test_wrong_options_are_told_before_loading(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Even where the model does not exist."""
    assert main(["chat", "-m", "no-such-file", *words]) == 2
    assert "no-such-file" not in capsys.readouterr().err


def test_in_a_terminal(tmp_path: Path) -> None:
    """Start, answer, Ctrl-C in an answer, several lines, history, Ctrl-D: through a real pseudo-terminal."""
    pexpect = pytest.importorskip("pexpect")
    environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", "PROMPT_TOOLKIT_NO_CPR": "1"}
    words = ["-m", "iqrun.cli.main", "demo", "--temp", "0", "-n", "60"]
    child = pexpect.spawn(sys.executable, words, env=environment, encoding="utf-8", timeout=30, dimensions=(24, 100))
    child.expect("Tell me a story about a cat.")
    child.expect(">")
    child.send("Tell me a story about a cat.\r")
    child.expect("Once upon a time")
    child.expect(r"\[\d+ tokens, \d+ tokens/s; prompt \d+ tokens, \d+ tokens/s; context \d+/1024\]")
    child.expect(">")
    child.send("/set n none\r")
    child.expect("n none")
    child.expect(">")
    child.send("first\x1b\rsecond\r")  # Alt-Enter between the lines
    child.expect(r"second.*[a-z]{3}")
    child.sendintr()
    child.expect(r"stopped|leaves|context \d+/1024")
    child.expect(">")
    child.send("/undo\r")
    child.expect("took back: ")
    child.expect(">")
    child.send("/claer\r")
    child.expect("did you mean /clear")
    child.expect(">")
    child.sendintr()
    child.expect("Ctrl-D or /exit leaves")
    child.expect(">")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    history = (tmp_path / "data" / "iqrun" / "chat_history").read_text(encoding="utf-8")
    assert "+Tell me a story about a cat." in history and "+first\n+second\n" in history


def test_in_a_narrow_terminal() -> None:
    """Forty columns: words stay whole; Tab completes; the clipboard is the terminal's; several lines; saved talks."""
    pexpect = pytest.importorskip("pexpect")
    environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", "PROMPT_TOOLKIT_NO_CPR": "1"}
    words = ["-m", "iqrun.cli.main", "demo", "--temp", "0", "-n", "60"]
    child = pexpect.spawn(sys.executable, words, env=environment, encoding="utf-8", timeout=30, dimensions=(24, 40))
    child.expect("/help lists")
    child.expect(">")
    child.send("Tell me a story about a cat.\r")
    child.expect("Once upon a time")
    child.expect(r"\[60 tokens")
    answer = on_screen("Once upon a time" + child.before)
    assert max(map(len, answer)) <= 39 and len(answer) > 3
    with iqrun_model() as model:
        expected = "".join(model.chat().send("Tell me a story about a cat.", temperature=0.0, max_tokens=60))
    assert " ".join(" ".join(answer).split()) == " ".join(expected.split())
    child.expect(">")
    child.send("/cop\t")
    child.expect("y")
    child.send("\r")
    child.expect(r"\x1b\]52;c;([A-Za-z0-9+/=]+)\x07")
    assert b64decode(child.match[1]).decode() == expected
    child.expect(">")
    child.send("/save talk\r")
    child.expect("/load talk brings it back")
    child.expect(">")
    child.send("/multiline\r")
    child.expect("Alt-Enter sends")
    child.expect(">")
    child.send("/multiline\r")
    child.expect("Enter sends")
    child.expect(">")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def iqrun_model() -> Model:
    return iqrun_load(demo.prepare(demo.DEFAULT_TYPE), n_ctx=1024)


def on_screen(sent: str) -> list[str]:
    """The lines of what was sent to a terminal, with words taken back where the wrapper did so."""
    lines = [""]
    for part in re.findall(r"\x1b\[\d*[DK]|\r?\n|[^\x1b\r\n]+", sent):
        if part.endswith("\n"):
            lines.append("")
        elif part.endswith("D") and part.startswith("\x1b"):
            lines[-1] = lines[-1][: -int(part[2:-1])]
        elif not part.startswith("\x1b"):
            lines[-1] += part
    return lines
