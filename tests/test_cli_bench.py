from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqrun.cli.main import main

DEMO = str(Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf")
SMALL = ["bench", "-m", DEMO, "-p", "16", "-n", "8", "-r", "2", "-t", "2"]


def test_json_has_a_list_of_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """Prefill and decode with every field; the roof share follows from the others."""
    assert main([*SMALL, "--json"]) == 0
    prefill, decode = json.loads(capsys.readouterr().out)
    fields = "test n_tokens tokens_per_second stddev threads isa weight_bytes_per_token read_bandwidth roof_share"
    assert list(decode) == fields.split()
    assert (prefill["test"], prefill["n_tokens"], prefill["roof_share"]) == ("prefill", 16, None)
    assert (decode["test"], decode["n_tokens"], decode["threads"]) == ("decode", 8, 2)
    assert 26_000_000 < decode["weight_bytes_per_token"] < 26_600_000
    roof = decode["read_bandwidth"] / decode["weight_bytes_per_token"]
    assert decode["roof_share"] == pytest.approx(decode["tokens_per_second"] / roof)
    assert min(prefill["tokens_per_second"], decode["tokens_per_second"], decode["read_bandwidth"]) > 0


def test_report_and_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with the roof in words, and one of the operations, whose shares add up to everything."""
    assert main([*SMALL, "--profile"]) == 0
    out = capsys.readouterr().out
    assert "decode" in out
    assert "of weights per token, read at" in out
    shares = [float(line.split()[-2]) for line in out.split("us per token", 1)[1].splitlines()[1:]]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "gated_matmul" in out


def test_a_test_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """-p 0 measures decode alone."""
    assert main(["bench", "-m", DEMO, "-p", "0", "-n", "4", "-r", "1", "--json"]) == 0
    assert [row["test"] for row in json.loads(capsys.readouterr().out)] == ["decode"]


@pytest.mark.parametrize(
    "words", [["-r", "0"], ["-n", "-1"], ["-p", "0", "-n", "0"], ["-c", "0"], ["--profile", "--json"]]
)
def test_wrong_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert main([*SMALL, *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
