"""Files of 1 MiB, each made to cost as much time and memory as its size allows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tests.gguf_builder import (
    ARRAY,
    F32,
    FLOAT32,
    INT32,
    STRING,
    UINT8,
    RawGGUF,
    kv,
    kv_array,
    kv_raw,
    string,
    tensor_info,
    tiny_llama,
)
from tests.hostile.breaker import Case

SIZE = 1 << 20


def fat_files(folder: Path) -> Iterator[Case]:
    """The cases; each is a model file with one thing in excess."""
    yield _of("keys", [kv(f"k{index}", UINT8, 0) for index in range(1 << 14)])
    yield _of("keys of long names", [kv("k" * 60_000 + str(index), UINT8, 0) for index in range(17)])
    yield _of("tensors", infos=[tensor_info(f"t{index}", (1,), F32, 0) for index in range(SIZE // 42)])
    yield _of("empty tensors' types", infos=[tensor_info(f"t{i}", (1,), i % 400, 0) for i in range(SIZE // 42)])
    yield _of("strings", [_strings("s", SIZE // 8, b"")])
    yield _of("numbers", [kv_raw("n", ARRAY, struct.pack("<IQ", UINT8, SIZE) + bytes(SIZE))])
    yield _of("one string", [kv("s", STRING, "x" * SIZE)])
    yield _of("architecture", [kv("general.architecture", STRING, "\x1b[2J" * (SIZE // 4))])
    for key in ("llama.rope.scaling.type", "llama.unknown", "tokenizer.ggml.model", "tokenizer.ggml.pre"):
        extra = [kv(key, STRING, "\n" * SIZE)]
        yield Case(f"text of {key}", key, _without(tiny_llama(folder / "m", n_layer=1).read_bytes(), key, extra))
    yield Case("experts, all of them used", "", _experts(folder).read_bytes())
    for model in ("llama", "gpt2"):
        for name, texts in _pieces().items():
            yield _vocabulary(f"{model} vocabulary of {name}", model, texts)
        yield _vocabulary(f"{model} vocabulary of merges", model, list("abcdefgh"), merges=["a b"] * (SIZE // 11))
        long = ["a" * 2**power for power in range(16)]
        yield _vocabulary(f"{model} vocabulary of powers", model, long, merges=[f"{text} {text}" for text in long])
    for name, source in _templates().items():
        yield _vocabulary(f"template of {name}", "llama", ["<unk>", "a"], extra=[_template(source)])


def _of(name: str, kvs: list[bytes] | None = None, infos: list[bytes] | None = None) -> Case:
    return Case(f"many {name}", "", RawGGUF(kvs=kvs or [], infos=infos or [], data=bytes(64)).encode())


def _experts(folder: Path) -> Path:
    """As many as there may be: the choice among them is most of the work."""
    return tiny_llama(
        folder / "e", n_embd=8, n_head=1, n_head_kv=1, n_ff=1, n_layer=2, n_vocab=300, n_expert=4096, n_used=4096
    )


def _strings(key: str, count: int, text: bytes) -> bytes:
    return kv_raw(key, ARRAY, struct.pack("<IQ", STRING, count) + string(text) * count)


def _without(data: bytes, key: str, extra: list[bytes]) -> bytes:
    """A file with an entry replaced, or added."""
    from tests.hostile.breaker import padded
    from tests.hostile.fields import entries

    n_tensors, n_kv = struct.unpack_from("<QQ", data, 8)
    place = next(((start, end) for owner, start, end in entries(data) if owner == key), (24, 24))
    added = len(extra) - (place[0] != place[1])
    head = data[:8] + struct.pack("<QQ", n_tensors, n_kv + added) + data[24 : place[0]] + b"".join(extra)
    return padded(data, head, place[1])


def _pieces() -> dict[str, list[str]]:
    return {
        "single letters": [chr(0x4E00 + index) for index in range(20_000)],
        "numbers": [str(index) for index in range(SIZE // 21)],
        "empty texts": [""] * (SIZE // 17),
        "equal texts": ["ab"] * (SIZE // 18),
        "one long text": ["x" * (SIZE - 100)],
        "long texts": ["y" * 9_000 + str(index) for index in range(110)],
    }


def _vocabulary(
    name: str, model: str, texts: list[str], merges: list[str] | None = None, extra: list[bytes] | None = None
) -> Case:
    """A file with a vocabulary alone; a third of its tokens are special."""
    kvs = [kv("general.architecture", STRING, "llama"), kv("tokenizer.ggml.model", STRING, model)]
    kvs += [kv("tokenizer.ggml.pre", STRING, "llama-bpe"), kv_array("tokenizer.ggml.tokens", STRING, texts)]
    kvs += [kv_array("tokenizer.ggml.token_type", INT32, [(1, 3, 4)[index % 3] for index in range(len(texts))])]
    kvs += [kv_array("tokenizer.ggml.scores", FLOAT32, [-float(index) for index in range(len(texts))])]
    kvs += [kv_array("tokenizer.ggml.merges", STRING, merges)] if merges else []
    return Case(name, "", RawGGUF(kvs=kvs + (extra or [])).encode())


def _template(source: str) -> bytes:
    return kv("tokenizer.chat_template", STRING, source)


def _templates() -> dict[str, str]:
    return {
        "text": "x" * 60_000,
        "expressions": "{{ 1 }}" * 9_000,
        "loops": "{% for i in range(9999) %}" * 30 + "{% endfor %}" * 30,
        "macros": "{% macro m() %}{% endmacro %}" * 2_200,
        "nesting": "{{ " + "(" * 90 + "1" + ")" * 90 + " }}" + "{% if 1 %}" * 90 + "{% endif %}" * 90,
        "brackets": "{{ " + "[" * 30_000 + "]" * 30_000 + " }}",
        "comments": "{#" + "#" * 60_000 + "#}",
        "open tags": "{% " * 20_000,
        "backslashes": "{{ '" + "\\" * 60_000 + "' }}",
        "escapes": "{{ '" + "\\x41" * 16_000 + "' }}",
        "numbers": "{{ " + "9" * 60_000 + " }}",
        "sums": "{{ " + "1+" * 30_000 + "1 }}",
        "too many letters": "x" * (SIZE - 1000),
    }
