"""Steps that begin in the middle of the program: filled buffers, skipped operations, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from iqrun.native import check, ffi, lib, pointer
from tests.engine_programs import IQ4_K, TOKENS, Context, NativeProgram, transformer

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def fill(context: Context, buffer: int, values: np.ndarray) -> None:
    check(lib.iq_step_fill, context.handle, buffer, pointer(values, "const float *"))


def seek(context: Context, op: int) -> None:
    check(lib.iq_step_seek, context.handle, op)


@pytest.fixture
def native() -> NativeProgram:
    return NativeProgram(transformer(11, (IQ4_K,)))


def token_buffers(context: Context) -> dict[int, np.ndarray]:
    buffers = context.program.model.buffers
    return {i: context.buffer(i).copy() for i, (_, domain) in enumerate(buffers) if domain == TOKENS}


def test_filled_buffers_give_what_a_whole_step_gives(native: NativeProgram) -> None:
    """Every operation can be the first: with the buffers of a whole step the same bits follow, int8 copies included."""
    n_op = len(native.model.ops)
    context = Context(native, n_threads=2)
    expected = context.step(IDS, want=[True] * len(IDS))
    context.truncate(0, 0)
    for start in range(n_op - 3):  # the last three work on the outputs' buffers
        context.begin(IDS, want=[True] * len(IDS))
        context.run(0, start)
        kept = token_buffers(context)
        context.end(False)
        context.begin(IDS, want=[True] * len(IDS))
        for index, values in kept.items():
            fill(context, index, np.full_like(values, 7.0))
            fill(context, index, values)
        seek(context, start)
        context.run(start, n_op)
        assert np.array_equal(context.buffer(native.model.output), expected), start
        context.end(False)


def test_a_step_that_sought_is_never_kept(native: NativeProgram) -> None:
    """Its keys and values were not all computed: committing it leaves the sequence as it was."""
    context = Context(native)
    context.step(IDS)
    context.begin(IDS)
    seek(context, len(native.model.ops))
    context.end(True)
    assert context.length() == len(IDS)
    context.step(IDS)
    assert context.length() == 2 * len(IDS)


def test_refusals(native: NativeProgram) -> None:
    """No step, no such buffer, no data, no such operation: a sentence each, and the step goes on."""
    values = np.zeros((len(IDS), 256), np.float32)
    context = Context(native)
    with pytest.raises(ValueError, match="no step is open"):
        fill(context, 0, values)
    with pytest.raises(ValueError, match="no step is open"):
        seek(context, 0)
    context.begin(IDS)
    for buffer in (-1, len(native.model.buffers)):
        with pytest.raises(ValueError, match=f"there is no buffer {buffer}"):
            fill(context, buffer, values)
    with pytest.raises(ValueError, match="no data"):
        check(lib.iq_step_fill, context.handle, 0, ffi.NULL)
    with pytest.raises(ValueError, match="there is no op 1000"):
        seek(context, 1000)
    context.run(0, len(native.model.ops))
    context.end(True)
    assert context.length() == len(IDS)
