"""iqrun.quantizer.moments and grams: the statistics, the triangles, damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqrun.errors import GGUFError, QuantizeError
from iqrun.quantizer import GramFile, statistics
from iqrun.quantizer.grams import SUFFIX, pack, unpack
from iqrun.quantizer.moments import Moments
from tests.gguf_builder import F16, F32, STRING, RawGGUF, kv_array


def moments(*squares: float, count: float = 1.0) -> Moments:
    return Moments(np.array([squares], np.float64), np.array([count]))


def test_statistics_are_the_textbook_s() -> None:
    """Norm, normalized entropy and dead columns of means, not sums; strongest first."""
    rows = statistics({"even": moments(4, 4, 4, 4, count=4), "one": moments(0, 16, 0, 0), "none": moments(0, 0)})
    assert [row.name for row in rows] == ["one", "even", "none"]
    one, even, none = rows
    assert (one.sum_of_squares, one.activation_norm, one.entropy, one.dead) == (16, 4, 0, 0.75)
    assert (even.sum_of_squares, even.activation_norm, even.entropy, even.dead) == (4, 2, 1, 0)
    assert (none.sum_of_squares, none.entropy, none.dead) == (0, 0, 1)


def test_sensitivity_decides_the_order_where_it_is_known() -> None:
    """The most sensitive first; those without come last, the strongest input first."""
    entries = {"a": moments(9), "b": moments(1), "c": moments(2), "d": moments(3)}
    rows = statistics(entries, {"b": 0.5, "a": 0.1})
    assert [(row.name, row.sensitivity) for row in rows] == [("b", 0.5), ("a", 0.1), ("d", None), ("c", None)]


def test_moments_add_and_average_per_matrix() -> None:
    """Experts have counts of their own; one that was never used has zeros."""
    a = Moments(np.array([[2.0, 4.0], [0.0, 0.0]]), np.array([2.0, 0.0]))
    both = a + a
    assert both.counts.tolist() == [4, 0]
    assert both.mean_square.tolist() == a.mean_square.tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_triangles_round_trip(n: int) -> None:
    """n (n + 1) / 2 values say it all; other lengths are refused."""
    x = np.random.default_rng(n).standard_normal((n, n)).astype(np.float32)
    gram = x + x.T
    flat = pack(gram)
    assert flat.size == n * (n + 1) // 2
    assert flat[:n].tolist() == gram[0].tolist()
    np.testing.assert_array_equal(unpack(flat), gram)
    with pytest.raises(ValueError, match="not the triangle"):
        unpack(np.zeros(flat.size + 1 if n > 1 else 2, np.float32))


def gram_file(path: Path, values: np.ndarray, tensors: list[str], sources: list[str], type_id: int = F32) -> Path:
    raw = RawGGUF(
        kvs=[
            kv_array("iqrun.imatrix.gram.tensors", STRING, tensors),
            kv_array("iqrun.imatrix.gram.sources", STRING, sources),
        ]
    )
    raw.add_tensor("a" + SUFFIX, (values.size,), type_id, values.astype("<f4").tobytes())
    return raw.write(path)


def test_damaged_gram_files_are_refused(tmp_path: Path) -> None:
    """Tables that lie, lengths that are no triangle, NaN, no GGUF at all."""
    good = np.array([1, 2, 3], np.float32)
    with GramFile(gram_file(tmp_path / "m", good, ["a", "b"], ["a", "a"])) as grams:
        found = grams.of("b")
        assert found is not None
        assert found.tolist() == [[1, 2], [2, 3]]
    with GramFile(RawGGUF().write(tmp_path / "m")) as grams:
        assert not grams.sources
    for values, tensors, sources in [
        (good, ["a", "b"], ["a"]),
        (good, ["a"], ["b"]),
        (np.ones(4), ["a"], ["a"]),
    ]:
        with pytest.raises(QuantizeError, match=r"m: .*compute the importance matrix again"):
            GramFile(gram_file(tmp_path / "m", values, tensors, sources))
    with pytest.raises(QuantizeError, match="not F32"):
        GramFile(gram_file(tmp_path / "m", good, ["a"], ["a"], type_id=F16))
    for bad in (np.nan, np.inf):
        with (
            GramFile(gram_file(tmp_path / "m", np.array([1, bad, 3]), ["a"], ["a"])) as grams,
            pytest.raises(QuantizeError, match="'a' holds NaN or infinity"),
        ):
            grams.of("a")
    (tmp_path / "m").write_bytes(b"no")
    with pytest.raises(GGUFError):
        GramFile(tmp_path / "m")
