"""iqrun inspect: what it shows, also of odd and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from iqrun.cli.main import main
from tests.gguf_builder import F32, FLOAT32, STRING, RawGGUF, kv, kv_array, tiny_llama


def inspect(*words: object) -> int:
    return main(["inspect", *(str(word) for word in words)])


def test_summary_shows_sizes_types_and_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, size, storage types and every key with its type and value."""
    path = tiny_llama(tmp_path / "m.gguf", weight_type="F16")
    assert inspect(path) == 0
    out = capsys.readouterr().out
    assert f"{path.stat().st_size} bytes" in out
    lines = [line.split() for line in out.splitlines()]
    n_weights = 2 * 320 * 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)
    assert ["F16", "16", str(n_weights)] in [line[:3] for line in lines]
    assert ["llama.block_count", "uint32", "2"] in lines
    assert ["general.architecture", "string", "llama"] in lines
    assert "(320 in all)" in out
    assert "blk.0.attn_q.weight" not in out


def test_tensors_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--tensors: name, shape, type, bits, bytes and offset of each."""
    assert inspect(tiny_llama(tmp_path / "m.gguf"), "--tensors") == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["blk.1.ffn_up.weight"][:4] == ["64x128", "F32", "32.000", "32768"]
    assert rows["blk.1.ffn_down.weight"][:1] == ["128x64"]


def test_json_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json: metadata with whole arrays, and tensors; numbers that JSON lacks become words."""
    extra = [kv("x.nan", FLOAT32, float("nan")), kv_array("x.inf", FLOAT32, [float("inf"), 1.0])]
    path = tiny_llama(tmp_path / "m.gguf", extra=extra)
    assert inspect(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert 320 == len(found["metadata"]["tokenizer.ggml.tokens"]) == len(found["metadata"]["tokenizer.ggml.scores"])
    assert (found["metadata"]["x.nan"], found["metadata"]["x.inf"]) == ("nan", ["inf", 1.0])
    assert len(found["tensors"]) == 2 + 2 * 9 + 1
    first = found["tensors"][0]
    assert tuple(first[k] for k in ("name", "shape", "type", "n_bytes")) == (
        "token_embd.weight",
        [64, 320],
        "F32",
        81920,
    )


def test_program_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--program: the operations, as text and as JSON."""
    path = tiny_llama(tmp_path / "m.gguf")
    assert inspect(path, "--program") == 0
    assert "attention" in capsys.readouterr().out
    assert inspect(path, "--program", "--json") == 0
    assert any("attention" in line for line in json.loads(capsys.readouterr().out)["program"])


def test_hostile_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and broken UTF-8 in names and values are shown as escapes."""
    raw = RawGGUF(kvs=[kv(b"k\x1b[2J\xff", STRING, b"v\x1b]0;x\x07\n\xff"), kv_array("words", STRING, ["a\x1b[0m"])])
    raw.add_tensor("t\x1b[31m", (1,), F32, bytes(4))
    path = raw.write(tmp_path / "m.gguf")
    for options in ([], ["--tensors"], ["--tensors", "--json"]):
        assert inspect(path, *options) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\x07" not in out
    assert "\\x1b[31m" in out.replace("\\\\", "\\")


def test_vocabulary_without_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without tensors is shown, not divided by zero."""
    assert inspect(RawGGUF().write(tmp_path / "m.gguf")) == 0
    assert "0 weights" in capsys.readouterr().out


def test_bad_file_and_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no GGUF: code 1, one line with its name. No file: code 2."""
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"x" * 100)
    assert inspect(path) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "bad.gguf: not a GGUF file" in captured.err
    with pytest.raises(SystemExit) as stop:
        inspect()
    assert stop.value.code == 2


def test_check_reads_every_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check: code 0 and one line for a sound file; code 1 with tensor, counts and place for a damaged one."""
    assert inspect(tiny_llama(tmp_path / "m.gguf"), "--check") == 0
    assert "check: 0 of 21 tensors are damaged; 0 were compared with a hash" in capsys.readouterr().out
    raw = RawGGUF()
    raw.add_tensor("bad", (4, 2), F32, np.array([0, 0, 0, 0, 0, np.nan, np.inf, 0], np.float32).tobytes())
    raw.add_tensor("other", (256, 1), 18, bytes(98))
    assert inspect(raw.write(tmp_path / "bad.gguf"), "--check") == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bad", "F32", "1", "1", "row", "1", "column", "1"] in lines
    assert inspect(tmp_path / "bad.gguf", "--check", "--json") == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["check"]}
    assert (found["bad"]["n_nan"], found["bad"]["first"], found["other"]["n_nan"]) == (1, [1, 1], None)
