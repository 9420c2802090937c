"""Sessions as bytes: what is saved comes back with the same bits, and anything else is refused in one sentence."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import iqrun
from iqrun.engine import state
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.errors import ContextFullError, StateError
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from tests.emulated import n_random
from tests.gguf_builder import tiny_llama

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
IDS = [1, *range(300, 390)]


@pytest.fixture(scope="module")
def demo() -> Iterator[NativeProgram]:
    with GGUFFile(DEMO) as file:
        yield NativeProgram(build_program(file))


@pytest.fixture(scope="module")
def saved(demo: NativeProgram) -> bytes:
    """The state after `IDS`."""
    with Session(demo, n_ctx=256, n_threads=1) as session:
        session.evaluate(IDS)
        return session.save_state()


@pytest.fixture
def session(demo: NativeProgram) -> Iterator[Session]:
    with Session(demo, n_ctx=128, n_threads=2) as opened:
        yield opened


def test_restored_session_goes_on_with_the_same_bits(demo: NativeProgram, saved: bytes, session: Session) -> None:
    """Tokens and logits are those of the session that was saved, in another n_ctx and with other threads."""
    with Session(demo, n_ctx=256, n_threads=1) as original:
        original.evaluate(IDS)
        expected = [original.evaluate([token]) for token in (5, 6, 7)]
    session.evaluate([9, 9, 9])
    session.load_state(saved)
    assert session.tokens == tuple(IDS)
    assert np.array_equal([session.evaluate([token]) for token in (5, 6, 7)], expected)
    session.truncate(len(IDS))
    assert session.save_state() == saved


def test_restored_session_can_be_cut_back(saved: bytes, session: Session) -> None:
    """A prefix of a restored session is that prefix."""
    session.evaluate(IDS[:40])
    expected = session.evaluate([7])
    session.load_state(saved)
    session.truncate(40)
    assert np.array_equal(session.evaluate([7]), expected)


def test_empty_session_can_be_saved(session: Session) -> None:
    """No tokens: a header and a checksum."""
    data = session.save_state()
    session.evaluate([1, 2])
    session.load_state(data)
    assert session.tokens == ()


def test_model_opened_anew_takes_the_state(saved: bytes, tmp_path: Path) -> None:
    """The fingerprint is that of the file's content, wherever the file lies."""
    path = tmp_path / "elsewhere.gguf"
    path.write_bytes(DEMO.read_bytes())
    with iqrun.load(path, n_threads=1) as model, model.session() as session:
        session.load_state(bytearray(saved))
        assert session.tokens == tuple(IDS)


def test_state_of_another_model_is_refused(saved: bytes, tmp_path: Path) -> None:
    """One changed weight byte is another model; so is another architecture's program."""
    data = bytearray(DEMO.read_bytes())
    with GGUFFile(DEMO) as file:
        offset = file.tensors["blk.2.ffn_up.weight"].offset
    data[offset] ^= 1
    path = tmp_path / "other.gguf"
    path.write_bytes(data)
    for other in (path, tiny_llama(tmp_path / "tiny.gguf")):
        with GGUFFile(other) as file:
            program = NativeProgram(build_program(file))
            with Session(program, n_ctx=128, n_threads=1) as session:
                with pytest.raises(StateError, match="another model"):
                    session.load_state(saved)
                assert len(session) == 0


@pytest.mark.parametrize("kv_type", ["q8_0", "f32"])
def test_states_of_the_other_types(demo: NativeProgram, saved: bytes, kv_type: Literal["q8_0", "f32"]) -> None:
    """The same bits after restoring; NaN in it gives NaN logits; any cut, and an f16 state, is refused."""
    with Session(demo, n_ctx=128, n_threads=1, kv_type=kv_type) as session:
        session.evaluate(IDS)
        own = session.save_state()
        expected = session.evaluate([5])
        session.truncate(0)
        session.load_state(own)
        assert session.save_state() == own
        assert np.array_equal(session.evaluate([5]), expected)
        for bad in (saved, own[:-1], own[:200], own + b"\0", own[:3000] + b"\1" + own[3001:]):
            with pytest.raises(StateError):
                session.load_state(bad)
        cache = np.frombuffer(own, np.uint8)[64 + 4 * len(IDS) : -16]
        for tokens, values in (([*IDS, 5], cache), (IDS, cache[:-1]), (IDS[:-1], cache)):
            with pytest.raises(StateError):
                session.load_state(state.pack(demo, kv_type, tokens, values))
        session.load_state(state.pack(demo, kv_type, IDS, np.full_like(cache, 0xFF)))
        assert np.isnan(session.evaluate([5])).all()
        session.load_state(own)
        assert np.array_equal(session.evaluate([5]), expected)


def test_other_kv_type_is_refused(demo: NativeProgram, saved: bytes) -> None:
    """An f16 state does not go into an f32 cache."""
    with Session(demo, n_ctx=128, n_threads=1, kv_type="f32") as other, pytest.raises(StateError, match="kv_type"):
        other.load_state(saved)


def test_state_larger_than_the_context_changes_nothing(demo: NativeProgram, saved: bytes) -> None:
    """ContextFullError as for a prompt that is too long."""
    with Session(demo, n_ctx=64, n_threads=1) as session:
        session.evaluate([1, 2, 3])
        with pytest.raises(ContextFullError, match="91 tokens do not fit in a context of 64"):
            session.load_state(saved)
        assert session.tokens == (1, 2, 3)


def test_other_version_is_named(saved: bytes, session: Session) -> None:
    """A future version says so instead of being called damaged."""
    data = saved[:8] + struct.pack("<I", 2) + saved[12:]
    with pytest.raises(StateError, match="version 2"):
        session.load_state(data)


@pytest.mark.parametrize("n_bytes", [0, 1, 8, 63, 64, 79, 80, 500, -1])
def test_cut_state_is_refused(saved: bytes, session: Session, n_bytes: int) -> None:
    """Cut anywhere, or with a byte too many."""
    data = saved[:n_bytes] if n_bytes >= 0 else saved + b"\0"
    with pytest.raises(StateError):
        session.load_state(data)
    assert session.tokens == ()


@settings(max_examples=n_random(150), deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_found(demo: NativeProgram, saved: bytes, data: st.DataObject) -> None:
    """Wherever a bit turns, header, tokens, cache or checksum: StateError."""
    place = data.draw(st.one_of(st.integers(0, 120), st.integers(0, len(saved) - 1)))
    bad = bytearray(saved)
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StateError):
        state.unpack(bad, demo, "f16")


@settings(max_examples=n_random(60), deadline=None)
@given(sizes=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), rest=st.binary(max_size=300))
def test_lying_sizes_are_refused_at_once(demo: NativeProgram, sizes: tuple[int, int], rest: bytes) -> None:
    """Sizes beyond any memory cost none; a right checksum does not make a state right."""
    assume(4 * sizes[0] + sizes[1] != len(rest))
    head = struct.pack("<8sIIQQ32s", b"iqrun-kv", 1, 1, *sizes, state.fingerprint(demo.program))
    with pytest.raises(StateError):
        state.unpack(head + rest + state._checksum(head + rest), demo, "f16")


def forged(demo: NativeProgram, tokens: list[int], cache: np.ndarray) -> bytes:
    """A state with a right checksum and any content."""
    return state.pack(demo, "f16", tokens, cache)


def test_forged_tokens_and_sizes_are_refused(demo: NativeProgram, session: Session, saved: bytes) -> None:
    """Well-formed, but with ids outside the vocabulary, or a cache of another number of tokens."""
    cache = np.frombuffer(saved, np.uint8)[64 + 4 * len(IDS) : -16]
    session.evaluate([4])
    for tokens in ([*IDS[:-1], 4096], [-1, *IDS[1:]], IDS[:-1], [*IDS, 5], []):
        with pytest.raises(StateError):
            session.load_state(forged(demo, tokens, cache))
    assert session.tokens == (4,)


def test_forged_values_are_harmless(demo: NativeProgram, session: Session, saved: bytes) -> None:
    """NaN in the cache gives NaN logits, which no sampler draws from; afterwards the session is as good as new."""
    cache = np.full(len(saved) - 64 - 4 * len(IDS) - 16, 0xFF, np.uint8)
    session.load_state(forged(demo, IDS, cache))
    assert np.isnan(session.evaluate([5])).all()
    session.truncate(0)
    assert np.isfinite(session.evaluate(IDS)).all()


def test_pickling_a_session_is_refused_clearly(session: Session) -> None:
    """The message says what to send instead."""
    with pytest.raises(TypeError, match="save_state"):
        pickle.dumps(session)
