"""`iqrun tokenize`: tokens as a table, as ids, as JSON."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from iqrun.cli.main import main
from iqrun.models.demo import model_path
from tests.gguf_builder import NORMAL
from tests.tokenizer_reference import special_id, write_vocabulary

MODEL = ["tokenize", "-m", str(model_path())]


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*MODEL, *words]) == 0
    return capsys.readouterr().out


def test_one_token_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Id and piece; BOS first."""
    lines = output(capsys, "Once upon").splitlines()
    assert [line.split() for line in lines] == [["1", "<s>"], ["580", "▁Once"], ["526", "▁upon"]]


def test_ids_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts."""
    assert output(capsys, "--ids", "Once upon") == "1 580 526\n"
    assert output(capsys, "--ids", "--no-special", "Once upon") == "580 526\n"
    assert output(capsys, "--ids", "--no-special", "") == "\n"


def test_special_tokens_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """``<|end|>`` is text unless --parse-special."""
    assert len(output(capsys, "--ids", "<|end|>").split()) > 2
    assert len(output(capsys, "--ids", "--parse-special", "<|end|>").split()) == 2


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, text and bytes of each token."""
    found = json.loads(output(capsys, "--json", "--no-special", "Once"))
    assert found == [{"id": 580, "text": "▁Once", "bytes": b" Once".hex()}]


def test_stdin_is_taken_as_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends are kept, bytes that are not UTF-8 become U+FFFD."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\r\n\xff"), encoding="utf-8"))
    found = json.loads(output(capsys, "--json", "--no-special"))
    assert b"".join(bytes.fromhex(token["bytes"]) for token in found) == " a\r\n\ufffd".encode()


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A piece with an escape sequence is shown, not executed."""
    path = write_vocabulary(tmp_path / "v", "llama", ["▁", "\x1b[2J"], types=[NORMAL, 4])
    assert main(["tokenize", "-m", str(path), "\x1b[2J"]) == 0
    assert "\x1b" not in (text := capsys.readouterr().out) and "\\x1b[2J" in text


def test_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What was wrong with the vocabulary is said once, beside the answer."""
    path = write_vocabulary(tmp_path / "v", "llama", ["▁", "a"], types=[NORMAL] * 2, extra=[special_id("eos", 99)])
    assert main(["tokenize", "-m", str(path), "--ids", "a"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "0 1\n" and captured.err.startswith("warning: ") and "99" in captured.err


def test_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing file, and a file without a vocabulary."""
    assert main(["tokenize", "-m", str(tmp_path / "none.gguf"), "a"]) == 1
    assert "none.gguf" in capsys.readouterr().err
