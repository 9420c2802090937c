from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.evaluation import evaluate
from iqrun.evaluation.evaluate import divergence, divergences, perplexity
from iqrun.scores import Pairs

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "models" / "demo" / "stories-13m-f16.gguf"
HELDOUT = ROOT.parent / "shared" / "demo" / "heldout.txt"
N_VOCAB = 8


class FakeModel:
    """Predicts the same distribution everywhere; a text is its tokens, written as digits."""

    n_vocab = N_VOCAB
    path = "fake.gguf"

    def __init__(self, probabilities: list[float], add_bos: bool = False) -> None:
        self.log_p = np.log(np.asarray(probabilities, np.float32))
        self.seen: list[list[int]] = []
        self.tokenizer = SimpleNamespace(
            encode=lambda text, add_special: [int(c) for c in text], add_bos=add_bos, bos_id=7
        )

    @contextmanager
    def session(self, n_ctx: int) -> Iterator[Any]:
        def evaluate(ids: np.ndarray, want: np.ndarray) -> np.ndarray:
            self.seen.append(ids.tolist())
            return np.tile(self.log_p + 3.0, (int(want.sum()), 1))  # a constant does not matter

        yield SimpleNamespace(evaluate=evaluate, truncate=lambda n: None)


def test_uniform_model_has_the_vocabulary_as_its_perplexity() -> None:
    """1/8 for each token: perplexity 8 without any spread; the second half of each chunk but its last is scored."""
    result = perplexity(FakeModel([1 / 8] * 8), "01234567" * 3, n_ctx=8)  # type: ignore[arg-type]
    assert result.ppl == pytest.approx(8.0)
    assert result.ppl_stderr == pytest.approx(0.0, abs=1e-3)
    assert (result.n_tokens, result.n_chunks) == (3 * 3, 3)


def test_scored_tokens_and_stderr_are_llama_cpps() -> None:
    """Chunks of 8: tokens 5, 6, 7 are scored; stderr is ppl times the standard error of the mean loss."""
    p = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    result = perplexity(FakeModel(p), "0000001223334445" + "777", n_ctx=8)  # type: ignore[arg-type]
    losses = np.array([-log(p[token]) for token in (0, 1, 2, 4, 4, 5)])
    stderr = np.sqrt(((losses**2).mean() - losses.mean() ** 2) / 5)
    assert result.ppl == pytest.approx(exp(losses.mean()), rel=1e-5)
    assert result.ppl_stderr == pytest.approx(exp(losses.mean()) * stderr, rel=1e-4)


def test_each_chunk_begins_with_bos_where_the_model_wants_it() -> None:
    """BOS takes the place of each chunk's first token; the last token predicts nothing that is scored."""
    for add_bos, first in ((True, 7), (False, 0)):
        fake = FakeModel([1 / 8] * 8, add_bos=add_bos)
        perplexity(fake, "01234561" * 2, n_ctx=8)  # type: ignore[arg-type]
        assert fake.seen == [[first, 1, 2, 3, 4, 5, 6]] * 2


def test_divergence_of_two_distributions_is_the_textbook_s() -> None:
    """sum p log(p/q), the same for each token; the best tokens differ."""
    p, q = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05], [0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    result = divergence(FakeModel(q), FakeModel(p), "01234567" * 2, n_ctx=8)  # type: ignore[arg-type]
    assert result.mean_kld == pytest.approx(0.3 * log(0.3 / 0.2) + 0.2 * log(0.2 / 0.3), rel=1e-5)
    assert result.kld_stderr == pytest.approx(0.0, abs=1e-6)
    assert result.same_top1 == 0.0
    same = divergence(FakeModel(p), FakeModel(p), "01234567" * 2, n_ctx=8)  # type: ignore[arg-type]
    assert (same.mean_kld, same.same_top1) == (pytest.approx(0.0, abs=1e-9), 1.0)


def test_percentiles_are_those_of_the_tokens() -> None:
    """A thousand divergences, whose percentiles are known: the quantiles of 0, 1, ... 999 thousandths."""
    pairs = Pairs()
    for start in range(0, 1000, 100):
        wanted = np.arange(start, start + 100) / 1000
        q = _q_with_divergence(wanted)
        pairs.add(np.log(q), np.full((100, 2), -log(2)), np.zeros(100, np.int64))
    result = pairs.result(1)
    found = (result.mean_kld, result.kld_p50, result.kld_p90, result.kld_p99, result.kld_p999, result.kld_max)
    assert found == pytest.approx((0.4995, 0.4995, 0.8991, 0.98901, 0.998001, 0.999), abs=1e-9)
    assert result.kld_stderr == pytest.approx(np.std(np.arange(1000) / 1000) / np.sqrt(999), rel=1e-9)


def _q_with_divergence(kld: np.ndarray) -> np.ndarray:
    """(q, 1 - q) from which the fair coin diverges by `kld`: -log(4 q (1 - q)) / 2."""
    q = 0.5 - 0.5 * np.sqrt(1 - np.exp(-2 * kld))
    return np.stack([q, 1 - q], axis=1)


def test_results_do_not_depend_on_how_much_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few logits at a time, or a chunk's at once: the same numbers, for several models as for each alone."""
    text = (ROOT / "tests" / "data" / "story.txt").read_text(encoding="utf-8")
    with iqrun.load(DEMO, n_ctx=64) as model, iqrun.load(DEMO, n_ctx=64, kv_type="f32") as base:
        whole = iqrun.divergence(model, base, text, n_ctx=64, max_chunks=2)
        alone = iqrun.perplexity(model, text, n_ctx=64, max_chunks=2)
        monkeypatch.setattr(evaluate, "_STEP_VALUES", 10 * model.n_vocab)
        monkeypatch.setattr(evaluate, "_BLOCK_VALUES", 3 * model.n_vocab)
        pieces, itself = divergences([model, base], base, text, n_ctx=64, max_chunks=2)
    assert 0 < pieces.mean_kld == pytest.approx(whole.mean_kld, rel=1e-6)
    assert pieces.model.ppl == pytest.approx(whole.model.ppl, rel=1e-9) == pytest.approx(alone.ppl, rel=1e-9)
    assert (itself.mean_kld, itself.same_top1) == (pytest.approx(0, abs=1e-12), 1.0)


def test_models_with_other_vocabularies_are_refused() -> None:
    """The error names both files."""
    a, b = FakeModel([1 / 8] * 8), FakeModel([1 / 8] * 8, add_bos=True)
    a.path, b.path = "a.gguf", "b.gguf"
    with pytest.raises(ValueError, match=r"b\.gguf and a\.gguf do not have the same vocabulary"):
        divergences([a, b], a, "01234567" * 2, n_ctx=8)  # type: ignore[list-item, arg-type]


def test_progress_and_max_chunks() -> None:
    """The callback hears of each chunk; max_chunks ends early."""
    calls: list[tuple[int, int]] = []
    fake = FakeModel([1 / 8] * 8)
    perplexity(fake, "01234567" * 5, n_ctx=8, max_chunks=2, progress=lambda *call: calls.append(call))  # type: ignore
    assert calls == [(1, 2), (2, 2)]


def test_text_too_short_and_context_too_small_are_told() -> None:
    """ValueErrors that say how much is needed."""
    fake: Any = FakeModel([1 / 8] * 8)
    with pytest.raises(ValueError, match="15 tokens, but two chunks of 8"):
        perplexity(fake, "0" * 15, n_ctx=8)
    with pytest.raises(ValueError, match="at least 4"):
        perplexity(fake, "0" * 15, n_ctx=3)
    with pytest.raises(ValueError, match="max_chunks"):
        perplexity(fake, "0" * 16, n_ctx=8, max_chunks=0)


def test_damaged_weights_are_told() -> None:
    """NaN logits are an error, not a NaN result."""
    with pytest.raises(iqrun.IqrunError, match="damaged"):
        perplexity(FakeModel([float("nan")] * 8), "0" * 16, n_ctx=8)  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_ctx", "ppl", "stderr"), [(64, 20.2459, 4.02002), (128, 25.1859, 5.77132)])
def test_demo_model_has_the_perplexity_that_llama_cpp_finds(n_ctx: int, ppl: float, stderr: float) -> None:
    """ik_llama.cpp: llama-perplexity -m stories-13m-f16.gguf -f tests/data/story.txt -c 64 (128)."""
    text = (ROOT / "tests" / "data" / "story.txt").read_text(encoding="utf-8")
    with iqrun.load(DEMO, n_ctx=n_ctx) as model:
        result = iqrun.perplexity(model, text, n_ctx=n_ctx)
    assert result.ppl == pytest.approx(ppl, rel=2e-4)
    assert result.ppl_stderr == pytest.approx(stderr, rel=2e-3)


@pytest.mark.slow
@pytest.mark.skipif(not HELDOUT.exists(), reason="the held-out text is not here")
def test_demo_model_has_the_perplexity_of_its_card() -> None:
    """llama-perplexity -m stories-13m-f16.gguf -f heldout.txt -c 256 of ik_llama.cpp: 8.5155."""
    with iqrun.load(DEMO, n_ctx=256) as model:
        result = iqrun.perplexity(model, HELDOUT.read_text(encoding="utf-8"), n_ctx=256)
    assert result.ppl == pytest.approx(8.5155, abs=0.002)
