"""Whole models, vocabularies and importance matrices, broken one field at a time, and files that only cost."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.gguf_builder import F32, STRING, UINT32, RawGGUF, kv, kv_array, tiny_llama
from tests.hostile.breaker import Case, broken
from tests.hostile.fat import fat_files
from tests.hostile.runner import check, run_cases
from tests.tokenizer_reference import write_vocabulary

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux shows it")

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def small_model(folder: Path, arch: str) -> bytes:
    """A complete model with one layer and a chat template."""
    extra = [kv("tokenizer.chat_template", STRING, TEMPLATE)]
    return tiny_llama(
        folder / "m", arch=arch, n_embd=16, n_head=2, n_head_kv=1, n_ff=16, n_layer=1, n_vocab=300, extra=extra
    ).read_bytes()


def outcomes(task: str, good: bytes, cases: Iterable[Case]) -> Counter[str]:
    """Runs and checks the cases; counts those that were accepted ("ok") and refused (by the exception's name)."""
    found: Counter[str] = Counter()
    for report in run_cases(task, good, cases):
        check(report)
        found[report.outcome] += 1
    return found


@pytest.mark.parametrize("arch", ["llama", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_every_field_of_a_model_may_be_wrong(tmp_path: Path, arch: str) -> None:
    """S1 to S14: each field set to each bad value, each entry dropped, doubled, retyped, the file cut at every border:
    the model runs, or one sentence says what is wrong; within 2 s and 64 MiB."""
    good = small_model(tmp_path, arch)
    found = outcomes("model", good, broken(good))
    assert found["ok"] > 100
    assert found["GGUFError"] > 1000
    assert found["UnsupportedModelError"] > 50
    assert found["TokenizerError"] > 10


def test_every_field_of_a_bpe_vocabulary_may_be_wrong(tmp_path: Path) -> None:
    """S3, S4, S12, S13: the same for a byte-level BPE vocabulary with merges; without a model it cannot run."""
    texts = ["<|im_end|>", *"abcdefgh", "ab", "cd", "abcd", "Ġa"]
    path = tmp_path / "v"
    extra = [kv(f"tokenizer.ggml.{name}_token_id", UINT32, 0) for name in ("bos", "eos", "eot", "unknown")]
    types = [3] + [1] * (len(texts) - 1)
    write_vocabulary(path, "gpt2", texts, types=types, merges=["a b", "c d", "ab cd", "Ġ a"], pre="gpt-2", extra=extra)
    good = path.read_bytes()
    found = outcomes("vocabulary", good, broken(good))
    assert found["ok"] > 50
    assert found["GGUFError"] > 300
    assert found["TokenizerError"] > 10


def imatrix_files() -> Iterator[bytes]:
    """A valid importance matrix of each format."""
    file = RawGGUF(kvs=[kv("general.type", STRING, "imatrix"), kv_array("imatrix.datasets", STRING, ["text"])])
    file.kvs += [kv("imatrix.chunk_count", UINT32, 3), kv("imatrix.chunk_size", UINT32, 512)]
    for name in ("a", "b"):
        file.add_tensor(f"{name}.in_sum2", (8, 1), F32, struct.pack("<8f", *range(8)))
        file.add_tensor(f"{name}.counts", (1, 1), F32, struct.pack("<f", 2))
    yield file.encode()
    entry = struct.pack("<i", 1) + b"a" + struct.pack("<ii4f", 2, 4, 1, 2, 3, 4)
    yield struct.pack("<i", 2) + entry + entry.replace(b"a", b"b") + struct.pack("<ii", 5, 4) + b"text"


def broken_dat(data: bytes) -> Iterator[Case]:
    """A .dat has no types: every four bytes become every bad number, and it is cut everywhere."""
    numbers = (0, 1, 2, 5, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 0x7FC00000, 0x7F800000, 0xBF800000)
    for at in range(len(data) - 3):
        for number in numbers:
            yield Case(f"at {at}: {number}", "", data[:at] + struct.pack("<I", number) + data[at + 4 :])
    yield from (Case(f"cut at {at}", "", data[:at]) for at in range(len(data)))


def test_every_field_of_an_importance_matrix_may_be_wrong() -> None:
    """S19: both formats; NaN, infinite and negative values are found too."""
    new, old = imatrix_files()
    found = outcomes("imatrix", new, chain(broken(new), broken_dat(old)))
    assert found["ok"] > 50
    assert found["QuantizeError"] > 1000


def test_files_that_are_made_to_cost(tmp_path: Path) -> None:
    """S2 to S4, S13, S15: 1 MiB of keys, tensors, strings, tokens, merges or template takes 2 s and 64 MiB at most."""
    found = outcomes("cost", small_model(tmp_path, "llama"), fat_files(tmp_path))
    assert sum(found.values()) > 40
