"""Where a model can be scaled without changing what it computes: found in its program.

A factor may move from a matrix's columns to what makes its input, if all that lies between is linear and nobody else
reads it:

- a norm's weight, for the matrices that read the norm (q, k, v; gate, up; the output matrix);
- the rows of the up matrix, which the gate only multiplies, for the down matrix;
- the rows of the v matrix, of which attention takes means, for the attention's output matrix. Query heads that share a
  KV head share its factors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iqrun.program import Buffer, Op, Program

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pair:
    """A set of factors that the model does not notice.

    Attributes:
        producers: tensors to divide: a norm's weight, or a matrix (row by row) and its bias.
        consumers: matrices to multiply, column by column.
        factor_of: for each of the consumers' columns the index of its factor, int64 ``(n_cols,)``.
        n_factors: their number, that of the producers' values or rows.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    factor_of: Indices
    n_factors: int


def find_pairs(program: Program) -> list[Pair]:
    """All pairs of a model, in the program's order. A tensor that is used in two places is in none."""
    uses = Counter(weight.name for op in program.ops for weight in {*op.weight, *filter(None, op.bias)})
    found = []
    for index, op in enumerate(program.ops):
        for buffer, producers in _sources(op):
            pair = _pair(program.ops, index, buffer, producers)
            if pair is not None and all(uses[name] == 1 for name in (*pair.producers, *pair.consumers)):
                found.append(pair)
    return found


def _sources(op: Op) -> Iterator[tuple[Buffer, tuple[str, ...]]]:
    """The buffers that an operation fills with values proportional to something that can be divided."""
    if any(weight.n_expert for weight in op.weight):
        return
    if op.kind == "rms_norm" and op.head_dim == op.src[0].n_cols:
        yield op.dst[0], (op.weight[0].name,)
    elif op.kind == "gated_matmul":
        yield op.dst[0], _row_producers(op, 1)
    elif op.kind == "matmul" and not op.add:
        for index, buffer in enumerate(op.dst):
            yield buffer, _row_producers(op, index)


def _row_producers(op: Op, index: int) -> tuple[str, ...]:
    bias = op.bias[index]
    return (op.weight[index].name, *([] if bias is None else [bias.name]))


def _pair(ops: list[Op], index: int, buffer: Buffer, producers: tuple[str, ...]) -> Pair | None:
    """The pair of a buffer filled at an operation; None if it meets anything but matrices on its way."""
    consumers: list[str] = []
    own: Indices = np.arange(buffer.n_cols)
    maps: list[Indices] = []
    followed = [(index, buffer, own)]
    while followed:
        start, current, factor_of = followed.pop()
        for at, op in _readers(ops, start, current):
            if op.kind == "attention" and current == op.src[2] and current not in op.src[:2]:
                followed.append((at, op.dst[0], factor_of[_shared_by_heads(op)]))
            elif op.kind == "select":
                followed.append((at, op.dst[0], factor_of))
            elif op.kind in ("matmul", "gated_matmul") and current not in op.dst:
                consumers += [weight.name for weight in op.weight]
                maps.append(factor_of)
            else:
                return None
    if not maps or not all(np.array_equal(maps[0], other) for other in maps):
        return None
    return Pair(producers, tuple(consumers), maps[0], buffer.n_cols)


def _readers(ops: list[Op], start: int, buffer: Buffer) -> Iterator[tuple[int, Op]]:
    """The operations that read a buffer, or change it in place, until it is written anew."""
    for index in range(start + 1, len(ops)):
        op = ops[index]
        in_place = op.add or op.kind in ("rope", "add")
        if buffer in op.src or (in_place and buffer in op.dst):
            yield index, op
        if buffer in op.dst and not in_place:
            return


def _shared_by_heads(op: Op) -> Indices:
    """For each column of an attention's result the column of v that it is a mean of."""
    heads = np.arange(op.n_head)[:, None] * op.n_head_kv // op.n_head
    return (heads * op.head_dim + np.arange(op.head_dim)).ravel()
