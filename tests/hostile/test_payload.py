"""S16: weights of any bytes run: nothing outside is read, nothing hangs, and nonsense is called so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iqrun
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile
from tests.gguf_builder import tiny_llama

FILLS = {"ones": b"\xff", "zeros": b"\0", "high": b"\x7f", "random": None}


def filled(path: Path, fill: bytes | None) -> Path:
    """The file with every matrix's bytes replaced."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    with GGUFFile(path) as file:
        places = [(info.offset, info.n_bytes) for info in file.tensors.values() if len(info.shape) >= 2]
    for offset, n_bytes in places:
        data[offset : offset + n_bytes] = rng.bytes(n_bytes) if fill is None else fill * n_bytes
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_s16_any_bytes_in_routers_and_experts_run(tmp_path: Path, kv_type: Any, fill: str) -> None:
    """S16: scores without order still choose experts that exist; NaN in a q8_0 cache stays in it."""
    path = tiny_llama(tmp_path / "m", n_embd=256, n_ff=256, n_layer=2, weight_type="IQ4_K", n_expert=4)
    with iqrun.load(filled(path, FILLS[fill]), n_threads=2, n_ctx=64, kv_type=kv_type) as model:
        assert model.logits([1, 2, 3, 4, 5]).shape == (5, model.n_vocab)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.can_encode])
def test_s16_any_bytes_run(tmp_path: Path, name: str, fill: str) -> None:
    """S16: logits come out; if they are numbers there are tokens, else an error that says what is wrong."""
    path = tiny_llama(tmp_path / "m", n_embd=256, n_ff=256, n_layer=1, n_head=4, n_head_kv=2, weight_type=name)
    with iqrun.load(filled(path, FILLS[fill]), n_threads=2, n_ctx=64) as model:
        ids = model.tokenizer.encode("Once upon")
        logits = model.logits(ids)
        assert logits.shape == (len(ids), model.n_vocab)
        if np.isfinite(logits[-1]).all():
            model.complete("Once upon", max_tokens=1)
            return
        with pytest.raises(iqrun.IqrunError, match="the logits are NaN or infinite"):
            model.complete("Once upon", max_tokens=1)
