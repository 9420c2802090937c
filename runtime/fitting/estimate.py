"""Memory and speed of a model in each type on a board, and which one to take.

What stays in memory and what is read from the disk is what loading the model would decide (`engine.residency`). A token
reads every weight once, of experts only those that it uses; its operations wait for each other::

    seconds = sum over types (bytes / bytes per second of its kernels) + operations * seconds per operation

What streams is read meanwhile. As long as both go on, each slows down the other: the disk has its speed beside busy
cores, the computing a part of its own. Whatever is not done then goes on alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from iqrun.engine.allocation import N_BATCH, KVType, context_params
from iqrun.engine.residency import context_account, memory_limit, plan_memory, process_bytes
from iqrun.errors import ResourceError
from iqrun.fitting.board import Board
from iqrun.fitting.candidates import Candidate
from iqrun.fitting.quality import DIVERGENCE, quality_class

MIN_N_CTX = 512
PACE = 10.0  # tokens per second: faster than people read
_TAKEN = ("IQ5_K", "IQ5_KS", "IQ4_K", "IQ4_KS", "IQ4_KSS", "IQ3_K", "IQ3_KS", "IQ2_KL", "IQ2_K", "IQ2_KS")
_GOOD = 0.01  # divergence up to which speed counts more than quality

Fit = Literal["fits", "streams", "too large"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A model in one type.

    Attributes:
        type: its name.
        file_bytes: of the file, with the mix of types that a recipe makes of it.
        weight_bytes_per_token: read to generate one token; of experts those that it uses.
        context_bytes: KV cache and buffers for `n_ctx` tokens.
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
    context_bytes: int
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
        n_ctx_max: the largest context that fits (or the model was trained for), in steps of 256; that of `estimate` if
            it does not fit.
        reason: why, in a sentence.
    """

    estimate: Estimate
    n_ctx_max: int
    reason: str


@dataclass(frozen=True)
class Estimator:
    """Estimates for one board.

    Attributes:
        board: the machine.
        kv_type: type of cached keys and values.
        memory: bytes that a process may use, as the option ``--memory`` of other commands; None: what is free.
    """

    board: Board
    kv_type: KVType = "f16"
    memory: int | None = None

    def estimate_all(self, found: Sequence[Candidate], n_ctx: int) -> list[Estimate]:
        """All candidates, from the smallest file to the largest.

        Raises:
            ValueError: `n_ctx` is not at least 1.
        """
        return sorted((self.estimate(one, n_ctx) for one in found), key=lambda estimate: estimate.file_bytes)

    def estimate(self, candidate: Candidate, n_ctx: int) -> Estimate:
        """One candidate."""
        program, params = candidate.native.program, self._params(n_ctx)
        context = self._context(candidate, params)
        limit = self._limit(candidate, context)
        cannot_run, streamed = False, 0
        if limit is not None:
            try:
                streamed = plan_memory(candidate.native, limit, params).streamed
            except ResourceError:
                cannot_run = True
        elif self.memory is None:
            cannot_run = context > self.board.free_memory
        return Estimate(
            type=candidate.type,
            file_bytes=candidate.file_bytes,
            weight_bytes_per_token=program.weight_bytes_per_token,
            context_bytes=context,
            memory_bytes=candidate.file_bytes + context + process_bytes(),
            fits=limit is None and not cannot_run,
            streamed_bytes=streamed,
            tokens_per_second=None if cannot_run else self._speed(candidate, streamed),
            divergence=DIVERGENCE.get(candidate.type),
            quality=quality_class(candidate.type),
            n_ctx=n_ctx,
            kv_type=self.kv_type,
            own=candidate.own,
        )

    def recommend(self, found: Sequence[Candidate], n_ctx: int) -> Recommendation:
        """The type to take: the best one that fits and is faster than people read, else the fastest good one that fits.

        If none fits with this context, one that does with a smaller context; else one that streams faster than people
        read; else the smallest.
        """
        taken = sorted((one for one in found if one.type in _TAKEN), key=lambda one: _TAKEN.index(one.type))
        for context in _contexts(n_ctx):
            fitting = [one for one in taken if self.fits(one, context)]
            if fitting:
                best, reason = _best([(one, self.estimate(one, context)) for one in fitting])
                if context < n_ctx:
                    reason += f"; a context of {n_ctx} does not fit"
                return Recommendation(self.estimate(best, context), self.largest_n_ctx(best), reason)
        for estimate in (self.estimate(one, n_ctx) for one in taken):
            if (estimate.tokens_per_second or 0) >= PACE:
                reason = "no type fits, but this one is read from the disk faster than people read"
                return Recommendation(estimate, n_ctx, reason)
        smallest = self.estimate(min(found, key=lambda one: one.file_bytes), MIN_N_CTX)
        return Recommendation(smallest, MIN_N_CTX, "no type fits into the memory that is free")

    def fits(self, candidate: Candidate, n_ctx: int) -> bool:
        """Whether all of it is in memory."""
        context = self._context(candidate, self._params(n_ctx))
        if self._limit(candidate, context) is not None:
            return False
        return self.memory is not None or context <= self.board.free_memory

    def largest_n_ctx(self, candidate: Candidate) -> int:
        """The largest context, in steps of 256, that fits; at least `MIN_N_CTX`, at most what was trained."""
        low, high = MIN_N_CTX, max(candidate.n_ctx_train, MIN_N_CTX) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(candidate, middle) else (low, middle)
        return low if low in (MIN_N_CTX, candidate.n_ctx_train) else low // 256 * 256

    def _params(self, n_ctx: int) -> Any:
        return context_params(n_ctx, self.board.n_threads, self.kv_type, N_BATCH, n_seq=1)

    def _context(self, candidate: Candidate, params: Any) -> int:
        return context_account(candidate.native, params, self.memory)

    def _limit(self, candidate: Candidate, context: int) -> int | None:
        return memory_limit(candidate.file_bytes, context, self.memory, self.board.free_memory)

    def _speed(self, candidate: Candidate, streamed: int) -> float | None:
        """Tokens per second; None where the disk's speed is not known."""
        board, program = self.board, candidate.native.program
        rates = board.bytes_per_second
        read = program.bytes_by_type()
        seconds = sum(n_bytes / rates.get(name, board.read_bandwidth) for name, n_bytes in read.items())
        seconds += board.op_seconds * len(program.ops)
        if streamed:
            if board.disk_speed is None or board.disk_speed_busy is None:
                return None
            pace, busy, idle = board.speed_beside_disk, board.disk_speed_busy, board.disk_speed
            seconds = _side_by_side(seconds, streamed, pace, busy, idle)
        return 1 / seconds


def _side_by_side(seconds: float, n_bytes: int, pace: float, busy: float, idle: float) -> float:
    """Seconds in which so many seconds of computing and bytes from the disk are done, together until one of them is.

    Args:
        seconds: of computing alone.
        n_bytes: from the disk.
        pace: the part of its speed that computing keeps beside the disk.
        busy: bytes per second of the disk beside computing.
        idle: bytes per second of the disk alone.
    """
    together = min(seconds / pace, n_bytes / busy)
    return together + (seconds - together * pace) + (n_bytes - together * busy) / idle


def verdict(estimate: Estimate) -> Fit:
    """Whether it fits, runs from the disk, or cannot run."""
    if estimate.fits:
        return "fits"
    return "too large" if estimate.tokens_per_second is None else "streams"


def _contexts(n_ctx: int) -> list[int]:
    """The context asked for, and halves of it."""
    contexts = [n_ctx]
    while contexts[-1] // 2 >= MIN_N_CTX:
        contexts.append(contexts[-1] // 2)
    return contexts


def _best(fitting: Sequence[tuple[Candidate, Estimate]]) -> tuple[Candidate, str]:
    """The choice among types that fit, best quality first, and why."""

    def speed(pair: tuple[Candidate, Estimate]) -> float:
        return pair[1].tokens_per_second or 0

    for pair in fitting:
        if speed(pair) >= PACE:
            return pair[0], "the best that fits and is faster than people read"
    good = [pair for pair in fitting if (pair[1].divergence or 0) <= _GOOD]
    if good:
        return max(good, key=speed)[0], "the fastest of the good ones that fit"
    return fitting[0][0], "the best that fits"
