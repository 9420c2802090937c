"""iqrun.evaluation.saved_logits: llama.cpp's files of predictions, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.errors import IqrunError
from iqrun.evaluation.evaluate import open_base
from iqrun.evaluation.saved_logits import SavedLogits

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
STORY = Path(__file__).parent / "data" / "story.txt"


def encode(tokens: np.ndarray, log_p: np.ndarray) -> bytes:
    """As llama-perplexity does: 16 bits between the best and 16 nats below it; log_p (chunks, places, n_vocab)."""
    n_chunks, n_ctx = tokens.shape
    parts = [b"_logits_", struct.pack("<Iii", n_ctx, log_p.shape[2], n_chunks), tokens.astype("<i4").tobytes()]
    for row in log_p.reshape(-1, log_p.shape[2]):
        least = max(row.min(), row.max() - 16)
        scale = (row.max() - least) / 65535
        codes = np.rint((np.maximum(row, least) - least) / scale).astype("<u2")
        parts += [struct.pack("<ff", scale, least), codes.tobytes(), bytes(2 * (codes.size % 2))]
    return b"".join(parts)


@pytest.mark.parametrize("n_vocab", [10, 11])
def test_values_are_read_back(tmp_path: Path, n_vocab: int) -> None:
    """Within half a step of 16 bits; an odd vocabulary is padded."""
    rng = np.random.default_rng(n_vocab)
    tokens = rng.integers(0, n_vocab, (3, 9))
    log_p = np.log(rng.dirichlet(np.ones(n_vocab), (3, 4)))
    (tmp_path / "x").write_bytes(encode(tokens, log_p))
    saved = SavedLogits(tmp_path / "x")
    assert (saved.n_ctx, saved.n_vocab, saved.n_chunks) == (9, n_vocab, 3)
    np.testing.assert_array_equal(saved.tokens, tokens)
    for index in range(3):
        np.testing.assert_allclose(saved.rows(index, 0, 4), log_p[index], atol=2e-4)
        np.testing.assert_array_equal(saved.rows(index, 1, 3), saved.rows(index, 0, 4)[1:3])


def test_divergence_from_a_file_is_that_from_the_model(tmp_path: Path) -> None:
    """Saved predictions of the same model: no divergence beyond the file's rounding; other texts are refused."""
    text = STORY.read_text(encoding="utf-8")
    with iqrun.load(DEMO, n_ctx=64, n_threads=2) as model:
        ids = np.asarray(model.tokenizer.encode(text, add_special=True))
        tokens = ids[: len(ids) // 64 * 64].reshape(-1, 64)
        chunks = tokens.copy()
        chunks[:, 0] = model.tokenizer.bos_id  # type: ignore[assignment]
        logits = np.stack([model.logits(chunk.tolist())[32:63] for chunk in chunks]).astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        (tmp_path / "x").write_bytes(encode(tokens, log_p))
        with open_base(tmp_path / "x", n_ctx=64) as base:
            assert isinstance(base, SavedLogits)
            result = iqrun.divergence(model, base, text, n_ctx=64)
        assert result.mean_kld == pytest.approx(0, abs=1e-4)
        assert result.same_top1 == 1.0
        assert result.ppl_ratio == pytest.approx(1.0, abs=1e-3)
        with pytest.raises(ValueError, match="chunks of 64 tokens, not 32"):
            iqrun.divergence(model, SavedLogits(tmp_path / "x"), text, n_ctx=32)
        with pytest.raises(ValueError, match="another text"):
            iqrun.divergence(model, SavedLogits(tmp_path / "x"), text[50:], n_ctx=64)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    """Other files, lying headers, cut ones."""
    log_p = np.log(np.full((2, 4, 8), 1 / 8) + np.linspace(0, 0.1, 8))
    good = encode(np.zeros((2, 9), int), log_p)
    for data, match in [
        (b"", "not a file of saved logits"),
        (b"GGUF" + good[4:], "not a file of saved logits"),
        (good[:-1], "cut short"),
        (good[:12] + struct.pack("<i", 0) + good[16:], "damaged"),
        (good[:16] + struct.pack("<i", -1) + good[20:], "damaged"),
        (good[:8] + struct.pack("<I", 2**31) + good[12:], "damaged"),
        (good[:16] + struct.pack("<i", 2**24) + good[20:], "cut short"),
    ]:
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(IqrunError, match=match):
            SavedLogits(tmp_path / "x")
