"""The command line as a whole: help, exit codes, errors in one line; and what the commands share."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from iqrun import errors
from iqrun.cli import main as cli
from iqrun.cli import ui


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs `iqrun` as a user would."""
    command = [sys.executable, "-m", "iqrun", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each; without words too."""
    texts = []
    for words in (["--help"], []):
        with pytest.raises(SystemExit) as leaving:
            cli.main(words)
        assert leaving.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    for name, line in cli.COMMANDS.items():
        assert name in texts[0] and line in texts[0]


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_commands_keep_the_convention(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has the HELP of the table, examples that begin with its name, and a --help that works."""
    module = import_module(f"iqrun.cli.{name}")
    assert cli.COMMANDS[name] == module.HELP
    assert f"iqrun {name}" in module.EXAMPLES
    with pytest.raises(SystemExit) as leaving:
        cli.main([name, "--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert module.EXAMPLES.strip() in text and "--debug" in text


def test_version() -> None:
    """It is the package's."""
    import iqrun

    assert run("--version").stdout == f"iqrun {iqrun.__version__}\n"


def test_help_imports_no_library() -> None:
    """Listing the commands must not load the native module, numpy or a command."""
    code = (
        "import sys\nfrom iqrun.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "bad = [m for m in sys.modules if m.startswith('iqrun.') and m not in ('iqrun.cli', 'iqrun.cli.main')]\n"
        "sys.exit(str(bad) if bad or 'numpy' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["demo", "IQ9_K"], ["demo", "Q2_K"], ["tokenize"], ["tokenize", "--frob"], ["--frob"]]
)
def test_misuse_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own exit code, with its usage line."""
    with pytest.raises(SystemExit) as leaving:
        cli.main(words)
    assert leaving.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.IqrunError("it is\nbroken"), 1, "iqrun: error: it is broken"),
        (errors.ResourceError("no room"), 1, "iqrun: error: no room"),
        (
            FileNotFoundError(2, "No such file or directory", "x.gguf"),
            1,
            "iqrun: error: x.gguf: No such file or directory",
        ),
        (OSError("disk trouble"), 1, "iqrun: error: disk trouble"),
        (MemoryError(), 1, "iqrun: error: out of memory"),
        (ValueError("top_p is 2"), 2, "iqrun: error: top_p is 2"),
        (KeyboardInterrupt(), 130, "iqrun: stopped"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback unless --debug asks for it."""

    def fail(_: object) -> int:
        raise error

    module = import_module("iqrun.cli.tokenize")
    monkeypatch.setattr(module, "run", fail)
    assert cli.main(["tokenize", "-m", "x"]) == code
    assert capsys.readouterr().err == line + "\n"
    assert cli.main(["tokenize", "-m", "x", "--debug"]) == code
    text = capsys.readouterr().err
    assert "Traceback" in text and text.endswith(line + "\n")


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_like_dev_null(stream: str) -> None:
    """`iqrun ... 2>&-` and the like: the other streams get what they always get, and no traceback."""
    from iqrun.models.demo import model_path

    redirect = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}[stream]
    words = f"run -m {model_path()} -n 3 --temp 0" + ("" if stream == "stdin" else " -p Once")
    done = subprocess.run(
        f"{sys.executable} -m iqrun {words} {redirect}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (stream != "stdout")


def test_messages_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names come from files and command lines: their control characters are shown as escapes."""
    assert cli.main(["inspect", str(tmp_path / "\x1b[31m.gguf")]) == 1
    ui.warn(["tensor \x1b[2J is odd"])
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\\x1b[31m.gguf" in err and "warning: tensor \\x1b[2J is odd\n" in err
    assert "\x1b" not in ui.Progress("x").line(1, 2, 1.0, 80, "\x1b[31mname")


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is none of ours is a bug, and must be reported as one."""

    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(import_module("iqrun.cli.tokenize"), "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["tokenize", "-m", "x"])


def test_a_closed_pipe_is_silent(tmp_path: object) -> None:
    """`iqrun ... | head` ends without a word."""
    from iqrun.models.demo import model_path

    code = f"import sys; from iqrun.cli.main import main; sys.exit(main(['tokenize', '-m', {str(model_path())!r}]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(b"word " * 100_000)
    assert err == b""


def test_output_that_the_terminal_cannot_show(tmp_path: object) -> None:
    """A terminal without Unicode gets question marks, not an error."""
    from iqrun.models.demo import model_path

    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("tokenize", "-m", str(model_path()), "Once", env=environment)
    assert done.returncode == 0 and "?Once" in done.stdout


# ---- ui ----


def test_table_aligns_numbers_right() -> None:
    """Columns start at the same place; no blanks at line ends."""
    rows = [("attn_q", 12, "3.5 MiB"), ("output_norm", 3, "-")]
    expected = "name          n     size\nattn_q       12  3.5 MiB\noutput_norm   3        -"
    assert ui.table(("name", "n", "size"), rows) == expected


def test_table_fits_a_narrow_terminal() -> None:
    """Long names are cut in the middle, numbers are not."""
    text = ui.table(("name", "size"), [("blk.10.attn_output.weight", 123456), ("x", 1)], width=24)
    assert max(len(line) for line in text.splitlines()) <= 24
    assert "123456" in text and "blk." in text and "eight" in text


def test_table_without_rows() -> None:
    """The titles alone."""
    assert ui.table(("a", "b"), []) == "a  b"


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (26594752, "25.4 MiB"), (3 << 40, "3.0 TiB")]
)
def test_human_bytes(n: int, text: str) -> None:
    """Powers of 1024."""
    assert ui.human_bytes(n) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")])
def test_human_seconds(seconds: float, text: str) -> None:
    """Two units at most."""
    assert ui.human_seconds(seconds) == text


def test_json_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """Text as it is, keys in order; NaN, which is no JSON, is refused."""
    ui.print_json({"b": "é", "a": [1, None]})
    text = capsys.readouterr().out
    assert json.loads(text) == {"b": "é", "a": [1, None]} and text.index('"b"') < text.index('"a"') and "é" in text
    with pytest.raises(ValueError):
        ui.print_json(float("nan"))


def test_progress_is_silent_in_a_pipe() -> None:
    """Nothing but a terminal sees the bar."""
    stream = io.StringIO()
    with ui.Progress("working", stream=stream) as progress:
        progress(1, 2)
        progress(2, 2)
    assert stream.getvalue() == ""


def test_progress_draws_on_a_terminal() -> None:
    """It draws in place and leaves an empty line."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with ui.Progress("working", unit="tokens", stream=stream) as progress:
        progress(1, 2, "note")
        progress(2, 2)
    assert " 50%" in stream.getvalue() and "100%" in stream.getvalue()
    assert "\n" not in stream.getvalue() and stream.getvalue().endswith("\r\x1b[K")


def test_progress_of_several_never_goes_back() -> None:
    """What one reports behind the other's share is left out."""

    class Bar(ui.Progress):
        def __call__(self, done: float, total: float, note: str = "", **_: object) -> None:
            drawn.append((done, total, note))

    drawn: list[tuple[float, float, str]] = []
    progress = ui.Furthest(Bar("working"))
    for state in ((0, 0, "a"), (2, 4, "b"), (1, 3, "c"), (3, 6, "d"), (4, 4, "e"), (5, 6, "f")):
        progress(*state)
    assert [note for _, _, note in drawn] == ["a", "b", "d", "e"]


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 200])
def test_progress_fits_the_line(width: int) -> None:
    """Whatever the terminal's width."""
    line = ui.Progress("quantizing", unit="B").line(5 << 20, 10 << 20, 2.0, width, "blk.0.ffn_down.weight")
    assert len(line) <= width
    assert width < 20 or "50%" in line


def test_progress_tells_rate_and_time() -> None:
    """Half done in two seconds: two more to go."""
    line = ui.Progress("x", unit="B").line(5 << 20, 10 << 20, 2.0, 80)
    assert "2s left" in line and "2.5 MiB/s" in line and "############............" in line
    assert "0%" in ui.Progress("x").line(0, 0, 0.0, 80)
