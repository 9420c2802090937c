"""iqrun compare: its table, its files, its mistakes."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import iqrun
from iqrun.cli.main import main
from iqrun.gguf import GGUFFile
from tests.gguf_builder import tiny_llama

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
STORY = Path(__file__).parent / "data" / "story.txt"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    for name in ("IQ2_K", "IQ4_K"):
        iqrun.quantize(DEMO, folder / f"{name}.gguf", name, effort="fast")
    return {name: folder / f"{name}.gguf" for name in ("IQ2_K", "IQ4_K")}


def compare(*words: object) -> int:
    return main(["compare", *map(str, words), "-f", str(STORY), "-c", "64", "--chunks", "3"])


def test_json_agrees_with_the_library(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Each file's divergence is what `iqrun.divergence` finds of it alone; sizes and types are the file's."""
    assert compare(*files.values(), "--base", DEMO, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    with iqrun.load(DEMO, n_ctx=64) as base, iqrun.load(files["IQ2_K"], n_ctx=64) as model:
        expected = iqrun.divergence(model, base, STORY.read_text(encoding="utf-8"), n_ctx=64, max_chunks=3)
    assert [row["name"] for row in rows] == ["IQ2_K", "IQ4_K"]
    assert rows[0]["mean_kld"] == pytest.approx(expected.mean_kld, rel=1e-9)
    assert rows[0]["ppl_ratio"] == pytest.approx(expected.ppl_ratio, rel=1e-9)
    assert rows[0]["kld_p99"] == pytest.approx(expected.kld_p99, rel=1e-9)
    assert rows[0]["bytes"] == files["IQ2_K"].stat().st_size
    with GGUFFile(files["IQ2_K"]) as file:
        weights = {t.name: t.n_weights for t in file.tensors.values()}
        iq2 = sum(t.n_weights for t in file.tensors.values() if t.type.name == "IQ2_K")
        n_bytes = sum(t.n_bytes for t in file.tensors.values())
    assert rows[0]["types"]["IQ2_K"] == pytest.approx(iq2 / sum(weights.values()))
    assert rows[0]["bpw"] == pytest.approx(8 * n_bytes / sum(weights.values()))
    assert sum(rows[0]["types"].values()) == pytest.approx(1)
    assert rows[0]["mean_kld"] > rows[1]["mean_kld"] > 0
    assert [row["efficient"] for row in rows] == [True, True]


def test_table_without_a_base(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Perplexity alone, with its error; with --speed also tokens per second."""
    assert compare(files["IQ4_K"], DEMO, "--speed") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "types", "bytes", "bpw", "PPL", "+-", "tokens/s", "efficient"]
    assert [line.split()[0] for line in lines[1:]] == ["IQ4_K", "stories-13m-f16"]
    assert float(lines[1].split()[-2]) > 0


def test_every_form_of_the_result(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run writes the plot, the page and the figures; further points join the plot."""
    peers = tmp_path / "peers.json"
    peers.write_text(json.dumps({"kld": {"Q4_K": {"bytes": 8_000_000, "mean_kld": 0.004}, "odd": {"bytes": 1}}}))
    outs = [tmp_path / f"out.{suffix}" for suffix in ("svg", "png", "html", "json", "csv")]
    words = [word for out in outs for word in ("--out", out)]
    assert compare(*files.values(), "--base", DEMO, "--points", f"peer={peers}", "--title", "T & t", *words) == 0
    table = capsys.readouterr().out
    assert "same top 1" in table.splitlines()[0]
    svg, png, html, figures, rows = (out.read_bytes() for out in outs)
    texts = {element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"T & t", "IQ2_K", "IQ4_K", "Q4_K", "peer"} <= texts
    assert "odd" not in texts
    assert png[:4] == b"\x89PNG"
    saved = json.loads(figures)["files"]
    assert [float(row["mean_kld"]) for row in csv.DictReader(rows.decode().splitlines())] == [
        row["mean_kld"] for row in saved
    ]
    page = Page(html.decode())
    assert "T & t" in page.texts
    assert "IQ2_K" in page.texts
    assert not page.sources  # nothing from elsewhere

    again = tmp_path / "again.svg"
    assert compare(files["IQ4_K"], "--base", DEMO, "--points", f"before={outs[3]}", "--out", again) == 0
    assert "before" in again.read_text(encoding="utf-8")


class Page(HTMLParser):
    """The texts of a page, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]
        assert tag not in ("script", "link")

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_perplexities_against_bits(files: dict[str, Path], tmp_path: Path) -> None:
    """Without a base the plot shows perplexity; --against bpw changes the axis."""
    out = tmp_path / "out.svg"
    assert compare(*files.values(), "--against", "bpw", "--out", out) == 0
    texts = {element.text for element in ET.fromstring(out.read_bytes()).iter("{http://www.w3.org/2000/svg}text")}
    assert {"perplexity", "bits per weight"} <= texts


def test_mistakes_are_told_before_the_work(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong suffixes and points, other vocabularies, damaged files: one line each, and no file."""
    other = tiny_llama(tmp_path / "other.gguf")
    (tmp_path / "bad.json").write_text('{"files": [{"name": 3}], "x": []}')
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "huge.json").write_text('{"kld": {"a": {"bytes": 1' + 400 * "0" + ', "ppl": NaN}}}')
    cases: list[tuple[list[Any], int, str]] = [
        ([files["IQ4_K"], "--out", tmp_path / "x.gif"], 2, "must end in one of"),
        ([files["IQ4_K"], "--out", tmp_path / "no" / "x.svg"], 1, "No such file"),
        ([files["IQ4_K"], "--points", f"a={tmp_path / 'bad.json'}"], 1, "no point has both bytes and ppl"),
        ([files["IQ4_K"], "--points", f"a={tmp_path / 'cut.json'}"], 1, "not a file of points"),
        ([files["IQ4_K"], "--points", f"a={tmp_path / 'huge.json'}"], 1, "not a file of points"),
        ([files["IQ4_K"], "--points", f"a={tmp_path / 'gone.json'}"], 1, "gone.json"),
        ([files["IQ4_K"], other, "--base", DEMO], 2, "do not have the same vocabulary"),
        ([STORY], 1, "story.txt"),
    ]
    for words, code, message in cases:
        assert compare(*words) == code, words
        captured = capsys.readouterr()
        assert message in captured.err, words
        assert captured.err.count("\n") == 1
    with pytest.raises(SystemExit):
        compare(files["IQ4_K"], "--points", "nameless")
    assert not list(tmp_path.glob("x*"))
