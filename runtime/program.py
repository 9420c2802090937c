"""The program of a model: a flat list of operations on named buffers, written by an architecture in `iqrun.models`.

Each method of `Program` appends one operation, checks every shape against the file at once, and returns the buffer that
it fills. ``str(program)`` prints the list; `iqrun.engine.lowering` hands it to the native core. What each operation
computes is defined in ``iqrun.h`` (`iq_op_kind`); a row of a buffer is one token of the batch, or one wanted output.

Example:
    >>> with GGUFFile("model.gguf") as file:
    ...     p = Program(file, n_layer=0)
    ...     x = p.embed("token_embd.weight")
    ...     p.output(*p.matmul(p.select(x), ["token_embd.weight"], n_rows=[4096], into=["logits"]))
    ...     print(p)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.errors import GGUFError, UnsupportedModelError
from iqrun.gguf import GGUFFile, TensorInfo, keys

Rows = Literal["tokens", "outputs"]
Kind = Literal[
    "embed", "select", "rms_norm", "matmul", "gated_matmul", "rope_table", "rope", "attention", "add",
    "route", "deal", "collect",
]  # fmt: skip

MAX_MATMUL_WEIGHTS = 4


@dataclass(frozen=True, slots=True)
class Buffer:
    """A float32 matrix that operations read and write: one row per token, or one per wanted output.

    With experts (`n_used` above 0) it is a row for each expert that the token or output uses, ordered by expert.
    """

    index: int
    name: str
    n_cols: int
    rows: Rows
    n_used: int = 0

    def __str__(self) -> str:
        shape = f"{self.n_used} x {self.n_cols}" if self.n_used else f"{self.n_cols}"
        return f"{self.name}[{shape}]" + ("*" if self.rows == "outputs" else "")


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A matrix of the file as it is stored (`data` is borrowed from the map), or a float32 vector (``n_rows`` 1).

    With experts (`n_expert` above 0) there are so many matrices of ``n_rows`` rows each, one after another.
    """

    index: int
    name: str
    type_id: int
    type_name: str
    n_rows: int
    n_cols: int
    data: npt.NDArray[np.uint8]
    n_expert: int = 0

    def __str__(self) -> str:
        shape = f"{self.n_cols}" if self.n_rows == 1 else f"{self.n_rows} x {self.n_cols}"
        shape = f"{self.n_expert} x {shape}" if self.n_expert else shape
        return f"{self.name} {self.type_name.lower()} [{shape}]"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation; the fields are those of `iq_op`, with buffers and weights in place of indices."""

    kind: Kind
    dst: tuple[Buffer, ...]
    src: tuple[Buffer, ...] = ()
    weight: tuple[Weight, ...] = ()
    bias: tuple[Weight | None, ...] = ()
    add: bool = False
    rope_halves: bool = False
    layer: int = -1
    n_head: int = 0
    n_head_kv: int = 0
    head_dim: int = 0
    n_rot: int = 0
    f: float = 0.0  # f[0]: a scale, or the epsilon of a norm
    norm_shares: bool = False

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that this operation reads for a step of one token."""
        return sum(n_bytes for _, n_bytes in self.reads())

    def reads(self) -> Iterator[tuple[str, int]]:
        """Type and bytes of each weight that a step of one token reads; of experts only those that the token uses."""
        for weight in self.bias:
            if weight is not None:
                yield weight.type_name, weight.data.size
        for weight in self.weight:
            if self.kind == "embed":
                yield weight.type_name, weight.data.size // weight.n_rows
            elif self.src and self.src[0].n_used:
                yield weight.type_name, weight.data.size * self.src[0].n_used // weight.n_expert
            else:
                yield weight.type_name, weight.data.size


class Program:
    """The operations of one model, in order, and the buffers and weights that they name.

    A buffer is found by its name and kind of rows: naming it again reuses it, so that all layers share theirs.

    Attributes:
        arch: ``general.architecture`` of the file.
        n_layer: number of KV layers.
        n_vocab: token ids are below it; set by `embed`.
        ops, buffers, weights: what was written so far.
    """

    def __init__(self, file: GGUFFile, *, n_layer: int) -> None:
        self._file = file
        self.path = file.path
        self.arch = file.metadata.get_str(keys.ARCHITECTURE)
        self.n_layer = n_layer
        self.n_vocab = 0
        self.ops: list[Op] = []
        self.buffers: list[Buffer] = []
        self.weights: list[Weight] = []
        self._output: Buffer | None = None
        self._buffer_by_name: dict[tuple[str, Rows], Buffer] = {}
        self._weight_by_name: dict[str, Weight] = {}
        self._used: set[str] = set()
        self._n_expert = 0

    # ---- operations ----

    def embed(
        self, name: str, *, n_rows: int | None = None, n_cols: int | None = None, scale: float = 1.0, into: str = "x"
    ) -> Buffer:
        """``x[t] = scale * row token[t]`` of the embedding matrix, whose rows are the vocabulary.

        Args:
            name: the matrix.
            n_rows: what the vocabulary says about it; None leaves it to the file.
            n_cols: what the hyper-parameters say about it; None leaves it to the file.
            scale: factor of each row.
            into: name of the result.
        """
        weight = self._matrix(name, n_rows=n_rows, n_cols=n_cols)
        self.n_vocab = weight.n_rows
        x = self._buffer(into, weight.n_cols, "tokens")
        self.ops.append(Op("embed", (x,), weight=(weight,), f=scale))
        return x

    def select(self, src: Buffer, *, into: str | None = None) -> Buffer:
        """The rows of `src` whose output is wanted."""
        self._expect(src.rows == "tokens", f"select: {src.name} was selected already")
        out = self._buffer(into or src.name, src.n_cols, "outputs")
        self.ops.append(Op("select", (out,), (src,)))
        return out

    def rms_norm(
        self, src: Buffer, name: str, eps: float, *, head_dim: int | None = None, into: str | None = None
    ) -> Buffer:
        """``src / sqrt(mean(src^2) + eps) * weight`` over each row, or over each head of `head_dim` columns alone."""
        n_cols = head_dim or src.n_cols
        self._expect(src.n_cols % n_cols == 0, f"rms_norm: {src} is not made of heads of {n_cols} columns")
        out = self._buffer(into or _stem(name), src.n_cols, src.rows)
        self.ops.append(Op("rms_norm", (out,), (src,), (self._vector(name, n_cols),), head_dim=n_cols, f=eps))
        return out

    def matmul(
        self,
        src: Buffer,
        names: Sequence[str],
        *,
        n_rows: Sequence[int],
        biases: Sequence[str | None] | None = None,
        into: Sequence[str] | None = None,
    ) -> list[Buffer]:
        """One product per weight, all of the same input: ``weight src + bias``.

        Args:
            src: the input.
            names: up to four matrices of ``n_rows[i]`` rows and as many columns as `src`.
            n_rows: what the hyper-parameters say about each.
            biases: the name of each one's bias vector, or None where it has none.
            into: names of the results; by default those of the weights.
        """
        weights = self._matrices(names, n_rows, src)
        targets = into or [_stem(name) for name in names]
        out = [self._buffer(target, w.n_rows, src.rows, src.n_used) for target, w in zip(targets, weights, strict=True)]
        self.ops.append(Op("matmul", tuple(out), (src,), weights, self._biases(biases, weights)))
        return out

    def matmul_add(self, dst: Buffer, src: Buffer, name: str, *, bias: str | None = None) -> None:
        """``dst += weight src + bias``: a branch joins the residual stream."""
        self._expect(dst.rows == src.rows, f"matmul_add: {dst} and {src} differ in rows")
        weights = self._matrices([name], [dst.n_cols], src)
        self.ops.append(Op("matmul", (dst,), (src,), weights, self._biases([bias], weights), add=True))

    def gated_matmul(
        self,
        src: Buffer,
        gate: str,
        up: str,
        *,
        n_rows: int,
        biases: tuple[str | None, str | None] = (None, None),
        into: str | None = None,
    ) -> Buffer:
        """``silu(gate src + bias) * (up src + bias)``: the first half of a SwiGLU network."""
        weights = self._matrices([gate, up], [n_rows, n_rows], src)
        out = self._buffer(into or _stem(gate), n_rows, src.rows, src.n_used)
        self.ops.append(Op("gated_matmul", (out,), (src,), weights, self._biases(biases, weights)))
        return out

    def rope_table(self, inv_freq: npt.NDArray[np.float32], *, scale: float = 1.0) -> Buffer:
        """Cosines, then sines, of ``position * inv_freq`` for each token, times `scale`; shared by all layers."""
        n_rot = 2 * len(inv_freq)
        out = self._buffer("rope", n_rot, "tokens")
        weight = self._constant("rope_inv_freq", inv_freq)
        self.ops.append(Op("rope_table", (out,), weight=(weight,), n_rot=n_rot, f=scale))
        return out

    def rope(self, x: Buffer, table: Buffer, *, head_dim: int, halves: bool) -> None:
        """Turns the first `n_rot` columns of each head of `x` in place.

        Args:
            x: queries or keys.
            table: of `rope_table`; its width is `n_rot`.
            head_dim: columns per head.
            halves: pair column i with ``i + n_rot/2`` (NeoX order) instead of ``2i`` with ``2i + 1``.
        """
        n_head = self._head_count("rope", x, head_dim)
        self._expect(table.n_cols <= head_dim, f"rope: {table} turns more columns than the {head_dim} of a head")
        op = Op("rope", (x,), (table,), rope_halves=halves, n_head=n_head, head_dim=head_dim, n_rot=table.n_cols)
        self.ops.append(op)

    def attention(
        self, q: Buffer, k: Buffer, v: Buffer, *, layer: int, head_dim: int, scale: float, into: str = "attn"
    ) -> Buffer:
        """Appends k and v to the KV cache of `layer`; each token attends to its sequence up to itself.

        Args:
            q: queries, ``n_head * head_dim`` columns.
            k: keys, ``n_head_kv * head_dim`` columns; head h of `q` reads head ``h * n_head_kv // n_head``.
            v: values, shaped as `k`.
            layer: KV layer, below `n_layer`, each used once.
            head_dim: columns per head.
            scale: factor of the scores, usually ``head_dim ** -0.5``.
            into: name of the result, shaped as `q`.
        """
        n_head, n_head_kv = self._head_count("attention", q, head_dim), self._head_count("attention", k, head_dim)
        self._expect(v.n_cols == k.n_cols, f"attention: {k} and {v} differ in columns")
        self._expect(n_head % n_head_kv == 0, f"attention: {n_head} heads cannot share {n_head_kv} KV heads")
        self._expect(0 <= layer < self.n_layer, f"attention: layer {layer} is not below {self.n_layer}")
        out = self._buffer(into, q.n_cols, "tokens")
        op = Op(
            "attention", (out,), (q, k, v), layer=layer, n_head=n_head, n_head_kv=n_head_kv, head_dim=head_dim, f=scale
        )
        self.ops.append(op)
        return out

    def add(self, dst: Buffer, src: Buffer) -> None:
        """``dst += src``."""
        same = (dst.n_cols, dst.rows) == (src.n_cols, src.rows)
        self._expect(same, f"add: {dst} and {src} differ in shape")
        self.ops.append(Op("add", (dst,), (src,)))

    def route(self, scores: Buffer, n_used: int, *, norm_shares: bool, scale: float = 1.0) -> tuple[Buffer, Buffer]:
        """Chooses the experts of each row: those with the highest scores.

        Args:
            scores: a column per expert.
            n_used: how many are chosen.
            norm_shares: whether the chosen ones' shares, which are a softmax over all experts, are made to add up to 1.
            scale: factor of the shares.

        Returns:
            Their indices (best first) and their shares, ``n_used`` columns each. Matmuls of what `deal` makes now have
            a matrix per expert, until `collect`.
        """
        self._expect(1 <= n_used <= scores.n_cols, f"route: {n_used} of {scores.n_cols} experts cannot be chosen")
        self._n_expert = scores.n_cols
        chosen = self._buffer("experts", n_used, scores.rows), self._buffer("shares", n_used, scores.rows)
        self.ops.append(Op("route", chosen, (scores,), f=scale, norm_shares=norm_shares))
        return chosen

    def deal(self, src: Buffer, experts: Buffer, *, into: str = "dealt") -> Buffer:
        """A copy of each row for every expert that it goes to, ordered by expert; `experts` is what `route` chose."""
        out = self._buffer(into, src.n_cols, src.rows, experts.n_cols)
        self.ops.append(Op("deal", (out,), (src,)))
        return out

    def collect(self, dst: Buffer, src: Buffer, shares: Buffer) -> None:
        """``dst += `` the rows of `src` that each row's experts made, times their shares."""
        same = (dst.n_cols, dst.rows, src.n_used) == (src.n_cols, src.rows, shares.n_cols)
        self._expect(same, f"collect: {src} does not fit {dst} and {shares}")
        self.ops.append(Op("collect", (dst,), (src, shares)))

    def output(self, logits: Buffer) -> None:
        """Names the buffer that a step returns. It is the last thing written."""
        self._expect(logits.rows == "outputs", f"output: {logits} holds every token; select the wanted ones first")
        self._output = logits

    # ---- reading ----

    def with_weights(self, weights: Sequence[Weight]) -> Program:
        """The same operations with some weights in place of its own."""
        changed = copy(self)
        changed.weights = list(self.weights)
        for weight in weights:
            changed.weights[weight.index] = weight
        changed.ops = [replace(op, weight=tuple(changed.weights[old.index] for old in op.weight)) for op in self.ops]
        return changed

    def bytes_by_type(self) -> dict[str, int]:
        """Bytes of weights of each type that are read to generate one token."""
        total: Counter[str] = Counter()
        for op in self.ops:
            for type_name, n_bytes in op.reads():
                total[type_name] += n_bytes
        return total

    @property
    def logits(self) -> Buffer:
        """The buffer that a step returns."""
        if self._output is None:
            raise ValueError(f"the program of {self.arch!r} has no output: call output() at its end")
        return self._output

    @property
    def weight_bytes_per_token(self) -> int:
        """Bytes of weights read to generate one token: what memory bandwidth divides to give the roof."""
        return sum(op.weight_bytes for op in self.ops)

    def check_file(self) -> None:
        """Makes sure that the weights are still those that were opened; nothing to do once the file is closed.

        Raises:
            GGUFError: another program wrote to the file.
        """
        if not self._file.closed:
            self._file.check_unchanged()

    def source(self, weight: Weight) -> tuple[int, int]:
        """Where the file holds a weight as it is used: index of the file, offset. ``(-1, 0)``: nowhere."""
        info = self._file.tensors.get(weight.name)
        return (-1, 0) if info is None else (info.file_index, info.offset)

    def reopen(self) -> tuple[list[int], tuple[str, ...]]:
        """Descriptors for reading the weights past the page cache, and the paths; see `GGUFFile.reopen`."""
        return self._file.reopen(), self._file.paths

    def has(self, name: str) -> bool:
        """Whether the file has such a tensor."""
        return name in self._file.tensors

    def optional(self, name: str) -> str | None:
        """`name` if the file has such a tensor, else None."""
        return name if self.has(name) else None

    def floats(self, name: str, n: int) -> npt.NDArray[np.float32]:
        """The values of a small float vector of the file, of length `n`; counts as used."""
        info = self._info(name)
        self._check_shape(name, (info.n_rows, info.n_cols), (1, n))
        self._used.add(name)
        values: npt.NDArray[np.float32] = formats.decode(self._file.tensor_bytes(name), info.type_id, n)[0]
        return values

    def refuse_unused(self) -> None:
        """Raises UnsupportedModelError if the file has a tensor that was not used: the results would be wrong."""
        name = next((name for name in self._file.tensors if name not in self._used), None)
        self._expect(name is None, f"tensor {name!r} is not part of the architecture {self.arch!r} as iqrun knows it")

    def __str__(self) -> str:
        head = (
            f"program of {self.arch}: {len(self.ops)} operations, {len(self.buffers)} buffers, {self.n_layer} KV layers"
        )
        lines = [head, "(* = one row per wanted output; the other buffers have one per token)"]
        for index, op in enumerate(self.ops):
            first, *others = _describe(op)
            lines += [f"{index:4}  {op.kind:<12}  {first}"] + [f"{'':4}  {'':<12}  {line}" for line in others]
        return "\n".join(lines)

    # ---- inside ----

    def _expect(self, condition: bool, message: str) -> None:
        if not condition:
            raise UnsupportedModelError(f"{self.path}: {message}")

    def _buffer(self, name: str, n_cols: int, rows: Rows, n_used: int = 0) -> Buffer:
        known = self._buffer_by_name.get((name, rows))
        if known is None:
            known = self._buffer_by_name[name, rows] = Buffer(len(self.buffers), name, n_cols, rows, n_used)
            self.buffers.append(known)
        same = (known.n_cols, known.n_used) == (n_cols, n_used)
        self._expect(same, f"buffer {known} cannot be reused with {n_cols} columns for {n_used} experts")
        return known

    def _head_count(self, op: str, x: Buffer, head_dim: int) -> int:
        self._expect(
            head_dim > 0 and x.n_cols >= head_dim and x.n_cols % head_dim == 0,
            f"{op}: {x} is not made of heads of {head_dim} columns",
        )
        return x.n_cols // head_dim

    def _matrices(self, names: Sequence[str], n_rows: Sequence[int], src: Buffer) -> tuple[Weight, ...]:
        self._expect(0 < len(names) <= MAX_MATMUL_WEIGHTS, f"matmul: {len(names)} weights, but 1 to 4 are possible")
        pairs = zip(names, n_rows, strict=True)
        n_expert = self._n_expert if src.n_used else 0
        return tuple(self._matrix(name, n_rows=rows, n_cols=src.n_cols, n_expert=n_expert) for name, rows in pairs)

    def _biases(self, names: Sequence[str | None] | None, weights: Sequence[Weight]) -> tuple[Weight | None, ...]:
        pairs = zip(names or [None] * len(weights), weights, strict=True)
        return tuple(None if name is None else self._vector(name, weight.n_rows) for name, weight in pairs)

    def _info(self, name: str) -> TensorInfo:
        info = self._file.tensors.get(name)
        if info is None:
            raise GGUFError(f"tensor {name!r} of the architecture {self.arch!r} is missing", path=self.path, key=name)
        if info.format is None:
            raise UnsupportedModelError(
                f"{self.path}: tensor {name!r} is stored as {info.type.name}, which iqrun cannot compute with; "
                "quantize the original model with iqrun"
            )
        return info

    def _matrix(self, name: str, *, n_rows: int | None = None, n_cols: int | None = None, n_expert: int = 0) -> Weight:
        info = self._info(name)
        if n_expert:
            shape = (n_cols, n_rows, n_expert)
            have = (*info.shape, 1)[:3] if len(info.shape) <= 3 else info.shape
            self._expect(have == shape, f"tensor {name!r} is {have}, but must be {shape}: columns, rows, experts")
            wanted = n_rows or 0, n_cols or 0
        else:
            wanted = (n_rows or info.n_rows, n_cols or info.n_cols)
            self._check_shape(name, (info.n_rows, info.n_cols), wanted)
        return self._weight(name, info.type_id, info.type.name, wanted, self._file.tensor_bytes(name), n_expert)

    def _vector(self, name: str, n: int) -> Weight:
        """A float32 vector; one stored in another type is decoded, as it is small."""
        known = self._weight_by_name.get(name)
        if known is None:
            return self._constant(name, self.floats(name, n))
        self._check_shape(name, (known.n_rows, known.n_cols), (1, n))
        return known

    def _constant(self, name: str, values: npt.NDArray[np.float32]) -> Weight:
        data = np.ascontiguousarray(values, dtype=np.float32)
        return self._weight(name, formats.by_name("F32").id, "F32", (1, data.size), data.view(np.uint8))

    def _weight(
        self,
        name: str,
        type_id: int,
        type_name: str,
        shape: tuple[int, int],
        data: npt.NDArray[Any],
        n_expert: int = 0,
    ) -> Weight:
        known = self._weight_by_name.get(name)
        if known is None:
            index = len(self.weights)
            known = self._weight_by_name[name] = Weight(index, name, type_id, type_name, *shape, data, n_expert)
            self.weights.append(known)
            self._used.add(name)
        return known

    def _check_shape(self, name: str, shape: tuple[int, int], wanted: tuple[int, int]) -> None:
        if shape != wanted:
            raise GGUFError(
                f"tensor {name!r} has {shape[0]} rows of {shape[1]} weights, but the hyper-parameters ask for "
                f"{wanted[0]} rows of {wanted[1]}",
                path=self.path,
                key=name,
            )


def _stem(weight_name: str) -> str:
    """``blk.3.attn_q.weight`` fills ``attn_q``, so that the layers share it."""
    return weight_name.removesuffix(".weight").rsplit(".", 1)[-1]


def _describe(op: Op) -> list[str]:
    """One line per result: what it is made of."""
    sources = [str(buffer) for buffer in op.src]
    details = _details(op)
    if op.kind in ("matmul", "gated_matmul"):
        terms = [
            f"{weight}" + (f" + {bias.name}" if bias else "") for weight, bias in zip(op.weight, op.bias, strict=True)
        ]
        if op.kind == "gated_matmul":
            return [f"{op.dst[0]} = silu({terms[0]}) * ({terms[1]})  of {sources[0]}"]
        sign = "+=" if op.add else "="
        return [f"{dst} {sign} {term}  of {sources[0]}" for dst, term in zip(op.dst, terms, strict=True)]
    parts = ", ".join(sources + [str(weight) for weight in op.weight] + details)
    sign = "+=" if op.kind in ("add", "collect") else "="
    return [f"{', '.join(map(str, op.dst))} {sign} {parts}"]


def _details(op: Op) -> list[str]:
    """What the hyper-parameters add to an operation."""
    if op.kind == "rms_norm":
        return [f"eps {op.f:g}"] + ([f"heads of {op.head_dim}"] if op.head_dim != op.src[0].n_cols else [])
    if op.kind == "rope":
        return [f"{op.n_head} heads of {op.head_dim}", "halves" if op.rope_halves else "pairs"]
    if op.kind == "attention":
        return [f"layer {op.layer}", f"{op.n_head} heads over {op.n_head_kv} of {op.head_dim}", f"scale {op.f:.4g}"]
    if op.kind == "route":
        norm = ["normed shares"] if op.norm_shares else []
        return [f"{op.dst[0].n_cols} of {op.src[0].n_cols} experts", *norm, *([f"scale {op.f:g}"] if op.f != 1 else [])]
    return [f"scale {op.f:g}"] if op.kind in ("embed", "rope_table") and op.f != 1.0 else []
