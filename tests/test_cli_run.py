from __future__ import annotations

import io
from pathlib import Path

import pytest

import iqrun
from iqrun.cli.main import main

DEMO = str(Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf")
GREEDY = ["run", "-m", DEMO, "--temp", "0", "-t", "2"]


def test_text_alone_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """The completion as the library gives it, a newline, and nothing on stderr."""
    assert main([*GREEDY, "-p", "Once upon a time", "-n", "12"]) == 0
    out, err = capsys.readouterr()
    with iqrun.load(DEMO, n_threads=2) as model:
        assert out == model.complete("Once upon a time", max_tokens=12, temperature=0) + "\n"
    assert err == ""


def test_prompt_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -p the prompt is what comes in."""
    main([*GREEDY, "-p", "The dog", "-n", "6"])
    expected = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("The dog"))
    assert main([*GREEDY, "-n", "6"]) == 0
    assert capsys.readouterr().out == expected


def test_stop_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """The first stop string that is met ends the text."""
    assert main([*GREEDY, "-p", "Once upon a time", "-n", "60", "--stop", "zzz", "--stop", "."]) == 0
    assert "." not in capsys.readouterr().out


def test_chat_and_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """--chat asks through the template; --verbose tells the speed on stderr."""
    assert main([*GREEDY, "--chat", "-p", "Write a short story about rain and bird.", "-n", "40", "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert "bird" in out
    assert "<|" not in out
    assert "generated: 40 tokens" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--top-p", "3"], 2, "top_p is 3.0"),
        (["--system", "Be brief."], 2, "--system needs --chat"),
        (["-c", "-5"], 2, "n_ctx is -5"),
        (["-c", "4"], 1, "do not fit in a context of 4"),
        (["--stop", ""], 2, "stop"),
    ],
)
def test_mistakes_are_one_line(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 for a wrong option, 1 for work that failed; one line on stderr."""
    assert main([*GREEDY, "-p", "Once upon a time", "-n", "4", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The path is named."""
    assert main(["run", "-m", "no-such.gguf", "-p", "x"]) == 1
    assert "no-such.gguf" in capsys.readouterr().err
