"""Valid inputs for each target, where the fuzzers start: ``python -m fuzz.seeds FOLDER`` writes them as corpora."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fuzz.targets import state_session
from iqrun.chat.template import CHATML, PLAIN
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, keys
from iqrun.models.demo import model_path
from tests.gguf_builder import (
    BOOL,
    F32,
    FLOAT32,
    INT32,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    RawGGUF,
    kv,
    kv_array,
    tiny_llama,
)

TEMPLATES = (
    CHATML,
    PLAIN,
    "{% for m in messages %}{{ loop.index0 }}{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "{%- set ns = namespace(x=0) -%}{% for i in range(9) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x ** 2 }}",
    "{% macro m(a, b='x') %}{{ a ~ b * 3 }}{% endmacro %}{{ m('y') }}{{ messages | length }}{{ messages | tojson }}",
    "{{ raise_exception('no') if messages[0].role != 'system' else strftime_now('%Y') }}",
    "{% generation %}{{ '%s %d' % ('a', 1) }}{{ '{:>5}'.format('b') }}{% endgeneration %}{% if 1 in [1] %}{% endif %}",
    "{{ messages | map(attribute='role') | list | join(', ') | replace('u', 'v') }}{{ (1, 2)[::-1] }}",
    "{{ {'a': 1}.items() }}{% for m in messages if m.role is string %}{{ loop.last }}{% else %}none{% endfor %}",
)


def container() -> Iterator[bytes]:
    """A file with every kind of value, and one with tensors of several types."""
    values = [(UINT8, 1), (INT32, -1), (UINT32, 7), (UINT64, 1 << 40), (FLOAT32, 0.5), (BOOL, True), (STRING, "text")]
    kvs = [kv(f"k{kind}", kind, value) for kind, value in values]
    kvs += [
        kv("general.alignment", UINT32, 32),
        kv_array("words", STRING, ["a", "bc", ""]),
        kv_array("n", INT32, [1, 2]),
    ]
    yield RawGGUF(kvs=kvs).encode()
    file = RawGGUF(kvs=kvs[:1])
    file.add_tensor("one", (256, 2), 138, bytes(220))
    file.add_tensor("two", (4, 2, 2), F32, bytes(64))
    yield file.encode()


def model() -> Iterator[bytes]:
    """The smallest complete models of each architecture, with and without experts."""
    with tempfile.TemporaryDirectory() as folder:
        for arch, n_expert in (("llama", 0), ("qwen2", 0), ("qwen3", 0), ("llama", 3), ("qwen3moe", 3)):
            path = tiny_llama(
                Path(folder) / arch,
                arch=arch,
                n_embd=16,
                n_head=2,
                n_head_kv=1,
                n_ff=16,
                n_layer=1,
                n_vocab=8,
                tied=True,
                n_expert=n_expert,
            )
            yield path.read_bytes()


def tokenizer() -> Iterator[bytes]:
    """Flags, then pieces: see `fuzz.targets.tokenizer`."""
    pieces = "<unk>\n<s>\n</s>\n<0x0A>\n<0x61>\n▁\na\nb\n▁a\nab\na_b\nĠ\nĠa\n<|im_end|>\n\n ".encode()
    for kind in (0, 1):
        yield bytes([kind, 2, 1, 2, 0, 0, 0, 0]) + pieces


def merges() -> Iterator[bytes]:
    """A flag, then tokens, of which those with a mark are merges: see `fuzz.targets.merges`."""
    pieces = "a_b\nab_c\na_a\nĠ_a\nĠa_b\nabc_\naab\nĠ_Ġ\n<|im_end|>\nÃ_¤".encode()
    for kind in (1, 2, 3):
        yield bytes([1, kind, 0, 0, 0, 0, 0, 0]) + pieces


def template() -> Iterator[bytes]:
    """What templates in the field use."""
    with GGUFFile(model_path()) as file:
        yield file.metadata.get_str(keys.CHAT_TEMPLATE).encode()
    yield from (source.encode() for source in TEMPLATES)


def imatrix() -> Iterator[bytes]:
    """One of each format."""
    file = RawGGUF(kvs=[kv("general.type", STRING, "imatrix"), kv_array("imatrix.datasets", STRING, ["text"])])
    file.add_tensor("a.in_sum2", (8, 1), F32, struct.pack("<8f", *range(8)))
    file.add_tensor("a.counts", (1, 1), F32, struct.pack("<f", 2))
    yield file.encode()
    entry = struct.pack("<i", 1) + b"a" + struct.pack("<ii4f", 2, 4, 1, 2, 3, 4)
    yield struct.pack("<i", 2) + entry + entry.replace(b"a", b"b") + struct.pack("<ii", 5, 4) + b"text"


def saved_logits() -> Iterator[bytes]:
    """Two chunks of eight tokens, five logits each."""
    head = b"_logits_" + struct.pack("<Iii", 8, 5, 2) + struct.pack("<16i", *range(16))
    yield head + 2 * 3 * (struct.pack("<2f", 0.001, -9.0) + struct.pack("<6H", *range(6)))


def state() -> Iterator[bytes]:
    """A few tokens with their keys and values, of each type that half of what is saved has."""
    for kv_type in ("f16", "q8_0"):
        session = state_session(kv_type)
        session.truncate(0)
        session.evaluate([1, 2, 3])
        yield session.save_state()


_SIZES = {size: code for code, size in enumerate((0, 1, 2, 8, 16, 32, 64, 256, 4, 12, 96, 512))}  # of fuzz_program.c


def program() -> Iterator[bytes]:
    """For fuzz/c/fuzz_program.c: a layer of attention and one of experts; float and quantized weights."""
    one = struct.pack("<f", 1.0)
    attention = [
        _op(0, 1, -1, dst=[0], weight=[0], f=one),
        _op(3, 3, -1, dst=[1, 2, 3], src=[0], weight=[1, 1, 1]),
        _op(7, 0, 0, dst=[0], src=[1, 2, 3], f=one, heads=(2, 2, 16)),
        _op(1, 0, -1, dst=[4], src=[0]),
        _op(3, 1, -1, dst=[5], src=[4], weight=[0]),
    ]
    experts = [
        attention[0],
        _op(3, 1, -1, dst=[1], src=[0], weight=[1]),
        _op(9, 0, -1, dst=[2, 3], src=[1], f=one),
        _op(10, 0, -1, dst=[4], src=[0]),
        _op(4, 2, -1, dst=[5], src=[4], weight=[2, 2]),
        _op(3, 1, -1, dst=[6], src=[5], weight=[2]),
        _op(11, 0, -1, dst=[0], src=[6, 3]),
        _op(1, 0, -1, dst=[7], src=[0]),
        _op(3, 1, -1, dst=[8], src=[7], weight=[0]),
    ]
    buffers = [(32, 1, 0)] * 4 + [(32, 2, 0), (8, 2, 0)]
    dealt = [(32, 1, 0), (2, 1, 0), (1, 1, 0), (1, 1, 0)] + [(32, 1, 1)] * 3 + [(32, 2, 0), (8, 2, 0)]
    for kind in ("F32", "F16", "Q8_0", "IQ4_NL"):
        index = list(FORMATS).index(kind)
        yield _program(attention, buffers, [(index, 8, 0), (index, 32, 0)], n_layer=1)
        yield _program(experts, dealt, [(index, 8, 0), (0, 2, 0), (index, 32, 2)], n_layer=0)


def _program(
    ops: Sequence[bytes], buffers: Sequence[tuple[int, int, int]], weights: Sequence[tuple[int, int, int]], n_layer: int
) -> bytes:
    """`buffers`: columns, domain + 1, experts used; `weights` of 32 columns: index of the type, rows, experts."""
    head = bytes([len(ops), len(buffers), len(weights), n_layer, _SIZES[8], len(buffers)])  # the last one is the output
    rows = b"".join(bytes([_SIZES[n_cols], domain, n_used]) for n_cols, domain, n_used in buffers)
    matrices = b"".join(bytes([kind, 1, _SIZES[n_rows], _SIZES[32], n, 1]) for kind, n_rows, n in weights)
    return head + b"".join(ops) + rows + matrices + bytes([0, 0x55, 0, 0]) + bytes([0, 2]) + bytes(range(1, 150))


def _op(
    kind: int,
    n: int,
    layer: int,
    *,
    dst: Sequence[int] = (),
    src: Sequence[int] = (),
    weight: Sequence[int] = (),
    f: bytes = bytes(4),
    heads: Sequence[int] = (0, 0, 0),
) -> bytes:
    slots = [[*given, -1, -1, -1, -1][:4] for given in (dst, src, weight)]
    rows = [bytes(slot[i] + 1 for slot in slots) + b"\1" + f * (i == 0) for i in range(4)]
    return bytes([kind, 0, n + 1, layer + 1]) + b"".join(rows) + bytes(_SIZES[number] for number in (*heads, 0))


SEEDS: dict[str, Callable[[], Iterable[bytes]]] = {
    function.__name__: function
    for function in (container, model, tokenizer, merges, template, imatrix, saved_logits, state, program)
}


def write_corpora(folder: Path) -> None:
    """One folder per target, one file per seed."""
    for name, seeds in SEEDS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, data in enumerate(seeds()):
            (folder / name / f"seed-{index}").write_bytes(data)


if __name__ == "__main__":
    write_corpora(Path(sys.argv[1]))
