"""Sequences that are taken out of the engine and put back, and steps whose bits do not depend on how they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.errors import ContextFullError
from iqrun.native import lib
from tests.emulated import n_random
from tests.engine_programs import F16, F32, IQ2_K, IQ3_K, IQ4_KS, Q8_0, Context, NativeProgram, transformer

DECODE, PREFILL = lib.IQ_STEP_DECODE, lib.IQ_STEP_PREFILL


@pytest.fixture(scope="module")
def mixed() -> NativeProgram:
    return NativeProgram(transformer(3, (IQ3_K, IQ4_KS, F32), n_vocab=96))


def tokens_of(seed: int, n: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 96, n).tolist()


@pytest.mark.parametrize("kv_type", [F32, F16, Q8_0])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 150])
def test_imported_state_goes_on_with_the_same_bits(mixed: NativeProgram, kv_type: int, length: int) -> None:
    """Into another context, another sequence, among other blocks, with another n_ctx and number of threads."""
    source, text = Context(mixed, kv_type=kv_type, n_batch=150), tokens_of(length, 150)
    source.step(text)
    data = source.export_state(0, length)
    source.truncate(0, length)
    target = Context(mixed, kv_type=kv_type, n_ctx=320, n_seq=3, n_threads=3)
    target.step(tokens_of(1, 70), 0)
    target.step(tokens_of(2, 70), 2)
    target.truncate(0, 0)
    target.import_state(2, length, data)
    assert target.length(2) == length
    assert np.array_equal(target.step([5], 2), source.step([5], 0))
    assert np.array_equal(target.export_state(2, length), data)


def test_state_layout_is_what_the_header_says(mixed: NativeProgram) -> None:
    """Keys, then values, of each layer as (KV head, position, head_dim), against the numpy engine's cache."""
    from tests.engine_programs import Reference

    text = tokens_of(3, 70)
    model = transformer(4, (F32,))
    context, reference = Context(NativeProgram(model)), Reference(model)
    context.step(text)
    reference.step(text)
    data = context.export_state(0, 70).view(np.float32).reshape(2, 2, 2, 70, 64)  # layer, k or v, head, position
    for layer in range(2):
        for side in range(2):
            expected = reference.cache[layer][side].transpose(1, 0, 2)
            assert np.abs(data[layer, side] - expected).max() < 1e-3


def test_state_of_no_tokens_is_empty(mixed: NativeProgram) -> None:
    """Nothing goes out, and importing nothing empties the sequence."""
    context = Context(mixed)
    context.step([1, 2, 3])
    assert context.export_state(0, 0).size == 0
    context.import_state(0, 0, np.empty(0, np.uint8))
    assert (context.length(), context.kv_free()) == (0, 256)


def test_wrong_sizes_and_sequences_are_refused(mixed: NativeProgram) -> None:
    """Every size but the right one, a sequence or a length that does not exist; nothing is changed."""
    context = Context(mixed)
    context.step(tokens_of(4, 20))
    data = context.export_state(0, 20)
    for size in (0, data.size - 1, data.size + 1):
        with pytest.raises(ValueError, match="has"):
            context.export_state(0, 20, size)
        with pytest.raises(ValueError, match="has"):
            context.import_state(1, 20, np.zeros(size, np.uint8))
    for seq in (-1, 4):
        with pytest.raises(ValueError, match="no sequence"):
            context.import_state(seq, 20, data)
    with pytest.raises(ValueError, match="fewer than 21"):
        context.export_state(0, 21)
    with pytest.raises(ValueError, match="has"):
        context.import_state(0, 2**32 - 1, data)
    assert (context.length(0), context.length(1), context.kv_free()) == (20, 0, 192)


def test_open_step_is_left_alone(mixed: NativeProgram) -> None:
    """Between begin and end sequences are neither read nor replaced."""
    context = Context(mixed)
    context.step([1])
    data = context.export_state(0, 1)
    context.begin([2])
    with pytest.raises(ValueError, match="a step is open"):
        context.export_state(0, 1)
    with pytest.raises(ValueError, match="a step is open"):
        context.import_state(0, 1, data)
    context.end(commit=False)


def test_state_beyond_the_cache_is_refused(mixed: NativeProgram) -> None:
    """What does not fit is IQ_ERR_KV_FULL and changes nothing; the blocks of the replaced sequence count as free."""
    small, large = Context(mixed, n_ctx=128, n_batch=128), Context(mixed, n_ctx=256)
    large.step(tokens_of(5, 120))
    large.step(tokens_of(6, 60))
    data, fits = large.export_state(0, 180), large.export_state(0, 128)
    small.step(tokens_of(7, 100))
    before = small.export_state(0, 100)
    with pytest.raises(ContextFullError, match=r"needs 3 KV blocks of 64 positions, 2 of 2 can be used"):
        small.import_state(0, 180, data)
    assert np.array_equal(small.export_state(0, 100), before)
    with pytest.raises(ContextFullError, match="0 of 2 can be used"):
        small.import_state(1, 128, fits)
    small.import_state(0, 128, fits)
    assert (small.length(), small.kv_free()) == (128, 0)


def test_import_leaves_a_shared_prefix_to_its_other_holder(mixed: NativeProgram) -> None:
    """Replacing one of two sequences that share blocks does not write into them."""
    context = Context(mixed)
    context.step(tokens_of(8, 100))
    data = context.export_state(0, 100)
    context.copy_seq(0, 1, 100)
    context.import_state(1, 100, np.zeros_like(data))
    assert np.array_equal(context.export_state(0, 100), data)


@settings(max_examples=n_random(25), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kv_type=st.sampled_from([F32, F16, Q8_0]))
def test_any_values_are_safe_and_stay_in_their_sequence(mixed: NativeProgram, seed: int, kv_type: int) -> None:
    """Random bytes (NaN, infinities) run; sequences beside them compute what they would without."""
    rng = np.random.default_rng(seed)
    context, text = Context(mixed, kv_type=kv_type), tokens_of(9, 40)
    context.step(text, 1)
    size = lib.iq_seq_state_bytes(context.handle, 50)
    context.import_state(0, 50, rng.integers(0, 256, size, dtype=np.uint8))
    both = context.step([3, 4], [0, 1], [True, True], way=DECODE)
    alone = Context(mixed, kv_type=kv_type)
    alone.step(text, 0)
    assert np.array_equal(both[1], alone.step([4], 0, way=DECODE)[0])


# ---- ways ----


@pytest.mark.parametrize("isa", ["portable", "avx2", "avxvnni", "avx512", "neon", "neon_dotprod", "neon_i8mm"])
def test_decode_way_gives_each_token_its_own_bits(isa: str) -> None:
    """1, 3, 8 or 17 tokens in one step of the decode way: the bits of one by one, on every instruction set."""
    if not lib.iq_isa_runs_here(isa.encode()):
        pytest.skip(f"{isa} does not run here")
    program, text = NativeProgram(transformer(3, (IQ3_K, IQ4_KS, F32)), isa), tokens_of(10, 40)
    one = Context(program)
    expected = np.vstack([one.step([token]) for token in text])
    for n in (3, 8, 17):
        context = Context(program, n_threads=2)
        pieces = [text[first : first + n] for first in range(0, len(text), n)]
        rows = [context.step(piece, 0, [True] * len(piece), way=DECODE) for piece in pieces]
        assert np.array_equal(np.vstack(rows), expected)


@pytest.mark.parametrize("cuts", [[40], [1, 39], [39, 1], [10, 2, 28]])
def test_prefill_way_does_not_depend_on_the_cut(mixed: NativeProgram, cuts: list[int]) -> None:
    """A prompt evaluated in pieces, also of one token, leaves the same bits in the cache and in the logits."""
    text = tokens_of(11, 40)
    whole, context, at = Context(mixed), Context(mixed), 0
    expected = whole.step(text, way=PREFILL)
    for n in cuts:
        row = context.step(text[at : at + n], way=PREFILL)
        at += n
    assert np.array_equal(row, expected)
    assert np.array_equal(context.export_state(0, 40), whole.export_state(0, 40))


@pytest.mark.parametrize("isa", ["portable", "avx2", "avxvnni", "avx512", "neon", "neon_dotprod", "neon_i8mm"])
@pytest.mark.parametrize("n", [29, 64])
def test_prefill_way_has_the_bits_of_many_tokens(isa: str, n: int) -> None:
    """Activations packed by those who write them, and by the matmul that reads them, give the same keys and values."""
    if not lib.iq_isa_runs_here(isa.encode()):
        pytest.skip(f"{isa} does not run here")
    program = NativeProgram(transformer(5, (IQ2_K, IQ3_K, IQ4_KS)), isa)
    packed, plain, text = Context(program, n_threads=2), Context(program), tokens_of(12, n)
    packed.step(text, way=PREFILL)
    plain.step(text)
    assert np.array_equal(packed.export_state(0, n), plain.export_state(0, n))


def test_sequences_of_one_decode_step_are_as_alone(mixed: NativeProgram) -> None:
    """Seven sequences advanced together compute the bits of seven contexts."""
    texts = [tokens_of(20 + i, 10 + i) for i in range(7)]
    together = Context(mixed, n_ctx=512, n_seq=7, n_threads=2)
    flat = [token for text in texts for token in text]
    together.step(flat, [i for i, text in enumerate(texts) for _ in text], way=PREFILL)
    rows = together.step(list(range(7)), list(range(7)), [True] * 7, way=DECODE)
    for i, text in enumerate(texts):
        alone = Context(mixed)
        alone.step(text, way=PREFILL)
        assert np.array_equal(rows[i], alone.step([i])[0])


@pytest.mark.parametrize("way", [-1, 3])
def test_unknown_way_is_refused(mixed: NativeProgram, way: int) -> None:
    """The message names it."""
    with pytest.raises(ValueError, match=f"no way {way}"):
        Context(mixed).step([1], way=way)
