"""iqrun fit: the table, the advice, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqrun import machine
from iqrun.cli.main import main
from iqrun.fitting import kernels

DEMO = str(Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf")


@pytest.fixture(autouse=True)
def _measure_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine can do is not looked at here."""
    monkeypatch.setattr(kernels, "_MATRIX_BYTES", 4 << 20)
    monkeypatch.setattr(kernels, "_SECONDS", 0)


def test_a_file_has_its_types_and_an_advice(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per type, from the smallest; all fit where memory is ample."""
    assert main(["fit", DEMO, "-t", "1", "--memory", "8G", "-c", "512"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if " fits  " in line]
    assert [row[0] for row in rows][:2] == ["IQ2_KS", "IQ2_K"]
    assert rows[-1][0] == "F16"
    assert "Take IQ5_K with -c 512 (up to 1024 fits)" in out
    assert "of which 8.0 GB may be used" in out


def test_memory_decides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if so much were free: a part streams, none fits, JSON says why."""
    monkeypatch.setattr(machine, "process_memory", lambda: 60_000_000)  # of a program, not of a long run of tests
    assert main(["fit", "3b", "-t", "1", "--memory", "2.3G", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    fits = {row["type"]: row["fits"] for row in found["types"]}
    assert (fits["IQ3_KS"], fits["IQ6_K"]) == (True, False)
    assert found["board"]["memory"] == 2_300_000_000
    assert found["advice"]["estimate"]["fits"] is True
    assert found["advice"]["n_ctx_max"] >= found["advice"]["estimate"]["n_ctx"]
    assert main(["fit", "70b", "-t", "1", "--memory", "1.9G"]) == 0
    assert "Take a smaller model" in capsys.readouterr().out


def test_without_a_model_sizes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, with what to take."""
    assert main(["fit", "-t", "1", "--memory", "4G"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit() and "b " in line[:5]] == [
        *("0.5b", "1b", "3b", "8b", "14b", "32b", "70b")
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_the_table_fits_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line of it is wider than the terminal; a narrow one loses a column."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: type("Size", (), {"columns": width})())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["fit", "3b", "-t", "1", "--memory", "2G"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith(("IQ", "type", "Q8", "F16"))]
    assert len(table) == 14
    assert max(len(line) for line in table) <= width
    assert ("file" in table[0]) == (width > 60)


def test_what_cannot_be_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A size out of range, a context of nothing, a file that is not there."""
    for words, text in ((["2000b"], "out of range"), (["3b", "-c", "0"], "at least one"), (["none.gguf"], "none.gguf")):
        assert main(["fit", *words]) in (1, 2)
        assert text in capsys.readouterr().err
