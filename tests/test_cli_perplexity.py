from __future__ import annotations

import json
from pathlib import Path

import pytest

import iqrun
from iqrun.cli.main import main

DEMO = str(Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf")
STORY = """Once upon a time, there was a little girl named Lily. She had a big dog. The dog liked to run in the park.
One day, Lily and her dog went to the park to play. They saw a red ball on the grass. "Look!" said Lily. "A ball!"
The dog ran to the ball and took it in his mouth. Lily laughed. They played all day, and then they went home to sleep.
"""


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


def test_json_agrees_with_the_library(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ppl, ppl_stderr and n_tokens of the same measurement."""
    assert main(["perplexity", "-m", DEMO, "-f", str(text_file), "-c", "32", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    with iqrun.load(DEMO, n_ctx=32) as model:
        expected = iqrun.perplexity(model, STORY, n_ctx=32)
    assert list(result) == ["ppl", "ppl_stderr", "n_tokens"]
    assert result["ppl"] == pytest.approx(expected.ppl, rel=1e-6)
    assert result["n_tokens"] == expected.n_tokens == expected.n_chunks * 15
    assert 2 < result["ppl"] < 30


def test_text_report(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per number."""
    assert main(["perplexity", "-m", DEMO, "-f", str(text_file), "-c", "32", "--chunks", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ppl", "ppl_stderr", "n_tokens"]
    assert lines[2].split()[1] == "30"


def test_kl_base_adds_the_divergence(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model does not diverge from itself."""
    words = ["perplexity", "-m", DEMO, "-f", str(text_file), "-c", "32", "--kl-base", DEMO, "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["mean_kld"] == pytest.approx(0.0, abs=1e-9)
    assert result["same_top1"] == 1.0
    assert result["ppl"] == result["ppl_base"]
    assert (result["ppl_ratio"], result["ppl_ratio_stderr"]) == (1.0, 0.0)
    assert {"kld_stderr", "kld_p50", "kld_p99", "kld_max"} <= set(result)


def test_mistakes_are_one_line(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short text (2), a missing text (1)."""
    assert main(["perplexity", "-m", DEMO, "-f", str(text_file), "-c", "512"]) == 2
    assert "two chunks of 512" in capsys.readouterr().err
    assert main(["perplexity", "-m", DEMO, "-f", "no-such.txt"]) == 1
    assert "no-such.txt" in capsys.readouterr().err
