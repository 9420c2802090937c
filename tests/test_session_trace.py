"""Session.trace: what operations read, and a session left as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.errors import ContextFullError
from tests.gguf_builder import tiny_llama
from tests.reference_program import ReferenceSession


def test_inputs_are_shown_and_tokens_appended(tmp_path: Path) -> None:
    """Each chosen operation once, in order, with its input; decoding goes on from there as after evaluate."""
    with iqrun.load(tiny_llama(tmp_path / "m.gguf"), n_ctx=32, n_threads=2, kv_type="f32") as model:
        ops = [index for index, op in enumerate(model.program.ops) if op.kind in ("matmul", "gated_matmul")]
        seen: list[tuple[int, np.ndarray]] = []
        session = model.session()
        session.trace([1, 5, 9], ops[:3], lambda op, x, _: seen.append((op, x.copy())))
        reference = ReferenceSession(model.program)
        expected = reference.evaluate([1, 5, 9, 7])[-1]
        assert [op for op, _ in seen] == ops[:3]
        assert seen[0][1].shape == (3, 64)
        assert session.tokens == (1, 5, 9)
        np.testing.assert_allclose(session.evaluate([7]), expected, rtol=1e-3, atol=1e-4)


def test_failures_leave_the_session_as_it_was(tmp_path: Path) -> None:
    """Too many tokens, a bad id, a visitor that raises."""
    with iqrun.load(tiny_llama(tmp_path / "m.gguf"), n_ctx=8, n_threads=1) as model:
        session = model.session()
        session.evaluate([1, 2])

        def raise_(op: int, x: np.ndarray, experts: np.ndarray | None) -> None:
            raise KeyError("mine")

        first = next(index for index, op in enumerate(model.program.ops) if op.kind == "matmul")
        for error, ids, visit in [
            (ContextFullError, [3] * 7, print),
            (ValueError, [10**6], print),
            (KeyError, [3, 4], raise_),
        ]:
            with pytest.raises(error):
                session.trace(ids, [first], visit)
            assert session.tokens == (1, 2)
        assert np.isfinite(session.evaluate([3])).all()
