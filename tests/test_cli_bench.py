from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from iqrun.cli.main import main

DEMO = str(Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf")
SMALL = ["bench", "-m", DEMO, "-p", "16", "-n", "8", "-r", "2", "-t", "2"]
FIELDS = """model test n_tokens depth tokens_per_second stddev threads isa source weight_bytes_per_token
    kv_bytes_per_token read_bandwidth roof roof_share"""


def test_json_has_a_list_of_tests(capsys: pytest.CaptureFixture[str]) -> None:
    """Prefill and decode with every field; the roof share follows from the others."""
    assert main([*SMALL, "--json"]) == 0
    prefill, decode = json.loads(capsys.readouterr().out)
    assert list(decode) == FIELDS.split()
    assert (prefill["test"], prefill["n_tokens"], prefill["roof"], prefill["roof_share"]) == ("prefill", 16, None, None)
    assert (decode["test"], decode["n_tokens"], decode["depth"], decode["threads"]) == ("decode", 8, 0, 2)
    assert decode["model"] == "stories-13m-f16.gguf"
    assert 26_000_000 < decode["weight_bytes_per_token"] < 26_600_000
    n_bytes = decode["weight_bytes_per_token"] + decode["kv_bytes_per_token"]
    assert decode["roof"] == pytest.approx(decode["read_bandwidth"] / n_bytes)
    assert decode["roof_share"] == pytest.approx(decode["tokens_per_second"] / decode["roof"])
    assert min(prefill["tokens_per_second"], decode["tokens_per_second"], decode["read_bandwidth"]) > 0


def test_ranges_depths_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Each number at each depth for each file; the roof sinks with the keys and values that a token reads."""
    words = ["bench", "-m", DEMO, DEMO, "-p", "1,4", "-n", "2", "-d", "0,64", "-r", "1", "-t", "1", "--csv"]
    assert main(words) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    tests = [(row["test"], int(row["n_tokens"]), int(row["depth"])) for row in rows]
    one = [("prefill", n, depth) for depth in (0, 64) for n in (1, 4)] + [("decode", 2, 0), ("decode", 2, 64)]
    assert tests == 2 * one
    shallow, deep = rows[4], rows[5]
    per_position = 5 * 2 * 2 * 128  # layers, keys and values, bytes of an F16, columns: the demo's 2 KV heads of 64
    assert int(deep["kv_bytes_per_token"]) - int(shallow["kv_bytes_per_token"]) == 64 * per_position
    assert float(deep["roof"]) < float(shallow["roof"])


def test_synthetic_models_need_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights of the types asked for, as Markdown; the picture shows bars; nothing stays behind."""
    picture = tmp_path / "speed.svg"
    words = ["bench", "--synthetic", "llama-13m:IQ2_K", "llama-13m:q4_k", "-p", "0", "-n", "4", "-r", "1", "--markdown"]
    assert main([*words, "--out", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | --- | ---: |"
    assert [line.split()[1] for line in lines[2:]] == ["llama-13m-IQ2_K.gguf", "llama-13m-Q4_K.gguf"]
    texts = [element.text for element in ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}text")]
    assert "llama-13m-IQ2_K: decode 4" in texts
    assert not any("prefill" in (text or "") for text in texts)


def test_report_and_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with the roof in words; for each test one of the operations, whose shares add up to everything."""
    assert main([*SMALL, "-d", "0,200", "--profile"]) == 0
    report, *profiles = capsys.readouterr().out.split("\nstories-13m-f16.gguf, ")
    assert "of weights per token, read from the memory at" in report
    tables = {text.splitlines()[0]: [line.split() for line in text.splitlines()[2:]] for text in profiles}
    assert list(tables) == ["prefill 16", "prefill 16 at 200", "decode 8", "decode 8 at 200"]
    for rows in tables.values():
        assert sum(float(row[-2]) for row in rows) == pytest.approx(100, abs=1)
        assert {"gated_matmul", "attention"} <= {row[0] for row in rows}


def test_a_test_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """-p 0 measures decode alone."""
    assert main(["bench", "-m", DEMO, "-p", "0", "-n", "4", "-r", "1", "--json"]) == 0
    assert [row["test"] for row in json.loads(capsys.readouterr().out)] == ["decode"]


@pytest.mark.parametrize(
    "words",
    [
        *(["-r", "0"], ["-n", "-1"], ["-p", "0", "-n", "0"], ["-c", "0"], ["--profile", "--json"], ["-d", "-1"]),
        *(["--out", "speed.gif"], ["--synthetic", "llama-9b:IQ2_K"]),
    ],
)
def test_wrong_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    assert main([*SMALL, *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    """No model, and numbers that are none."""
    assert main(["bench"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "-m", DEMO, "-p", "1,x"])
