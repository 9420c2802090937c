"""Error feedback for one matrix: the factors of H, and rows encoded under them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun import formats
from iqrun.errors import FormatError, QuantizeError
from iqrun.formats import Effort, by_name
from iqrun.native import built_isas
from iqrun.quantizer import GramFile, quantize
from iqrun.quantizer.feedback import GramEncoder
from iqrun.quantizer.feedback.factors import damped, first_pass, later_pass
from iqrun.quantizer.feedback.rows import FeedbackRows, has_feedback
from tests.gguf_builder import tiny_llama
from tests.test_calibration import TEXT

TYPES = [f"IQ{name}" for name in ("2_KS", "2_K", "2_KL", "3_KS", "3_K", "4_KSS", "4_KS", "4_K", "5_KS", "5_K", "6_K")]
TYPES += ["Q6_K"]
N = 512


def gram(n: int = N, seed: int = 1) -> np.ndarray:
    """Second moments of correlated inputs with a few loud columns."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(n) + rng.standard_normal((n, n)) / np.sqrt(n)
    x = rng.standard_normal((2 * n, n)) @ mixing * np.exp(0.5 * rng.standard_normal(n))
    return (x.T @ x).astype(np.float32)


def matrix(n_rows: int = 40, n: int = N, seed: int = 2) -> np.ndarray:
    return (0.02 * np.random.default_rng(seed).standard_t(5, (n_rows, n))).astype(np.float32)


def loss(weights: np.ndarray, data: np.ndarray, kind: str, h: np.ndarray) -> np.ndarray:
    """e H e^T per row."""
    e = (weights - formats.decode(data, kind, weights.shape[1])).astype(np.float64)
    return ((e @ h) * e).sum(axis=1)


def encode(weights: np.ndarray, kind: str, h: np.ndarray, effort: Effort = "normal", n_threads: int = 2) -> np.ndarray:
    return FeedbackRows(h, by_name(kind), effort, n_threads).encode(weights)


# ---- factors ----


def test_first_pass_factors_multiply_to_h() -> None:
    """(F + 1) diag(D) (F + 1)^T is H, with F strictly above the diagonal."""
    h = damped(gram())
    factors = first_pass(h)
    unit = factors.feedback.astype(np.float64) + np.eye(N)
    assert np.array_equal(np.tril(factors.feedback), np.zeros((N, N)))
    np.testing.assert_allclose(unit * factors.curvature @ unit.T, h, atol=1e-4)


def test_later_pass_moves_a_superblock_to_its_minimum() -> None:
    """With the others' errors e fixed, the error -e F of a superblock makes the gradient there zero."""
    h = damped(gram())
    factors = later_pass(h)
    e = np.random.default_rng(3).standard_normal(N)
    e[256:] = -(e[:256] @ factors.feedback[:256, 256:])
    np.testing.assert_allclose((e @ h)[256:], 0, atol=1e-3)
    own = first_pass(h[256:, 256:])
    assert np.array_equal(factors.feedback[256:, 256:], own.feedback)
    assert np.array_equal(factors.curvature[256:], own.curvature)


def test_damping_makes_any_second_moments_usable() -> None:
    """Inputs that are zero, or all alike, still give a positive definite H with a diagonal near 1."""
    for x in (np.zeros((1, N)), np.ones((5, N)), np.eye(1, N)):
        h = damped(x.T @ x)
        assert np.linalg.eigvalsh(h).min() > 0.005
    with pytest.raises(ValueError, match="not positive definite"):
        damped(np.eye(N) - 2 * np.ones((N, N)))


# ---- rows ----


@pytest.mark.parametrize("kind", TYPES)
def test_loss_is_far_below_that_of_rounding_each_weight(kind: str) -> None:
    """Feedback leaves under three quarters of the output error of the encoder that sees H's diagonal only."""
    h, weights = damped(gram()), matrix()
    plain = formats.encode(weights, kind, np.ascontiguousarray(np.diag(h), np.float32))
    assert loss(weights, encode(weights, kind, h), kind, h).sum() < 0.75 * loss(weights, plain, kind, h).sum()


@pytest.mark.parametrize("kind", TYPES)
def test_more_effort_never_loses(kind: str) -> None:
    """Every row's loss with more passes and trials is lower in sum, and for most rows."""
    h, weights = damped(gram(seed=5)), matrix(seed=6)
    fast, normal, best = (loss(weights, encode(weights, kind, h, e), kind, h) for e in ("fast", "normal", "best"))
    assert best.sum() < normal.sum() < fast.sum()
    assert (best < fast).mean() > 0.75


@pytest.mark.parametrize("kind", ["IQ2_K", "IQ3_KS", "IQ4_KSS", "IQ2_KL"])
def test_without_correlation_it_is_as_good_as_the_plain_encoder(kind: str) -> None:
    """Where H is diagonal nothing can be passed on: the loss is that of the plain search, within 3 %."""
    rng = np.random.default_rng(8)
    h, weights = np.diag(rng.uniform(0.5, 2, N)), matrix(seed=9)
    plain = formats.encode(weights, kind, np.ascontiguousarray(np.diag(h), np.float32))
    ours = encode(weights, kind, h, "best")
    assert loss(weights, ours, kind, h).sum() < 1.03 * loss(weights, plain, kind, h).sum()


@pytest.mark.parametrize("kind", ["IQ2_KS", "IQ3_K", "IQ4_KSS"])
def test_bytes_do_not_depend_on_threads_or_neighbours(kind: str) -> None:
    """A row's bytes are its own: any number of threads, any rows beside it."""
    h, weights = damped(gram()), matrix(50)
    whole = encode(weights, kind, h, n_threads=3)
    assert np.array_equal(whole, encode(weights, kind, h, n_threads=1))
    assert np.array_equal(whole[7:19], encode(np.ascontiguousarray(weights[7:19]), kind, h))


def test_bytes_do_not_depend_on_the_instruction_set(tmp_path: Path) -> None:
    """portable, avx2 and the best one that this machine has find the same bytes."""
    script = tmp_path / "encode.py"
    script.write_text(
        "import sys, hashlib\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from tests.test_quantizer_feedback import damped, encode, gram, matrix\n"
        "h, w = damped(gram(256)), matrix(20, 256)\n"
        "for kind in ('IQ2_K', 'IQ2_KL', 'IQ3_KS', 'IQ4_KSS', 'IQ5_K', 'IQ6_K'):\n"
        "    print(hashlib.sha256(encode(w, kind, h).tobytes()).hexdigest())\n"
    )
    digests = set()
    for isa in [isa for isa, runs in built_isas().items() if runs]:
        environment = os.environ | {"IQRUN_ISA": isa, "OPENBLAS_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True)
        digests.add(run.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("kind", TYPES)
def test_extreme_rows(kind: str) -> None:
    """Zeros stay zero; tiny and huge weights keep their relative error; one outlier does no harm to other rows."""
    h, weights = damped(gram(256)), matrix(6, 256)
    weights[0] = 0
    weights[1] *= 1e-7
    weights[2] *= 1e4
    weights[3, 100] = 50.0
    back = formats.decode(encode(weights, kind, h), kind, 256)
    assert not back[0].any()
    error = np.linalg.norm(weights - back, axis=1)[1:] / np.linalg.norm(weights, axis=1)[1:]
    limit = 0.7 if kind.startswith("IQ2") else 0.4
    small_d = kind not in ("IQ4_KSS", "IQ4_KS", "IQ5_KS")  # fp16 scales have no room for such weights
    assert (error[1:] < limit).all() and (error[0] < (1.01 if small_d else limit))


def test_what_is_not_finite_is_refused() -> None:
    """NaN and infinity in the weights are named by place."""
    weights = matrix(3)
    weights[2, 77] = np.nan
    with pytest.raises(FormatError, match="row 2, column 77 is NaN"):
        encode(weights, "IQ3_K", damped(gram()))


def test_types_without_shared_scales_have_no_feedback() -> None:
    """Floats and the types of 32-blocks are left to the plain encoder."""
    assert all(has_feedback(by_name(kind)) for kind in TYPES)
    assert not any(has_feedback(by_name(kind)) for kind in ("F16", "Q8_0", "IQ4_NL", "Q4_0"))


# ---- as an encoder of `quantize` ----


def calibrated(tmp_path: Path) -> tuple[Path, Path]:
    source = tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=2, weight_type="F16")
    with iqrun.load(source, n_ctx=16) as model:
        iqrun.calibrate(model, TEXT, tmp_path / "full.gguf", full=True, n_ctx=16)
    return source, tmp_path / "full.gguf"


def test_gram_encoder_encodes_what_it_knows(tmp_path: Path) -> None:
    """Matrices with second moments are encoded under them, the others as without."""
    source, matrices = calibrated(tmp_path)
    plain = quantize(source, tmp_path / "plain.gguf", "IQ2_K", imatrix=matrices, pure=True)
    with GramFile(matrices) as grams:
        encoder = GramEncoder(grams, "normal", 2)
        ours = quantize(source, tmp_path / "ours.gguf", "IQ2_K", imatrix=matrices, pure=True, encoder=encoder)
        again = quantize(source, tmp_path / "again.gguf", "IQ2_K", imatrix=matrices, pure=True, encoder=encoder)
    assert ours.n_bytes == plain.n_bytes == again.n_bytes
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    assert (tmp_path / "ours.gguf").read_bytes() != (tmp_path / "plain.gguf").read_bytes()


def test_gram_encoder_wants_second_moments(tmp_path: Path) -> None:
    """An importance matrix without them is refused before anything is written."""
    source, _ = calibrated(tmp_path)
    with iqrun.load(source, n_ctx=16) as model:
        iqrun.calibrate(model, TEXT, tmp_path / "thin.gguf", n_ctx=16)
    with GramFile(tmp_path / "thin.gguf") as grams, pytest.raises(QuantizeError, match="--full"):
        GramEncoder(grams, "normal", 2)
