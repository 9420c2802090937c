"""`iqrun chat` and `iqrun demo`: exact transcripts with a scripted model, and pipes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqrun.cli import demo
from iqrun.cli.main import main
from iqrun.errors import IqrunError
from iqrun.models.demo import model_path
from tests.chat_screen import Screen, loop, transcript
from tests.scripted_model import ScriptedSession


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
    assert lines[-2] == "logit-bias none  ignore-eos off  n 5  think dim  context-full drop"
    assert lines[-1] == "lookup off  keep-state off"
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
    assert text.count("there is no option frob; /set lists them") == 2 and "(temp 0.0  top-k 40  " in text
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
    assert re.search(r"> Count\nOne.*\n\(\[stopped\]\)\n> /stats\n\(3 tokens, .* \(stopped\); .*; 2 messages\)\n", text)
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
    command = [sys.executable, "-m", "iqrun", *words]
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


def test_demo_tells_of_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written, the message names the folder and the variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("IQRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(IqrunError, match=r"file/cache: Not a directory; .* IQRUN_CACHE"):
        demo.prepare("IQ3_K")


def test_demo_notices_another_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of an older build is not taken for one of this."""
    source = model_path()
    before = demo._cache_path(source, "IQ3_K")
    assert before == demo._cache_path(source, "IQ3_K") != demo._cache_path(source, "IQ4_K")
    files = demo._quantizer_files()
    assert any("_native" in path.name for path in files) and {"quantizer", "feedback"} <= {
        path.parent.name for path in files
    }
    changed = tmp_path / "changed.so"
    changed.write_bytes(files[0].read_bytes() + b"x")
    monkeypatch.setattr(demo, "_quantizer_files", lambda: [changed, *files[1:]])
    assert demo._cache_path(source, "IQ3_K") != before


def test_a_conversation_is_gone_on_with() -> None:
    """--load; a name that does not exist is an error at once."""
    words = ["chat", "-m", str(model_path()), "--temp", "0", "-n", "4"]
    assert iqrun(*words, "--keep-state", typed="Hi\n/save talk\n").returncode == 0
    done = iqrun(*words, "--load", "talk", typed="And?\n/list\n")
    assert done.returncode == 0 and "loaded 2 messages" in done.stderr
    found = re.search(r"^(\d+) tokens need not be read again\n", done.stderr, re.M)
    assert found is not None and re.search(r"; prompt \d tokens", done.stderr)
    done = iqrun(*words, "--load", "nothing", typed="Hi\n")
    assert done.returncode == 2 and "no conversation nothing" in done.stderr and done.stdout == ""


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


def test_options_of_generation_reach_the_answers() -> None:
    """Guessing changes no word; a form is kept; a mistake in it is told before anything is loaded."""
    words = ["chat", "-m", str(model_path()), "--temp", "0", "-n", "20"]
    typed = "Tell me a story about a cat.\nTell me a story about a cat.\n"
    assert iqrun(*words, typed=typed).stdout == iqrun(*words, "--lookup", typed=typed).stdout != ""
    assert iqrun(*words, "--json", typed="Hi\n").stdout.startswith("{")
    done = iqrun("chat", "-m", "no-such-model", "--json-schema", "no-such-file")
    assert done.returncode == 1 and "no-such-file" in done.stderr and "no-such-model" not in done.stderr


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
