"""iqrun.benchmark.synthetic: made-up models of any type run and have the size they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.benchmark.synthetic import SIZES, parse, write_synthetic
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile


@pytest.mark.parametrize("name", FORMATS)
def test_every_type_runs(name: str, tmp_path: Path) -> None:
    """The model loads, most weights are of the type, and its predictions are finite and not all alike."""
    path = tmp_path / "model.gguf"
    write_synthetic(path, "llama-13m", name)
    with GGUFFile(path) as file:
        weights = {tensor.name: tensor.n_weights for tensor in file.tensors.values() if tensor.type.name == name}
        assert sum(weights.values()) > 0.6 * sum(tensor.n_weights for tensor in file.tensors.values())
    with iqrun.load(path, n_ctx=8, n_threads=1) as model:
        logits = model.logits([1, 300, 400, 4095])
    assert np.isfinite(logits).all()
    assert logits.std() > 0.01
    assert not np.allclose(logits[0], logits[3])


def test_same_bytes_every_time(tmp_path: Path) -> None:
    """Two runs of a benchmark measure the same file."""
    for name in ("a", "b"):
        write_synthetic(tmp_path / name, "llama-13m", "IQ2_KS")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sizes_have_the_weights_of_their_names() -> None:
    """llama-1b has 1.0 to 1.5 billion weights, and so on."""
    for name, size in SIZES.items():
        n_kv = size.n_embd // size.n_head * size.n_head_kv
        layer = 2 * size.n_embd * (size.n_embd + n_kv) + 3 * size.n_embd * size.n_ff
        n_weights = size.n_layer * layer + (1 if size.tied else 2) * size.n_vocab * size.n_embd
        claimed = float(name[6:-1]) * (1e9 if name.endswith("b") else 1e6)
        assert 0.9 * claimed < n_weights < 1.25 * claimed, (name, n_weights)


def test_names_are_checked() -> None:
    """SIZE:TYPE, upper or lower case, several types or all; anything else says what there is."""
    assert parse("llama-1b:iq2_k,Q4_K") == [("llama-1b", "IQ2_K"), ("llama-1b", "Q4_K")]
    every = [name for _, name in parse("llama-8b:all")]
    assert {"IQ2_KS", "IQ6_K", "Q4_K", "Q8_0"} <= set(every)
    assert "F16" not in every
    for text in ("llama-1b", "llama-2b:IQ2_K", ":IQ2_K"):
        with pytest.raises(ValueError, match="llama-1b"):
            parse(text)
    with pytest.raises(iqrun.FormatError, match="IQ9_K"):
        parse("llama-1b:IQ9_K")


def test_progress_counts_the_bytes(tmp_path: Path) -> None:
    """From the first tensor to all bytes of the tensors."""
    calls: list[tuple[int, int]] = []
    write_synthetic(tmp_path / "x", "llama-13m", "IQ2_K", progress=lambda *call: calls.append(call))
    with GGUFFile(tmp_path / "x") as file:
        total = sum(tensor.n_bytes for tensor in file.tensors.values())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_another_files_vocabulary_is_taken_over(tmp_path: Path) -> None:
    """Its tokens, and as many rows of the embedding."""
    path, demo = tmp_path / "model.gguf", Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
    write_synthetic(path, "llama-13m", "IQ2_KS", vocabulary=demo)
    with GGUFFile(path) as made, GGUFFile(demo) as file:
        key = "tokenizer.ggml.tokens"
        assert list(made.metadata.get_array(key, "str")) == list(file.metadata.get_array(key, "str"))
        assert made.tensors["token_embd.weight"].n_rows == file.tensors["token_embd.weight"].n_rows
    with iqrun.load(path, n_ctx=16, n_threads=1) as model:
        assert model.complete("Once upon a time", max_tokens=1) is not None
