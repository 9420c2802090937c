"""Textbook versions of the tokenizers' algorithms: slow, short, and written without looking at iqrun's.

Also builds vocabulary-only GGUF files for the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from iqrun.gguf import StringArray
from tests.gguf_builder import BOOL, FLOAT32, INT32, STRING, UINT32, RawGGUF, kv, kv_array

DATA = Path(__file__).parent / "data"


def bpe(
    symbols: Sequence[str], ranks: dict[tuple[str, str], int], used: set[tuple[str, str]] | None = None
) -> list[str]:
    """Byte-pair encoding (Sennrich et al. 2016): merges the best-ranked pair, leftmost first, until there is none."""
    parts = list(symbols)
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not found:
            return parts
        _, i = min(found)
        if used is not None:
            used.add((parts[i], parts[i + 1]))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def sentencepiece(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE: joins the pair whose piece scores best, leftmost first; unknown letters become bytes."""
    parts = list(text.replace(" ", "▁"))
    while True:
        found = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in scores]
        if not found:
            break
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [
        piece
        for part in parts
        for piece in ([part] if part in scores else [f"<0x{byte:02X}>" for byte in part.encode()])
    ]


def stored_strings(raws: Iterable[bytes]) -> StringArray:
    """An array of strings as it stands in a file."""
    raws = list(raws)
    data = b"".join(len(raw).to_bytes(8, "little") + raw for raw in raws)
    starts = np.cumsum([0, *(8 + len(raw) for raw in raws)], dtype=np.uint64)
    return StringArray(np.frombuffer(data, np.uint8), starts)


def write_vocabulary(
    path: Path,
    model: str,
    tokens: Sequence[str | bytes],
    *,
    types: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    merges: Sequence[str] | None = None,
    pre: str | None = None,
    extra: Sequence[bytes] = (),
) -> Path:
    """Writes a GGUF file that holds a vocabulary and no tensors."""
    kvs = [kv("general.architecture", STRING, "llama"), kv("tokenizer.ggml.model", STRING, model)]
    kvs.append(kv_array("tokenizer.ggml.tokens", STRING, tokens))
    if pre is not None:
        kvs.append(kv("tokenizer.ggml.pre", STRING, pre))
    if types is not None:
        kvs.append(kv_array("tokenizer.ggml.token_type", INT32, types))
    if scores is not None:
        kvs.append(kv_array("tokenizer.ggml.scores", FLOAT32, scores))
    if merges is not None:
        kvs.append(kv_array("tokenizer.ggml.merges", STRING, merges))
    return RawGGUF(kvs=[*kvs, *extra]).write(path)


def special_id(name: str, token_id: int) -> bytes:
    """The entry of a special token id, e.g. ``bos``."""
    return kv(f"tokenizer.ggml.{name}_token_id", UINT32, token_id)


def flag(name: str, value: bool) -> bytes:
    """The entry of a switch, e.g. ``add_bos_token``."""
    return kv(f"tokenizer.ggml.{name}", BOOL, value)


def load_sample(name: str) -> dict[str, Any]:
    """A part of a real vocabulary with the tokens of some texts; see make_tokenizer_samples.py."""
    sample: dict[str, Any] = json.loads((DATA / f"tokenizer_{name}.json").read_text(encoding="utf-8"))
    return sample


def write_sample(path: Path, sample: dict[str, Any]) -> Path:
    """The vocabulary of a sample as a GGUF file."""
    return write_vocabulary(
        path, "gpt2", sample["tokens"], types=sample["types"], merges=sample["merges"], pre=sample["pre"]
    )
