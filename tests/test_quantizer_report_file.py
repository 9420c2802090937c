"""Reports of quantizations as files: what they say, and that they are whole."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from iqrun.quantizer import QuantizeReport, TensorReport, check_report, save_report


def tensor(name: str, error: float | None, n_bytes: int = 1000, target: str = "IQ3_K") -> TensorReport:
    return TensorReport(
        name=name,
        shape=(256, 8),
        source="F16",
        target=target,
        fallback=None,
        n_bytes=n_bytes,
        weighted=True,
        relative_error=error,
    )


@pytest.fixture
def report() -> QuantizeReport:
    tensors = [tensor(f"blk.{i}.{role}.weight", 0.01 * (i + 1)) for i in range(3) for role in ("attn_q", "ffn_up")]
    tensors += [tensor("token_embd.weight", 0.5, 5000, "IQ4_K"), tensor("output_norm.weight", 0.0, 10, "F32")]
    return QuantizeReport(
        source="/somewhere/in <1>.gguf",
        destination="/somewhere/out.gguf",
        type="IQ3_K",
        effort="normal",
        imatrix="/somewhere/m.dat",
        source_bytes=30_000_000,
        n_bytes=11_000_000,
        seconds=1.5,
        dry_run=False,
        warnings=("take <care>",),
        tensors=tuple(tensors),
    )


def texts(path: Path) -> list[str]:
    root = ET.fromstring(path.read_bytes())
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_picture_adds_up_sizes_by_role_and_names_the_worst(report: QuantizeReport, tmp_path: Path) -> None:
    """The largest role first, with its share of the bytes; the worst tensors first; lines from layer to layer."""
    save_report(report, tmp_path / "r.svg")
    found = texts(tmp_path / "r.svg")
    sizes = found.index("token_embd")
    assert sizes < found.index("attn_q") < found.index("output_norm")
    assert found[sizes + 1] == f"0.01 MB, {100 * 5000 / 11010:.1f} %, {8 * 5000 / 2048:.2f} bits (IQ4_K)"
    errors = found[found.index("Largest errors") :]
    assert errors.index("token_embd.weight") < errors.index("blk.2.attn_q.weight") < errors.index("blk.0.ffn_up.weight")
    assert "50.00 % (IQ4_K)" in errors
    assert "output_norm.weight" not in errors
    assert "Errors layer by layer" in errors
    assert not any("/somewhere" in text for text in found)


def test_page_has_everything_and_needs_nothing(report: QuantizeReport, tmp_path: Path) -> None:
    """Every tensor, the warnings, charts; escaped; nothing loaded from elsewhere, nothing run."""
    save_report(report, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    for name in [row.name for row in report.tensors]:
        assert f">{name}</td>" in page
    assert "take &lt;care&gt;" in page
    assert "in &lt;1&gt;.gguf" in page
    assert "50.000" in page
    assert page.count("<svg") == 3
    assert not any(word in page for word in ("<script", "src=", "href=", "@import", "url("))
    assert "prefers-color-scheme: dark" in page


def test_json_is_the_whole_report(report: QuantizeReport, tmp_path: Path) -> None:
    """The same as --json prints."""
    save_report(report, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(report.to_dict()))


def test_dry_runs_have_sizes_only(report: QuantizeReport, tmp_path: Path) -> None:
    """No errors are known: the size chart alone, in every form."""
    dry = replace(report, dry_run=True, tensors=tuple(replace(row, relative_error=None) for row in report.tensors))
    for suffix in ("html", "svg", "png"):
        save_report(dry, tmp_path / f"r.{suffix}")
    assert "Largest errors" not in texts(tmp_path / "r.svg")
    assert "dry run" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"


def test_a_tensor_without_layer_alone(report: QuantizeReport, tmp_path: Path) -> None:
    """A file without layers, such as an embedding alone, has an empty last chart, no error."""
    save_report(replace(report, tensors=(tensor("token_embd.weight", 0.5),)), tmp_path / "r.svg")


def test_names_are_checked(tmp_path: Path) -> None:
    """Other suffixes and missing folders are told."""
    with pytest.raises(ValueError, match=r"\.html, \.json, \.svg, \.png"):
        check_report(tmp_path / "r.pdf")
    with pytest.raises(FileNotFoundError):
        check_report(tmp_path / "no" / "r.html")
