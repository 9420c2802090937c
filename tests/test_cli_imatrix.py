"""iqrun imatrix: its files, its output, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from iqrun.cli.main import main
from iqrun.gguf import GGUFFile
from iqrun.quantizer import GramFile, read_imatrix
from iqrun.quantizer.sensitivity import sensitivities
from tests.gguf_builder import tiny_llama

TEXT = "one two three four five six seven eight nine ten " * 8


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tiny_llama(tmp_path / "in.gguf")


def imatrix(*words: object) -> int:
    return main(["imatrix", *(str(word) for word in words)])


def compute(source: Path, out: Path, *words: object) -> int:
    return imatrix("-m", source, "-f", source.with_name("text.txt"), "-o", out, "-c", 32, "-t", 1, *words)


def test_writes_both_formats(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The suffix decides; the answer is one line; the text's name is kept without its folder."""
    for name in ("m.gguf", "m.dat", "m.imatrix"):
        assert compute(source, tmp_path / name, "--chunks", 2) == 0
        matrix = read_imatrix(tmp_path / name)
        assert (matrix.is_legacy, matrix.n_chunks, matrix.datasets) == (name == "m.dat", 2, ("text.txt",))
        captured = capsys.readouterr()
        assert captured.out == f"{tmp_path / name}: {len(matrix.entries)} tensors, 2 chunks of text.txt\n"
        assert captured.err == ""


def test_full_and_json(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--full adds the second moments; --json prints an object, with the statistics if --show asks for them."""
    out = tmp_path / "m.gguf"
    assert compute(source, out, "--full", "--json", "--memory", 1) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["path", "n_tensors", "n_chunks", "datasets"]
    with GramFile(out) as grams:
        assert len(grams.sources) == report["n_tensors"] == 15
    assert imatrix("--merge", out, "--show", "--json") == 0
    tensors = json.loads(capsys.readouterr().out)["tensors"]
    values = read_imatrix(out).entries
    assert {row["name"] for row in tensors} == set(values)
    sums = [row["sum_of_squares"] for row in tensors]
    assert sums == sorted(sums, reverse=True)
    for row in tensors:
        share = values[row["name"]].astype(np.float64)
        share /= share.sum()
        assert row["activation_norm"] == pytest.approx(float(values[row["name"]].sum()) ** 0.5, rel=1e-5)
        assert row["entropy"] == pytest.approx(-(share * np.log2(share)).sum() / np.log2(share.size), rel=1e-5)
        assert row["dead"] == 0.0


def test_show_prints_a_table(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per tensor, then the sentence."""
    assert compute(source, tmp_path / "m.gguf", "--show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["tensor", "columns"]
    assert len(lines) == 1 + 15 + 2
    assert "15 tensors" in lines[-1]


def test_show_rates_the_tensors_of_a_model(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished matrix and -m: the most sensitive tensors first; without the model there is no such number."""
    out = tmp_path / "m.dat"
    assert compute(source, out) == 0
    capsys.readouterr()
    assert imatrix("--merge", out, "--show", "-m", source, "--json") == 0
    with GGUFFile(source) as file:
        expected = sensitivities(file, read_imatrix(out))
    rows = json.loads(capsys.readouterr().out)["tensors"]
    assert [row["sensitivity"] for row in rows] == sorted((expected[row["name"]] for row in rows), reverse=True)
    assert len({row["sensitivity"] for row in rows}) > 5
    assert imatrix("--merge", out, "--show", "--json") == 0
    assert {row["sensitivity"] for row in json.loads(capsys.readouterr().out)["tensors"]} == {None}


def test_merge_and_resume(source: Path, tmp_path: Path) -> None:
    """Files add up with and without a run of one's own; resuming a finished or fresh job just runs it."""
    assert compute(source, tmp_path / "a.gguf", "--resume") == 0
    assert compute(source, tmp_path / "b.gguf", "--merge", tmp_path / "a.gguf") == 0
    assert imatrix("--merge", tmp_path / "a.gguf", "--merge", tmp_path / "a.gguf", "-o", tmp_path / "c.gguf") == 0
    one, two, three = (read_imatrix(tmp_path / f"{name}.gguf") for name in "abc")
    assert two.n_chunks == three.n_chunks == 2 * one.n_chunks
    for name in one.entries:
        assert two.counts[name] == three.counts[name] == 2 * one.counts[name]
        np.testing.assert_allclose(two.entries[name], one.entries[name], rtol=1e-6)


def test_quantize_takes_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What this command writes, the next one reads."""
    assert compute(source, tmp_path / "m.dat") == 0
    words = ["quantize", source, tmp_path / "q", "IQ4_NL", "--pure", "--imatrix", tmp_path / "m.dat"]
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "blk.0.attn_q.weight" in captured.out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-m", "a.gguf"],
        ["-m", "a.gguf", "-f", "b.txt"],
        ["--merge", "a.gguf"],
        ["--show"],
        ["--show", "-m", "a.gguf"],
        ["--merge", "a", "-m", "a.gguf", "-o", "b.dat"],
        ["--merge", "a", "-f", "b.txt", "--show"],
        ["--merge", "a", "--merge", "b", "--show"],
        ["--merge", "a", "-o", "b.dat", "--full"],
        ["--merge", "a", "-o", "b.dat", "--ctx", "x"],
    ],
)
def test_misuse_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line: exit code 2, the reason on stderr, nothing on stdout."""
    try:
        code = imatrix(*words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err


def test_failure_exits_with_1_and_one_sentence(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing files, an existing output: code 1 and one line that names the file."""
    (tmp_path / "there.gguf").write_bytes(b"x")
    job = ["-m", source, "-f", source.with_name("text.txt"), "-c", 32]
    for words, text in [
        ([*job, "-o", tmp_path / "there.gguf"], "there.gguf exists"),
        ([*job, "-o", tmp_path / "o", "--merge", tmp_path / "none"], "none: cannot open it"),
        (["--merge", source, "-o", tmp_path / "o"], "it has no entries"),
        (["-m", source, "-f", tmp_path / "no.txt", "-o", tmp_path / "o"], "no.txt"),
    ]:
        assert imatrix(*words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert text in captured.err
        assert captured.err.count("\n") == 1
    assert not (tmp_path / "o").exists()
