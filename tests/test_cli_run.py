from __future__ import annotations

import io
import json
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


def test_lookup_gives_the_same_text_and_tells_its_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    """--lookup changes nothing but the time; --verbose counts."""
    words = [*GREEDY, "-p", "The cat sat. The dog ran. The cat sat. The dog", "-n", "40", "--verbose"]
    assert main(words) == 0
    plain = capsys.readouterr()
    assert main([*words, "--lookup"]) == 0
    out, err = capsys.readouterr()
    assert out == plain.out
    assert "guessed: " in err
    assert "guessed" not in plain.err


def test_prompt_cache_is_written_once_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run reads only what is new; the text is the same as without the file."""
    cache, story = tmp_path / "story.state", "Once upon a time there was a fox. " * 6
    words = [*GREEDY, "-n", "8", "--verbose", "-p"]
    assert main([*words, story + "One day"]) == 0
    expected = capsys.readouterr().out
    assert main([*words, story, "--prompt-cache", str(cache)]) == 0
    capsys.readouterr()
    written = cache.read_bytes()
    assert main([*words, story + "One day", "--prompt-cache", str(cache)]) == 0
    out, err = capsys.readouterr()
    assert out == expected
    assert int(err.split("prompt: ")[1].split()[0]) < 6
    assert cache.read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["story.state"]
    cache.write_bytes(written[:-1])
    assert main([*words, story, "--prompt-cache", str(cache)]) == 1
    assert "this state is damaged" in capsys.readouterr().err


def test_answer_follows_a_schema_or_grammar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From files, with and without --chat; a cut answer is exit code 1 and says why."""
    pytest.importorskip("llguidance")
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    schema.write_text('{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], '
                      '"additionalProperties": false}')  # fmt: skip
    grammar.write_text('root ::= " yes" | " no"')
    for more in ([], ["--chat"]):
        assert main([*GREEDY, "-p", "Invent one.", "--json-schema", str(schema), *more]) == 0
        assert json.loads(capsys.readouterr().out)["n"] in (1, 2)
    assert main([*GREEDY, "-p", "Is it?", "--grammar", str(grammar)]) == 0
    assert capsys.readouterr().out.strip() in ("yes", "no")
    assert main([*GREEDY, "-p", "Invent one.", "--json", "-n", "2"]) == 1
    assert "was cut (length) before it was complete" in capsys.readouterr().err


def test_wrong_grammar_names_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, before the model is loaded."""
    pytest.importorskip("llguidance")
    path = tmp_path / "wrong.lark"
    path.write_text("start: nowhere")
    assert main(["run", "-m", "no-such.gguf", "-p", "x", "--grammar", str(path)]) == 1
    err = capsys.readouterr().err
    assert "wrong.lark: this is not a valid Lark grammar" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--chat", "--prompt-cache", "x"], 2, "--prompt-cache is not for --chat"),
        (["--grammar", "no-such.gbnf"], 1, "no-such.gbnf"),
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
