"""Size, memory and speed of a model in each type on a board, and which one to take.

A token reads every weight once, from memory, or from the disk where memory is too small; meanwhile the kernels
multiply. The slowest of the three sets the pace::

    seconds = max(weight bytes in memory / read bandwidth, weights * seconds per weight / threads) / ENGINE_SHARE
    seconds = max(seconds, streamed bytes / disk speed)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from iqrun.engine.allocation import N_BATCH, KVType
from iqrun.fitting.board import Board
from iqrun.fitting.quality import DIVERGENCE, quality_class
from iqrun.fitting.shapes import ModelShape
from iqrun.formats import FORMATS, Format, by_name
from iqrun.quantizer.recipes import TOKEN_EMBEDDING, Recipe, Traits

TYPES = (*sorted(DIVERGENCE, key=lambda name: -DIVERGENCE[name]), "F16")

# Of the pace that memory or kernels alone would allow: synchronization, norms, attention and the rest of a step take
# the other part. An assumption, of the order of the shares in docs/performance.md.
ENGINE_SHARE = 0.85

PROCESS_BYTES = 64_000_000  # Python, numpy, the tables of a vocabulary
READ_AHEAD_BYTES = 8 << 20  # of streamed weights
_BYTES_PER_COL = (
    6  # of a buffer and token: a float32, and the int8 copy that matmuls read (the engine's own account: 5.7)
)
MIN_N_CTX = 512
PACE = 10.0  # tokens per second: faster than people read
_TAKEN = ("IQ5_K", "IQ5_KS", "IQ4_K", "IQ4_KS", "IQ4_KSS", "IQ3_K", "IQ3_KS", "IQ2_KL", "IQ2_K", "IQ2_KS")
_GOOD = 0.01  # divergence up to which speed counts more than quality


@dataclass(frozen=True, slots=True)
class Estimate:
    """A model in one type.

    Attributes:
        type: its name.
        file_bytes: of the file, with the mix of types that a recipe makes of it.
        weight_bytes_per_token: read to generate one token.
        kv_bytes: keys and values of `n_ctx` tokens.
        memory_bytes: all that must be in memory for full speed.
        fits: whether that is free.
        streamed_bytes: weights read from the disk for each token, if it does not fit.
        tokens_per_second: expected while generating, with a short context; None if it cannot run at all, or
            streams from a disk of unknown speed.
        divergence: mean KL divergence of the type, where measured; quality: a word for it.
        n_ctx, kv_type: the context that this is for.
        own: it is the type that the file has now.
    """

    type: str
    file_bytes: int
    weight_bytes_per_token: int
    kv_bytes: int
    memory_bytes: int
    fits: bool
    streamed_bytes: int
    tokens_per_second: float | None
    divergence: float | None
    quality: str | None
    n_ctx: int
    kv_type: str
    own: bool


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take.

    Attributes:
        estimate: the type, with the context that it is for.
        n_ctx_max: the largest context that fits (or the model was trained for), in steps of 256.
        reason: why, in a sentence.
    """

    estimate: Estimate
    n_ctx_max: int
    reason: str


def kv_bytes(shape: ModelShape, n_ctx: int, kv_type: str) -> int:
    """Bytes of the keys and values of `n_ctx` tokens."""
    row = by_name(kv_type)
    return 2 * n_ctx * sum(row.row_bytes(n_cols) for n_cols in shape.kv_rows)


def buffer_bytes(shape: ModelShape, n_ctx: int) -> int:
    """Bytes of what a step computes: float32 for each token of a batch and its int8 copies, one row of logits."""
    return min(N_BATCH, n_ctx) * shape.buffer_cols * _BYTES_PER_COL + 4 * shape.n_vocab


def estimate_all(shape: ModelShape, board: Board, n_ctx: int, kv_type: KVType = "f16") -> list[Estimate]:
    """The model in every type of `TYPES` (and its own), from the smallest file to the largest.

    Raises:
        ValueError: `n_ctx` is not at least 1.
    """
    if n_ctx < 1:
        raise ValueError(f"n_ctx is {n_ctx}, but must be at least 1")
    names = list(dict.fromkeys([*TYPES, *([shape.source_type] if shape.source_type else [])]))
    found = [_estimate(shape, board, name, n_ctx, kv_type) for name in names]
    return sorted(found, key=lambda estimate: estimate.file_bytes)


def recommend(shape: ModelShape, board: Board, n_ctx: int, kv_type: KVType = "f16") -> Recommendation:
    """The type to take: the best one that fits and is faster than people read, else the fastest good one that fits.

    If none fits with this context, one that does with a smaller context; else the smallest, streamed.
    """
    for context in _contexts(n_ctx):
        estimates = {e.type: e for e in estimate_all(shape, board, context, kv_type)}
        fitting = [estimates[name] for name in _TAKEN if estimates[name].fits]
        if fitting:
            estimate, reason = _best(fitting)
            if context < n_ctx:
                reason += f"; a context of {n_ctx} does not fit"
            return Recommendation(estimate, largest_n_ctx(shape, board, estimate), reason)
    estimate = min(estimate_all(shape, board, MIN_N_CTX, kv_type), key=lambda e: e.file_bytes)
    return Recommendation(estimate, MIN_N_CTX, "no type fits into the memory that is free")


def largest_n_ctx(shape: ModelShape, board: Board, estimate: Estimate) -> int:
    """The largest context, in steps of 256, with which a type fits; at least `MIN_N_CTX`, at most what was trained."""
    low, high = MIN_N_CTX, max(shape.n_ctx_train, MIN_N_CTX) + 1
    while high - low > 1:
        middle = (low + high) // 2
        needed = _memory(shape, estimate.file_bytes, middle, estimate.kv_type)
        low, high = (middle, high) if needed <= board.free_memory else (low, middle)
    return low if low in (MIN_N_CTX, shape.n_ctx_train) else low // 256 * 256


def _contexts(n_ctx: int) -> list[int]:
    """The context asked for, and halves of it."""
    contexts = [n_ctx]
    while contexts[-1] // 2 >= MIN_N_CTX:
        contexts.append(contexts[-1] // 2)
    return contexts


def _best(fitting: Sequence[Estimate]) -> tuple[Estimate, str]:
    """The choice among types that fit, best quality first, and why."""
    for estimate in fitting:
        if (estimate.tokens_per_second or 0) >= PACE:
            return estimate, "the best that fits and is faster than people read"
    good = [e for e in fitting if (e.divergence or 0) <= _GOOD]
    if good:
        return max(good, key=lambda e: e.tokens_per_second or 0), "the fastest of the good ones that fit"
    return fitting[0], "the best that fits"


def _estimate(shape: ModelShape, board: Board, name: str, n_ctx: int, kv_type: str) -> Estimate:
    own = name == shape.source_type
    sizes = _own_sizes(shape) if own else _sizes(shape, FORMATS[name])
    file_bytes = shape.header_bytes + sum(n_bytes for _, n_bytes, _ in sizes.values())
    read = {tensor: size for tensor, size in sizes.items() if tensor != TOKEN_EMBEDDING or shape.tied}
    memory = _memory(shape, file_bytes, n_ctx, kv_type)
    per_token = sum(n_bytes for _, n_bytes, _ in read.values())
    missing = max(0, memory - board.free_memory)
    streamed = min(per_token, missing + READ_AHEAD_BYTES) if missing else 0
    divergence = DIVERGENCE.get(name)
    return Estimate(
        type=name,
        file_bytes=file_bytes,
        weight_bytes_per_token=per_token,
        kv_bytes=kv_bytes(shape, n_ctx, kv_type),
        memory_bytes=memory,
        fits=not missing,
        streamed_bytes=streamed,
        tokens_per_second=_speed(board, list(read.values()), streamed, memory - per_token),
        divergence=divergence,
        quality=quality_class(name),
        n_ctx=n_ctx,
        kv_type=kv_type,
        own=own,
    )


def _memory(shape: ModelShape, file_bytes: int, n_ctx: int, kv_type: str) -> int:
    return file_bytes + kv_bytes(shape, n_ctx, kv_type) + buffer_bytes(shape, n_ctx) + PROCESS_BYTES


def _own_sizes(shape: ModelShape) -> dict[str, tuple[str, int, int]]:
    return {name: (tensor.type.name, tensor.n_bytes, tensor.n_weights) for name, tensor in shape.tensors.items()}


def _sizes(shape: ModelShape, main: Format) -> dict[str, tuple[str, int, int]]:
    """Type, bytes and weights of each tensor, as a recipe would store it."""
    recipe, traits, sizes = Recipe(main), Traits.of(shape.tensors), {}
    for name, tensor in shape.tensors.items():
        target = recipe.choose(tensor, traits).target
        type_name, row_bytes = (
            (tensor.type.name, tensor.row_bytes) if target is None else (target.name, target.row_bytes(tensor.n_cols))
        )
        sizes[name] = (type_name, row_bytes * tensor.n_rows, tensor.n_weights)
    return sizes


def _speed(board: Board, read: Sequence[tuple[str, int, int]], streamed: int, needed_besides: int) -> float | None:
    """Tokens per second; None where that cannot be told."""
    if streamed and (board.disk_speed is None or needed_besides > board.free_memory):
        return None
    reading = (sum(n_bytes for _, n_bytes, _ in read) - streamed) / board.read_bandwidth
    known = board.seconds_per_weight
    computing = sum(n_weights * known.get(name, 0.0) for name, _, n_weights in read) / board.n_threads
    seconds = max(reading, computing) / ENGINE_SHARE
    if streamed and board.disk_speed is not None:
        seconds = max(seconds, streamed / board.disk_speed)
    return 1 / seconds


Fit = Literal["fits", "streams", "too large"]


def verdict(estimate: Estimate) -> Fit:
    """Whether it fits, runs from the disk, or cannot run."""
    if estimate.fits:
        return "fits"
    return "too large" if estimate.tokens_per_second is None else "streams"
