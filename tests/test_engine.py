"""The engine runs programs: right numbers for every batch shape, thread count and cache state, and clear refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from iqrun.errors import CancelledError, ContextFullError, ResourceError, UnsupportedModelError
from iqrun.native import check, ffi, lib
from tests.emulated import EMULATED
from tests.engine_programs import (
    F16,
    F32,
    IQ3_K,
    IQ4_K,
    IQ4_KS,
    IQ5_K,
    OUTPUTS,
    Q8_0,
    TOKENS,
    Context,
    Model,
    NativeProgram,
    Reference,
    float_weight,
    transformer,
)

KV_BLOCK = 64


def tokens_of(seed: int, n: int, n_vocab: int = 96) -> list[int]:
    return np.random.default_rng(seed).integers(0, n_vocab, n).tolist()


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Largest difference against the size of the expected values."""
    return actual.shape == expected.shape and bool(
        np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    )


def similar(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-2) -> bool:
    """Root mean square of the difference, relative. Where activations become int8, a float near the edge of two codes
    may fall to the other side; the noise of such steps is what this allows."""
    rms = np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2))
    return actual.shape == expected.shape and bool(rms <= tolerance)


@pytest.fixture(scope="module")
def small() -> NativeProgram:
    return NativeProgram(transformer(7, n_ff=96, head_dim=16, n_vocab=50))


@pytest.fixture(scope="module")
def mixed() -> NativeProgram:
    """Weights of several types that share inputs: int8 companions in several orders."""
    return NativeProgram(transformer(3, (IQ3_K, IQ4_K, Q8_0, F32, IQ5_K)))


# ---- numbers ----

VARIANTS = {
    "f32": {},
    "f16": {"types": (F16,)},
    "q8_0": {"types": (Q8_0,)},
    "mixed": {"types": (IQ3_K, IQ4_K, Q8_0, F32, IQ5_K, IQ4_KS)},
    "bias": {"types": (Q8_0, F32), "bias": True},
    "qk_norm_halves": {"qk_norm": True, "halves": True},
    "partial_rope": {"n_rot": 24, "halves": True},
    "partial_rope_pairs": {"n_rot": 40},
    "mha": {"n_head": 4, "n_head_kv": 4},
    "mqa": {"n_head": 8, "n_head_kv": 1, "head_dim": 32},
    "odd_sizes": {"n_head": 3, "n_head_kv": 1, "head_dim": 40, "n_ff": 70, "n_vocab": 51},
    "odd_quantized": {"types": (Q8_0,), "n_head": 5, "n_head_kv": 1, "head_dim": 32, "n_ff": 288, "n_vocab": 77},
    "wide_heads": {"n_head": 2, "n_head_kv": 2, "head_dim": 136},
}


@pytest.mark.parametrize("kv_type", [F32, F16, Q8_0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_step_computes_what_the_program_says(variant: str, kv_type: int) -> None:
    """Prefill across KV blocks, decode, a second prefill: the logits of all tokens match numpy."""
    model = transformer(11, **VARIANTS[variant])
    context, reference = Context(NativeProgram(model), kv_type=kv_type, n_threads=2), Reference(model, kv_type)
    for seed, n in enumerate([70, 1, 1, 66, 3]):
        tokens = tokens_of(seed, n, model.n_vocab)
        want = [True] * n
        got, expected = context.step(tokens, 0, want), reference.step(tokens, want)
        if "types" in VARIANTS[variant]:
            assert similar(got, expected, 4e-2 if kv_type == Q8_0 else 2e-2)
        else:  # a K or V at the edge between two values of the cache may round the other way
            assert close(got, expected, {F32: 1e-4, F16: 4e-3, Q8_0: 4e-2}[kv_type])
    assert context.length() == 141


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_op_computes_what_it_says(variant: str) -> None:
    """Op by op, from the engine's own inputs, numpy finds the engine's outputs: nothing hides behind int8 noise."""
    model = transformer(5, **VARIANTS[variant])
    tokens, want = tokens_of(1, 9, model.n_vocab), [True, False] * 4 + [True]
    context, reference = Context(NativeProgram(model), n_threads=2), Reference(model)
    context.begin(tokens, 0, want)
    reference.start(tokens, want)
    for i, op in enumerate(model.ops):
        context.run(i, i + 1)
        reference.run(op)
        for dst in op["dst"]:
            got = context.buffer(dst)
            assert close(got, reference.buffers[dst], 3e-5), f"op {i} ({op['kind']})"
            reference.buffers[dst] = got.astype(np.float64)
    context.end(commit=True)
    assert context.length() == 9


def test_wanted_rows_are_those_asked_for(small: NativeProgram) -> None:
    """`want` picks rows; without it there is the last; with none wanted the cache still grows."""
    tokens = tokens_of(2, 20, 50)
    everything = Context(small).step(tokens, 0, [True] * 20)
    want = np.random.default_rng(0).random(20) < 0.4
    assert np.array_equal(Context(small).step(tokens, 0, want), everything[want])
    assert np.array_equal(Context(small).step(tokens), everything[-1:])
    context = Context(small)
    assert context.step(tokens[:-1], 0, [False] * 19).shape == (0, 50)
    assert close(context.step(tokens[-1:]), everything[-1:])


@pytest.mark.parametrize("split", [[1] * 100, [64, 36], [63, 1, 1, 35], [7] * 14 + [2], [99, 1]])
def test_batch_splits_agree(small: NativeProgram, mixed: NativeProgram, split: list[int]) -> None:
    """However the tokens are cut into steps, the logits agree."""
    tokens = tokens_of(4, 100, 50)
    for program, agree in ((small, close), (mixed, similar)):
        whole = Context(program).step(tokens, 0, [True] * 100)
        context, parts, at = Context(program), [], 0
        for n in split:
            parts.append(context.step(tokens[at : at + n], 0, [True] * n))
            at += n
        assert agree(np.vstack(parts), whole)


def test_decode_is_reproducible(mixed: NativeProgram) -> None:
    """The same steps give the same bits: in a new context, and after truncating to the start."""
    tokens = tokens_of(5, 80)

    def run(context: Context) -> np.ndarray:
        return np.vstack([context.step(tokens[:40])] + [context.step([t]) for t in tokens[40:]])

    context = Context(mixed, n_threads=2)
    first = run(context)
    context.truncate(0, 0)
    assert np.array_equal(run(context), first)
    assert np.array_equal(run(Context(mixed, n_threads=2)), first)


@pytest.mark.parametrize("n_threads", [2, 3, 4, 7])
def test_thread_count_does_not_change_a_bit(n_threads: int) -> None:
    """1 to many threads: equal bits in prefill, small batches and decode, for few and for many chunks per stage."""
    program = NativeProgram(transformer(3, (IQ3_K, IQ4_K, F32), n_head=8, n_head_kv=2, n_ff=1536, n_vocab=1000))
    tokens = tokens_of(6, 150, 1000)

    def run(n: int) -> np.ndarray:
        context = Context(program, n_threads=n, n_batch=150)
        out = [context.step(tokens[:130], 0, [True] * 130), context.step(tokens[130:133], 0, [True] * 3)]
        return np.vstack(out + [context.step([t]) for t in tokens[133:]])

    assert np.array_equal(run(n_threads), run(1))


# ---- sequences ----


def test_sequences_in_one_batch_do_not_mix(small: NativeProgram) -> None:
    """Tokens of three sequences, interleaved in any way, give what each gives alone."""
    rng, lengths = np.random.default_rng(8), [70, 5, 30]
    texts = [tokens_of(20 + i, n, 50) for i, n in enumerate(lengths)]
    alone = [Context(small).step(text, 0, [True] * len(text)) for text in texts]
    order = rng.permutation(np.repeat(np.arange(3), lengths))
    context, cursor, got = Context(small, n_threads=2), [0, 0, 0], [[], [], []]
    for seqs in np.split(order, [1, 50, 52]):
        batch = []
        for s in seqs:
            batch.append(texts[s][cursor[s]])
            cursor[s] += 1
        for s, row in zip(seqs, context.step(batch, seqs.tolist(), [True] * len(seqs)), strict=True):
            got[s].append(row)
    for s in range(3):
        assert close(np.array(got[s]), alone[s])
        assert context.length(s) == lengths[s]


@pytest.mark.parametrize("prefix", [0, 1, 63, 64, 65, 100, 128])
def test_copies_share_a_prefix_and_part_ways(small: NativeProgram, prefix: int) -> None:
    """A copy continues as its source would have; each is blind to what the other appends."""
    tokens, a, b = tokens_of(9, 128, 50), tokens_of(10, 5, 50), tokens_of(11, 5, 50)
    context = Context(small)
    context.step(tokens)
    context.copy_seq(0, 1, prefix)
    context.truncate(0, prefix)
    together = context.step(a + b, [0] * 5 + [1] * 5, [True] * 10)
    for part, text in ((together[:5], a), (together[5:], b)):
        alone = Context(small, n_batch=160)
        expected = alone.step(tokens[:prefix] + text, 0, [False] * prefix + [True] * 5)
        assert close(part, expected)
    assert context.length(0) == context.length(1) == prefix + 5


def test_shared_blocks_cost_nothing_and_come_back(small: NativeProgram) -> None:
    """Whole blocks are shared, a part block is copied; truncating gives blocks back when the last holder lets go."""
    context = Context(small, n_ctx=6 * KV_BLOCK)
    context.step(tokens_of(1, 100, 50))
    assert context.kv_free() == 4 * KV_BLOCK
    context.copy_seq(0, 1, 100)
    assert context.kv_free() == 3 * KV_BLOCK
    context.copy_seq(0, 2, KV_BLOCK)
    assert context.kv_free() == 3 * KV_BLOCK
    context.truncate(0, 0)
    assert context.kv_free() == 4 * KV_BLOCK
    context.truncate(1, 10)
    assert context.kv_free() == 5 * KV_BLOCK
    context.step([1], 1)  # its block is shared with sequence 2: written to a copy
    assert context.kv_free() == 4 * KV_BLOCK
    for seq in (1, 2):
        context.truncate(seq, 0)
    assert context.kv_free() == 6 * KV_BLOCK


def test_copy_replaces_what_was_there(small: NativeProgram) -> None:
    """The destination's old tokens are dropped, and their blocks may serve the copy itself."""
    context = Context(small, n_ctx=2 * KV_BLOCK)
    text = tokens_of(1, 10, 50)
    context.step(text, 0)
    context.step(tokens_of(2, 30, 50), 1)
    context.copy_seq(0, 1, 7)
    expected = Context(small).step([*text[:7], 3])
    assert close(context.step([3], 1), expected)
    context.copy_seq(1, 1, 4)
    assert context.length(1) == 4


def test_random_histories_match_their_tokens(small: NativeProgram) -> None:
    """Steps, copies and truncations at random, with a cache that is often full: every sequence always continues as its
    tokens say, and the free blocks are those that no sequence holds."""
    rng, n_seq = np.random.default_rng(12), 4
    context = Context(small, n_ctx=5 * KV_BLOCK, n_seq=n_seq, n_threads=2)
    texts: list[list[int]] = [[] for _ in range(n_seq)]
    n_refused = 0
    for _ in range(150):
        action, s, d = rng.integers(0, 4), int(rng.integers(n_seq)), int(rng.integers(n_seq))
        before = (context.kv_free(), [context.length(i) for i in range(n_seq)])
        try:
            if action == 0 and texts[s]:
                n = int(rng.integers(len(texts[s]) + 1))
                context.truncate(s, n)
                texts[s] = texts[s][:n]
            elif action == 1:
                n = int(rng.integers(len(texts[s]) + 1))
                context.copy_seq(s, d, n)
                texts[d] = texts[s][:n]
            else:
                seqs = rng.integers(0, n_seq, int(rng.integers(1, 70))).tolist()
                tokens = rng.integers(0, 50, len(seqs)).tolist()
                logits = context.step(tokens, seqs)
                for token, seq in zip(tokens, seqs, strict=True):
                    texts[seq].append(token)
                assert close(logits, Context(small, n_ctx=512, n_batch=512).step(texts[seqs[-1]]))
        except ContextFullError:
            n_refused += 1
            assert before == (context.kv_free(), [context.length(i) for i in range(n_seq)])
        assert [context.length(i) for i in range(n_seq)] == [len(text) for text in texts]
    assert 5 < n_refused < 100
    for s in range(n_seq):
        context.truncate(s, 0)
    assert context.kv_free() == 5 * KV_BLOCK


def test_full_cache_changes_nothing(small: NativeProgram) -> None:
    """A step that does not fit is refused whole; after truncating, the sequence goes on as if it had not been tried."""
    context = Context(small, n_ctx=100, n_seq=2)  # rounded up to 2 blocks
    tokens = tokens_of(1, 60, 50)
    context.step(tokens, 0)
    with pytest.raises(ContextFullError, match="needs 2 free KV blocks of 64 positions, 1 of 2 are free"):
        context.step(tokens_of(2, 10, 50), [0, 1] * 5)
    assert (context.length(0), context.length(1), context.kv_free()) == (60, 0, KV_BLOCK)
    expected = Context(small)
    expected.step(tokens)
    assert np.array_equal(context.step([5] * 68), expected.step([5] * 68))
    with pytest.raises(ContextFullError):
        context.step([1])
    with pytest.raises(ContextFullError, match="copying 3 tokens"):
        context.copy_seq(0, 1, 3)
    context.copy_seq(0, 1, KV_BLOCK)
    assert context.length(1) == KV_BLOCK


def test_two_extended_copies_need_one_block_fewer_than_two(small: NativeProgram) -> None:
    """Of two sequences that share a begun block and are extended at once, one keeps it."""
    context = Context(small, n_ctx=2 * KV_BLOCK, n_seq=2)
    tokens = tokens_of(3, 64, 50)
    context.step(tokens, 0)
    context.copy_seq(0, 1, 64)
    context.truncate(0, 40)
    context.truncate(1, 40)
    assert context.kv_free() == KV_BLOCK
    got = context.step([1, 2], [0, 1], [True, True])
    assert context.kv_free() == 0
    for row, token in zip(got, (1, 2), strict=True):
        assert close(row[None], Context(small).step([*tokens[:40], token]))


# ---- steps in parts ----


def test_parts_of_a_step_equal_the_whole(mixed: NativeProgram) -> None:
    """begin, run in any pieces, end: the bits of iq_step."""
    tokens, n_op = tokens_of(1, 30), len(mixed.model.ops)
    expected = Context(mixed, n_threads=2).step(tokens)
    context = Context(mixed, n_threads=2)
    context.begin(tokens)
    for first, last in ((0, 1), (1, 1), (1, 9), (9, n_op)):
        context.run(first, last)
    assert np.array_equal(context.buffer(mixed.model.output), expected)
    assert context.length() == 0
    context.end(commit=True)
    assert context.length() == 30


@pytest.mark.parametrize("n_run", [0, 5, None])
def test_uncommitted_steps_leave_no_trace(mixed: NativeProgram, n_run: int | None) -> None:
    """end without commit, or before the last attention ran, forgets the batch."""
    context, tokens = Context(mixed), tokens_of(2, 70)
    context.step(tokens)
    before = context.kv_free()
    context.begin(tokens_of(3, 20))
    context.run(0, len(mixed.model.ops) if n_run is None else n_run)
    context.end(commit=n_run is not None)
    assert (context.length(), context.kv_free()) == (70, before)
    expected = Context(mixed)
    expected.step(tokens)
    assert np.array_equal(context.step([1]), expected.step([1]))


def test_commit_needs_only_the_attention_ops(small: NativeProgram) -> None:
    """Once every layer has cached the batch it may be kept: prefill without logits."""
    last = max(i for i, op in enumerate(small.model.ops) if op["kind"] == "attention")
    context = Context(small)
    context.begin(tokens_of(1, 10, 50))
    context.run(0, last + 1)
    context.end(commit=True)
    assert context.length() == 10


def test_misuse_of_steps_is_refused(small: NativeProgram) -> None:
    """Calls out of order are errors with a reason, and do not disturb what is going on."""
    context = Context(small)
    context.end(commit=True)
    with pytest.raises(ValueError, match="no step is open: call iq_step_begin"):
        context.run(0, 1)
    context.begin([1, 2])
    for call in (lambda: context.begin([1]), lambda: context.step([1])):
        with pytest.raises(ValueError, match="a step is open: call iq_step_end"):
            call()
    for first, last in ((1, 2), (0, len(small.model.ops) + 1)):
        with pytest.raises(ValueError, match="ops run in order"):
            context.run(first, last)
    context.run(0, 3)
    with pytest.raises(ValueError, match=r"the next op is 3 of \d+"):
        context.run(2, 4)
    for change in (lambda: context.truncate(0, 0), lambda: context.copy_seq(0, 1, 0)):
        with pytest.raises(ValueError, match="a step is open"):
            change()
    context.run(3, len(small.model.ops))
    context.end(commit=True)
    assert context.length() == 2


def test_buffers_can_be_read_and_bad_indices_not(small: NativeProgram) -> None:
    """A buffer has a row per token or per wanted output; an index outside the program gives NULL."""
    context = Context(small)
    context.begin([1, 2, 3], 0, [True, False, True])
    context.run(0, len(small.model.ops))
    assert context.buffer(0).shape == (3, 64)
    assert context.buffer(small.model.output).shape == (2, 50)
    for index in (-1, len(small.model.buffers), 2**31 - 1):
        assert lib.iq_context_buffer(context.handle, index, ffi.NULL, ffi.NULL) == ffi.NULL
    context.end(commit=False)


BAD_BATCHES: dict[str, tuple[Callable[[Context], Any], str]] = {
    "no tokens": (lambda c: c.step([], 0, []), "at least one token"),
    "too many": (lambda c: c.step([1] * 129), "has 129 tokens, n_batch is 128: split it"),
    "negative id": (lambda c: c.step([0, -1]), "token 1 of the batch has the id -1, the vocabulary has 50"),
    "big id": (lambda c: c.step([50]), "token 0 of the batch has the id 50"),
    "negative sequence": (lambda c: c.step([1], [-1]), "for sequence -1, there are 4"),
    "big sequence": (lambda c: c.step([1, 1], [0, 4]), "token 1 of the batch is for sequence 4"),
    "no output": (lambda c: check(lib.iq_step, c.handle, c.batch([1]), ffi.NULL), "no place for 1 outputs"),
    "no batch": (lambda c: check(lib.iq_step, c.handle, ffi.NULL, ffi.NULL), "at least one token"),
    "no context": (lambda c: check(lib.iq_step, ffi.NULL, c.batch([1]), ffi.NULL), "there is no context"),
    "long truncate": (lambda c: c.truncate(0, 4), "sequence 0 has 3 tokens, fewer than 4"),
    "truncate nothing": (lambda c: c.truncate(-1, 0), "there is no sequence -1"),
    "copy from nowhere": (lambda c: c.copy_seq(4, 0, 0), "there is no sequence 4"),
    "copy to nowhere": (lambda c: c.copy_seq(0, 9, 0), "there is no sequence 9"),
    "long copy": (lambda c: c.copy_seq(0, 1, 4), "sequence 0 has 3 tokens"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batches_are_refused(small: NativeProgram, name: str) -> None:
    """Every mistake in a batch or a sequence call is named, and the context is as before."""
    call, message = BAD_BATCHES[name]
    context = Context(small)
    context.step([1, 2, 3])
    with pytest.raises(ValueError, match=message):
        call(context)
    assert (context.length(), context.kv_free()) == (3, 3 * KV_BLOCK)
    assert (context.length(-1), context.length(4)) == (0, 0)
    context.step([4])


# ---- threads ----


def slow_program() -> NativeProgram:
    return NativeProgram(transformer(1, (Q8_0, F32), n_layer=4, n_head=8, n_head_kv=2, n_ff=1024, n_vocab=1000))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_cancel_stops_a_step_and_nothing_is_kept(n_threads: int) -> None:
    """Cancelled at any moment from another thread, a step ends and the sequence is as before; a later step gives the
    bits that it gives in a context where nothing was cancelled."""
    program, params = slow_program(), {"n_ctx": 512, "n_batch": 200}
    tokens, more = tokens_of(1, 20, 1000), tokens_of(2, 120, 1000)
    undisturbed, context = Context(program, **params), Context(program, **params, n_threads=n_threads)
    for each in (undisturbed, context):
        each.step(tokens)
    start = time.monotonic()
    expected = undisturbed.step(more)
    seconds, before, n_cancelled = time.monotonic() - start, context.kv_free(), 0
    for moment in np.linspace(0.02, 0.9, 20):
        timer = threading.Timer(seconds * moment / n_threads, lib.iq_context_cancel, [context.handle])
        timer.start()
        try:
            context.step(more)
        except CancelledError as error:
            n_cancelled += 1
            assert str(error) == "the step was cancelled"
            assert (context.length(), context.kv_free()) == (20, before)
        timer.join()
        context.truncate(0, 20)
    assert n_cancelled > 5
    assert np.array_equal(context.step(more), expected)


def test_cancel_between_parts_ends_the_step(small: NativeProgram) -> None:
    """After a cancel no further op of the step runs and it cannot be kept; without a running step it means nothing."""
    context = Context(small)
    lib.iq_context_cancel(context.handle)
    context.step([1])
    context.begin([1])
    lib.iq_context_cancel(context.handle)
    for _ in range(2):
        with pytest.raises(CancelledError):
            context.run(0, len(small.model.ops))
    context.end(commit=True)
    assert context.length() == 1
    lib.iq_context_cancel(ffi.NULL)


def test_a_context_serves_one_caller_at_a_time() -> None:
    """A second thread's call during a step is refused, not queued, and does no harm."""
    program = slow_program()
    tokens = tokens_of(1, 200, 1000)
    context, results, refusals = Context(program, n_ctx=512, n_batch=200), [], []
    expected = Context(program, n_ctx=512, n_batch=200).step(tokens)
    thread = threading.Thread(target=lambda: results.append(context.step(tokens)))
    thread.start()
    while thread.is_alive():
        error = ffi.new("iq_error *")
        if lib.iq_seq_truncate(context.handle, 0, 0, error) != lib.IQ_OK:
            refusals.append(ffi.string(error.text).decode())
    thread.join()
    assert any("in use by another thread" in text for text in refusals)
    assert np.array_equal(results[0], expected)


def test_many_more_threads_than_cores_still_finish(mixed: NativeProgram) -> None:
    """64 threads on any machine: the same bits, in sane time."""
    tokens = tokens_of(1, 100)
    expected, context = Context(mixed), Context(mixed, n_threads=64)
    start = time.monotonic()
    for part in (tokens[:60], *([t] for t in tokens[60:])):
        assert np.array_equal(context.step(part), expected.step(part))
    assert time.monotonic() - start < 20


def test_idle_threads_cost_nothing(small: NativeProgram) -> None:
    """After a step the workers go to sleep: no processor time passes while nobody asks for anything."""
    context = Context(small, n_threads=4)
    context.step([1, 2, 3])
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.04


def test_contexts_of_one_program_run_in_parallel(mixed: NativeProgram) -> None:
    """A program is shared; contexts in several threads do not disturb each other."""
    tokens = tokens_of(1, 60)
    expected = Context(mixed).step(tokens)
    results: list[np.ndarray] = []

    def work() -> None:
        results.extend(Context(mixed, n_threads=2).step(tokens) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 15
    assert all(np.array_equal(result, expected) for result in results)


def run_python(code: str) -> str:
    """Output of a script in a process of its own, with the tests' engine at hand."""
    script = "from tests.engine_programs import *\nfrom iqrun.errors import *\n" + code
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=paths, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux" or EMULATED, reason="limits the address space, which emulators do not")
def test_refused_threads_are_an_error() -> None:
    """When the system gives no more threads, the context is refused and those already started are gone."""
    code = """
import os, resource
program = NativeProgram(transformer(1))
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 29), used + (2 << 29)))
try:
    Context(program, n_threads=500)
except (ResourceError, MemoryError) as error:
    print(type(error).__name__, error)
print(len(os.listdir("/proc/self/task")))
Context(program, n_threads=2).step([1, 2])
"""
    message, n_tasks = run_python(code).splitlines()
    assert "refused thread" in message or "no memory" in message
    assert int(n_tasks) < 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_hangs_nor_crashes() -> None:
    """The workers stay behind in the parent: the child computes alone, with the same result, and frees the context."""
    code = """
import os
context = Context(NativeProgram(transformer(1)), n_threads=4)
context.step([1, 2])
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, context.step([3]).tobytes())
    ffi.release(context.handle)
    os._exit(0)
expected = context.step([3]).tobytes()
print(os.waitpid(child, 0)[1], os.read(read, 10**6) == expected)
"""
    assert run_python(code).split() == ["0", "True"]


def test_profile_counts_ops_while_it_is_on(small: NativeProgram) -> None:
    """Seconds add up per op while enabled, and the sum stays below the wall clock."""
    context, n_op = Context(small, n_threads=2), len(small.model.ops)
    seconds = np.zeros(n_op)
    context.step([1])
    lib.iq_context_profile(context.handle, ffi.from_buffer("double[]", seconds))
    assert not seconds.any()
    lib.iq_context_profile_reset(context.handle, 1)
    start = time.perf_counter()
    for _ in range(5):
        context.step(tokens_of(1, 20, 50))
    wall = time.perf_counter() - start
    lib.iq_context_profile(context.handle, ffi.from_buffer("double[]", seconds))
    assert (seconds > 0).all()
    assert seconds.sum() <= wall
    lib.iq_context_profile_reset(context.handle, 0)
    context.step([1])
    lib.iq_context_profile(context.handle, ffi.from_buffer("double[]", seconds))
    assert not seconds.any()


# ---- refusals ----


def op_of(model: Model, kind: str, nth: int = 0) -> dict[str, Any]:
    return [op for op in model.ops if op["kind"] == kind][nth]


def set_op(kind: str, /, **fields: Any) -> Callable[[Model], None]:
    return lambda model: op_of(model, kind).update(fields)


def set_slot(kind: str, name: str, slot: int, value: int) -> Callable[[Model], None]:
    return lambda model: op_of(model, kind)[name].__setitem__(slot, value)


def widen(kind: str, name: str, slot: int) -> Callable[[Model], None]:
    """The op gets a buffer of its own there, one column wider."""

    def change(model: Model) -> None:
        n_cols, domain = model.buffers[op_of(model, kind)[name][slot]]
        op_of(model, kind)[name][slot] = model.buffer(n_cols + 1, domain)

    return change


def unwritten(kind: str, name: str, slot: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        op_of(model, kind)[name][slot] = model.buffer(*model.buffers[op_of(model, kind)[name][slot]])

    return change


def set_domain(kind: str, name: str, slot: int, domain: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        n_cols = model.buffers[op_of(model, kind)[name][slot]][0]
        op_of(model, kind)[name][slot] = model.buffer(n_cols, domain)

    return change


def vector_of(kind: str, name: str, slot: int, weight: np.ndarray | None) -> Callable[[Model], None]:
    """Puts another vector in the weight's place; None: the embedding, which is not F32 in the test model."""

    def change(model: Model) -> None:
        index = model.ops[0]["weight"][0] if weight is None else model.weight(float_weight(weight))
        values = op_of(model, kind)[name]
        values[slot:] = [index]

    return change


def change_ops(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Model], None]:
    return lambda model: change(model.ops) and None


BAD_PROGRAMS: dict[str, tuple[Callable[[Model], Any], str]] = {
    "unknown kind": (set_op("add", kind=99), r"op \d+ \(unknown\): there is no op of kind 99"),
    "negative kind": (set_op("add", kind=-1), "no op of kind -1"),
    "dst index": (set_slot("embed", "dst", 0, 99), r"op 0 \(embed\): dst0 is buffer 99, the program has 11"),
    "dst missing": (set_slot("rms_norm", "dst", 0, -1), "dst0 is buffer -1"),
    "src index": (set_slot("matmul", "src", 0, 99), r"op 3 \(matmul\): src0 is buffer 99"),
    "weight index": (set_slot("matmul", "weight", 2, 77), r"weight2 is weight 77, the program has"),
    "weight missing": (set_slot("embed", "weight", 0, -1), "weight0 is weight -1"),
    "bias index": (vector_of("matmul", "bias", 0, np.zeros(5)), "bias0 .* 256 are needed"),
    "norm length": (vector_of("rms_norm", "weight", 0, np.zeros(5)), "weight0 .* has 1 x 5 values, 256 are needed"),
    "norm type": (vector_of("rms_norm", "weight", 0, None), "must be F32, not type 8"),
    "norm groups": (set_op("rms_norm", head_dim=100), "head_dim 100 must divide the 256 columns"),
    "norm no groups": (set_op("rms_norm", head_dim=0), "head_dim 0 must divide"),
    "norm eps": (set_op("rms_norm", f=-1.0), "eps"),
    "norm nan": (set_op("rms_norm", f=float("nan")), "not a finite number"),
    "norm width": (widen("rms_norm", "dst", 0), "has 257 columns, 256 are needed"),
    "norm domain": (set_domain("rms_norm", "dst", 0, OUTPUTS), "must have a row per token"),
    "embed width": (widen("embed", "dst", 0), "has 257 columns, 256 are needed"),
    "embed inf": (set_op("embed", f=float("inf")), "not a finite number"),
    "vocabulary": (lambda m: setattr(m, "n_vocab", 97), "weight0 has 96 rows, the vocabulary has 97 tokens"),
    "no vocabulary": (lambda m: setattr(m, "n_vocab", 0), "a vocabulary of 0 tokens"),
    "matmul n 0": (set_op("matmul", n=0), "n is 0, 1 to 4 weights are possible"),
    "matmul n 5": (set_op("matmul", n=5), "n is 5"),
    "matmul width": (widen("matmul", "dst", 1), "dst1 .* has 129 columns, 128 are needed"),
    "matmul twice": (
        lambda m: op_of(m, "matmul")["dst"].__setitem__(2, op_of(m, "matmul")["dst"][1]),
        "the same buffer",
    ),
    "matmul in place": (lambda m: op_of(m, "matmul").update(src=op_of(m, "matmul")["dst"][:1]), "src0|sources"),
    "matmul unwritten": (unwritten("matmul", "src", 0), "is read before any op writes it"),
    "matmul add unwritten": (set_op("matmul", flags=1), "is changed before any op fills it"),
    "gate n": (set_op("gated_matmul", n=1), "a gate and an up weight are needed"),
    "gate width": (widen("gated_matmul", "dst", 0), "has 513 columns, 512 are needed"),
    "rope odd": (set_op("rope", n_rot=63), "n_rot is 63"),
    "rope long": (set_op("rope", n_rot=66), "n_rot is 66, an even number up to head_dim 64"),
    "rope heads": (set_op("rope", head_dim=96), "head_dim 96 must divide the 256 columns"),
    "rope no heads": (set_op("rope", head_dim=0), "n_rot is 64"),
    "rope table width": (set_op("rope", n_rot=32), "src0 .* has 64 columns, 32 are needed"),
    "table odd": (set_op("rope_table", n_rot=3), "n_rot is 3"),
    "table frequencies": (vector_of("rope_table", "weight", 0, np.ones(31)), "32 are needed"),
    "head_dim": (set_op("attention", head_dim=60), "head_dim is 60, a multiple of 8 up to 512"),
    "head_dim big": (set_op("attention", head_dim=520), "head_dim is 520"),
    "heads": (set_op("attention", n_head_kv=3), "n_head 4 must be a multiple of n_head_kv 3"),
    "no heads": (set_op("attention", n_head_kv=0), "n_head_kv 0"),
    "head count": (set_op("attention", n_head=8), "src0 .* has 256 columns, 512 are needed"),
    "overflowing heads": (set_op("attention", n_head=2**30, n_head_kv=2), "columns"),
    "attention k width": (widen("attention", "src", 1), "src1|before any op"),
    "attention out width": (widen("attention", "dst", 0), "has 257 columns"),
    "attention in place": (lambda m: op_of(m, "attention").update(dst=op_of(m, "attention")["src"][:1]), "sources"),
    "layer": (set_op("attention", layer=2), "layer is 2, the KV cache has 2"),
    "no layer": (set_op("attention", layer=-1), "layer is -1"),
    "layer twice": (set_op("attention", layer=1), "layer 1 of the KV cache is already used"),
    "unused layer": (lambda m: setattr(m, "n_layer", 3), "no attention op uses layer 2"),
    "many layers": (lambda m: setattr(m, "n_layer", 2**32 - 1), "4294967295 layers of KV cache"),
    "attention scale": (set_op("attention", f=float("nan")), "not a finite number"),
    "select source": (lambda m: op_of(m, "select").update(src=op_of(m, "select")["dst"]), "must have a row per token"),
    "select width": (widen("select", "dst", 0), "has 257 columns"),
    "add itself": (lambda m: op_of(m, "add").update(src=op_of(m, "add")["dst"]), "one of its sources"),
    "add width": (widen("add", "src", 0), "src0|before any op"),
    "output index": (lambda m: setattr(m, "output", 50), "the output is buffer 50, the program has 11"),
    "output domain": (lambda m: setattr(m, "output", 0), "must have a row per output"),
    "output unwritten": (lambda m: setattr(m, "output", m.buffer(8, OUTPUTS)), "and be filled"),
    "buffer empty": (lambda m: m.buffer(0), "buffer 11 has no columns"),
    "buffer domain": (lambda m: m.buffer(8, 2), "buffer 11 has the unknown row domain 2"),
    "no ops": (lambda m: m.ops.clear(), "needs ops, buffers and weights"),
}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
def test_bad_programs_are_refused(name: str) -> None:
    """Every index, shape and number of a program is checked before anything runs; the sentence says where and what."""
    change, message = BAD_PROGRAMS[name]
    model = transformer(0, (Q8_0,)).copy()
    NativeProgram(model)
    change(model)
    with pytest.raises(ValueError, match=message):
        NativeProgram(model)


def test_bad_weights_are_refused() -> None:
    """Types that cannot be multiplied, sizes that cannot be, missing data."""
    model = transformer(0)
    spec_weights = model.weights
    model.weights = list(spec_weights)
    broken = float_weight(np.ones((4, 4)))
    broken.type_id = 999
    model.weights.append(broken)
    with pytest.raises(UnsupportedModelError, match=r"weight \d+ has the unknown type 999"):
        NativeProgram(model)
    broken.type_id = IQ3_K  # 4 columns are not a superblock
    with pytest.raises(ValueError, match=r"weight \d+ cannot have 4 rows of 4 columns of type 138"):
        NativeProgram(model)


BAD_PARAMETERS: dict[str, tuple[dict[str, int], type[Exception], str]] = {
    "no context": ({"n_ctx": 0}, ValueError, "must be at least 1"),
    "huge context": ({"n_ctx": 2**32 - 1}, ValueError, "n_ctx below 2"),
    "no batch": ({"n_batch": 0}, ValueError, "must be at least 1"),
    "no sequence": ({"n_seq": 0}, ValueError, "must be at least 1"),
    "no thread": ({"n_threads": 0}, ValueError, "n_threads is 0, 1 to 512"),
    "many threads": ({"n_threads": 513}, ValueError, "n_threads is 513"),
    "cache type": ({"kv_type": IQ3_K}, UnsupportedModelError, "cannot store type 138"),
    "much memory": ({"n_ctx": 2**31 - 100}, MemoryError, r"needs \d+\.\d GiB, this machine has"),
    "overflow": ({"n_ctx": 2**31 - 100, "n_batch": 2**32 - 1, "n_seq": 2**32 - 1}, MemoryError, "GiB"),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_impossible_contexts_are_refused(small: NativeProgram, name: str) -> None:
    """Parameters out of range, and sizes that this machine does not have, are refused before anything is allocated."""
    params, error, message = BAD_PARAMETERS[name]
    with pytest.raises(error, match=message):
        Context(small, **params)


def test_context_bytes_tell_what_is_allocated(small: NativeProgram) -> None:
    """The KV cache grows by its exact bytes with n_ctx; nonsense gives the largest number."""

    def size(n_ctx: int, kv_type: int = F32, n_batch: int = 8) -> int:
        return int(lib.iq_context_bytes(small.handle, ffi.new("iq_context_params *", [n_ctx, n_batch, 1, 1, kv_type])))

    per_block = 2 * 2 * 2 * 16 * KV_BLOCK  # layers, K and V, KV heads, head_dim
    tables = (4 + 4 + 4) * 1000  # free list, references, table
    assert abs(size(64 * 1001) - size(64) - (per_block * 4 + 12) * 1000) <= 512
    assert abs(size(64 * 1001, F16) - size(64, F16) - per_block * 2 * 1000 - tables) <= 512
    assert size(65) > size(64)
    assert size(1) == size(64)
    assert size(64, IQ3_K) == size(0) == 2**64 - 1
    assert size(2**31 - 100, n_batch=2**32 - 1) > 2**40


def test_programs_without_attention_run() -> None:
    """A program may have no KV layer: sequences still count their tokens."""
    rng = np.random.default_rng(0)
    model = Model(n_vocab=10)
    x, chosen, model.output = model.buffer(24), model.buffer(24, OUTPUTS), model.buffer(7, OUTPUTS)
    model.op("embed", [x], weight=[model.weight(float_weight(rng.normal(size=(10, 24))))], f=2.0)
    model.op("rms_norm", [x], [x], head_dim=8, f=1e-6)  # in place, no weight
    model.op("select", [chosen], [x])
    model.op("matmul", [model.output], [chosen], [model.weight(float_weight(rng.normal(size=(7, 24))))])
    for op in model.ops:
        if op["kind"] == "rms_norm":
            op["weight"] = []
    context = Context(NativeProgram(model), n_threads=2)
    tokens = [3, 1, 4, 1, 5]
    assert close(context.step(tokens, 0, [True] * 5), Reference(model).step(tokens, [True] * 5))
    assert context.length() == 5
    assert TOKENS == lib.IQ_ROWS_TOKENS and OUTPUTS == lib.IQ_ROWS_OUTPUTS
    assert issubclass(ContextFullError, ResourceError)
