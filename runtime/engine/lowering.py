"""Hands a `Program` to the native core: names become indices, weights become pointers into the mapped file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqrun import native
from iqrun.native import check, ffi, lib, pointer
from iqrun.program import Buffer, Op, Program, Weight

if TYPE_CHECKING:
    from iqrun.engine.stream import Stream

_KINDS = {
    "embed": lib.IQ_OP_EMBED,
    "select": lib.IQ_OP_SELECT,
    "rms_norm": lib.IQ_OP_RMS_NORM,
    "matmul": lib.IQ_OP_MATMUL,
    "gated_matmul": lib.IQ_OP_GATED_MATMUL,
    "rope_table": lib.IQ_OP_ROPE_TABLE,
    "rope": lib.IQ_OP_ROPE,
    "attention": lib.IQ_OP_ATTENTION,
    "add": lib.IQ_OP_ADD,
    "route": lib.IQ_OP_ROUTE,
    "deal": lib.IQ_OP_DEAL,
    "collect": lib.IQ_OP_COLLECT,
}
_ROWS = {"tokens": lib.IQ_ROWS_TOKENS, "outputs": lib.IQ_ROWS_OUTPUTS}
_NONE = -1


class NativeProgram:
    """A program inside the native core; contexts run it.

    Attributes:
        program: what it was made from. It keeps the weights' memory map alive.
        handle: the ``iq_program *``, freed when this object and every context made of it are gone.
        stream: where contexts take the weights from if not from the map.
    """

    def __init__(self, program: Program, isa: str | None = None) -> None:
        """Checks and plans the program for an instruction set (default: `native.kernels`' choice).

        Raises:
            UnsupportedModelError: the instruction set does not run here.
            ValueError: an index or shape is wrong: a mistake in an architecture's file.
        """
        self.program = program
        self.stream: Stream | None = None
        spec, _keep = _spec(program)
        out = ffi.new("iq_program **")
        check(lib.iq_program_create, spec, native.kernels(isa), out)
        self.handle = ffi.gc(out[0], lib.iq_program_free)


def _spec(program: Program) -> tuple[Any, list[Any]]:
    """The ``iq_program_spec`` and the arrays that it points to."""
    ops = ffi.new("iq_op[]", [_op(op) for op in program.ops])
    buffers = ffi.new("iq_buffer[]", [_buffer(buffer) for buffer in program.buffers])
    weights = ffi.new("iq_weight[]", [_weight(weight) for weight in program.weights])
    spec = ffi.new("iq_program_spec *")
    spec.ops, spec.buffers, spec.weights = ops, buffers, weights
    spec.n_op, spec.n_buffer, spec.n_weight = len(ops), len(buffers), len(weights)
    spec.n_layer, spec.n_vocab, spec.output = program.n_layer, program.n_vocab, program.logits.index
    return spec, [ops, buffers, weights]


def _op(op: Op) -> dict[str, Any]:
    flags = (lib.IQ_FLAG_ADD if op.add else 0) | (lib.IQ_FLAG_ROPE_HALVES if op.rope_halves else 0)
    flags |= lib.IQ_FLAG_NORM_SHARES if op.norm_shares else 0
    return {
        "kind": _KINDS[op.kind],
        "flags": flags,
        "n": len(op.weight),
        "layer": op.layer,
        "dst": _slots([buffer.index for buffer in op.dst]),
        "src": _slots([buffer.index for buffer in op.src]),
        "weight": _slots([weight.index for weight in op.weight]),
        "bias": _slots([_NONE if bias is None else bias.index for bias in op.bias]),
        "n_head": op.n_head,
        "n_head_kv": op.n_head_kv,
        "head_dim": op.head_dim,
        "n_rot": op.n_rot,
        "f": [op.f, 0.0, 0.0, 0.0],
    }


def _slots(indices: list[int]) -> list[int]:
    return indices + [_NONE] * (lib.IQ_OP_SLOTS - len(indices))


def _buffer(buffer: Buffer) -> dict[str, int]:
    return {"n_cols": buffer.n_cols, "domain": _ROWS[buffer.rows], "n_used": buffer.n_used}


def _weight(weight: Weight) -> dict[str, Any]:
    data = pointer(weight.data, "const void *")
    shape = {"n_rows": weight.n_rows, "n_cols": weight.n_cols, "n_expert": weight.n_expert}
    return {"data": data, "type": weight.type_id, **shape}
