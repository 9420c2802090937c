"""What the fuzzers of the Python side run: each target takes any bytes, and may only raise what iqrun promises.

`TARGETS` maps a name to a function. An exception that is not an `IqrunError`, a hang or a crash is a finding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from iqrun.chat.template import ChatTemplate
from iqrun.engine.allocation import KVType
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import pieces_of
from iqrun.engine.session import Session
from iqrun.engine.stream import Stream
from iqrun.errors import IqrunError, QuantizeError, TemplateError, TokenizerError
from iqrun.evaluation.saved_logits import SavedLogits
from iqrun.gguf import GGUFFile, StringArray
from iqrun.model import build_program
from iqrun.quantizer.imatrix import read_imatrix
from iqrun.tokenizer import Tokenizer, merging
from iqrun.tokenizer.bpe import BPETokenizer
from iqrun.tokenizer.spm import SentencePieceTokenizer
from iqrun.tokenizer.vocab import Vocab
from tests.gguf_builder import tiny_llama
from tests.tokenizer_reference import stored_strings

STATE_CHECKSUM_BYTES = 16
_PIECE_BYTES = 1024  # of a stream: small matrices have several pieces

_TEXTS = ("", "Once upon a time", " a\n\tb  ", "<s></s><|im_end|>", "äß€😀\ud800\0\uffff")
_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": ""},
]


@contextmanager
def file_of(data: bytes) -> Iterator[str]:
    """The bytes as a regular file without a place on the disk."""
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def container(data: bytes) -> None:
    """Header, metadata and tensor bytes: all of it is read, nothing beyond the file."""
    with file_of(data) as path, suppress(IqrunError), GGUFFile(path) as file:
        for key, value in file.metadata.items():
            file.metadata.raw_value(key)
            list(value) if isinstance(value, StringArray) else repr(value)
        for name, info in file.tensors.items():
            assert file.tensor_rows(name).nbytes == info.n_bytes


def model(data: bytes) -> None:
    """A whole model: hyper-parameters, program, vocabulary, and a few tokens if it runs; some from a stream, too."""
    kv_type: KVType = ("f16", "q8_0", "f32")[len(data) % 3]
    with file_of(data) as path, suppress(IqrunError), GGUFFile(path) as file:
        with suppress(IqrunError):
            Tokenizer.from_gguf(file).decode([1, 3, 5])
        native = NativeProgram(build_program(file))
        ids = [token % native.program.n_vocab for token in (1, 2, 3)]
        with Session(native, n_ctx=16, n_threads=1, kv_type=kv_type) as session:
            logits = session.evaluate(ids)
        if len(data) % 32 == 0:
            resident = [i % 2 == 0 for i in range(len(pieces_of(native, _PIECE_BYTES)))]
            native.stream = Stream(
                native, resident, piece_bytes=_PIECE_BYTES, n_slot=2, n_reader=1, context_bytes=1 << 30
            )
            with Session(native, n_ctx=16, n_threads=1, kv_type=kv_type) as session:
                assert session.evaluate(ids).tobytes() == logits.tobytes()
            native.stream.close()


def tokenizer(data: bytes) -> None:
    """A vocabulary of any pieces, scores, types and merges: what it encodes it can decode."""
    if len(data) < 8:
        return
    vocab = _vocabulary(data)
    kind = SentencePieceTokenizer if vocab.model == "llama" else BPETokenizer
    with suppress(TokenizerError):
        made = kind(vocab)
        for text in (*_TEXTS, data[8:72].decode("utf-8", "replace")):
            ids = made.encode(text, parse_special=bool(data[1] & 1))
            assert all(0 <= token_id < made.n_vocab for token_id in ids)
            made.decode(ids, skip_special=True)
        made.encode(made.as_plain(text), parse_special=True)


def _vocabulary(data: bytes) -> Vocab:
    """Pieces are the bytes between line ends; scores and types come from the same bytes."""
    raw = data[8:].split(b"\n")[:300]
    texts = [piece.decode("utf-8", "replace") for piece in raw]
    fillers = (data[i % len(data)] for i in range(len(texts)))
    types = bytes(1 + value % 6 for value in fillers)
    scores = np.frombuffer((data * (4 * len(texts) // len(data) + 1))[: 4 * len(texts)], np.float32).copy()
    scores[np.isnan(scores)] = -np.inf
    merges = [text.replace("_", " ") for text in texts if "_" in text]
    special = [data[i] if data[i] < len(texts) else None for i in (2, 3, 4)]
    flags = [(None, False, True)[data[i] % 3] for i in (5, 6, 7)]
    return Vocab(
        model=("llama", "gpt2")[data[0] & 1],
        pre=(None, "gpt-2", "llama-bpe", "qwen2", "deepseek-v3", "tekken", "no such")[data[1] % 7],
        architecture="phi3" if data[1] & 8 else "",
        texts=texts,
        types=types,
        scores=scores,
        merges=merges,
        bos_id=special[0],
        eos_id=special[1],
        unk_id=special[2],
        end_ids=frozenset(),
        add_bos=flags[0],
        add_eos=flags[1],
        add_space_prefix=flags[2],
        warnings=[],
    )


def merges(data: bytes) -> None:
    """Merges looked up in the file's strings: the tokens that the library makes of them."""
    if len(data) < 8:
        return
    lines = data[8:].split(b"\n")[:300]
    strings = {"texts": [line.replace(b"_", b"") for line in lines] or [b""]}
    strings["merges"] = [line.replace(b"_", b" ", 1) for line in lines if b"_" in line]
    arrays = {name: stored_strings(raws) for name, raws in strings.items()}
    vocab = replace(_vocabulary(data), model="gpt2", **arrays)
    with suppress(TokenizerError), patch.object(merging, "MIN_MERGES", 1):
        made = BPETokenizer(vocab)
        if made._merger is None:
            return
        for text in ("abaab ababcab abc", data[8:72].decode("utf-8", "replace")):
            pieces = [piece for piece, _ in made._splitting.pre_tokenize_str(text)]
            expected = made._encoder.encode(text, add_special_tokens=False).ids
            assert made._merged(made._merger, pieces) == expected


def template(data: bytes) -> None:
    """Any template source: a text, or a `TemplateError`, within the limits."""
    source = data.decode("utf-8", "replace")
    with suppress(TemplateError):
        ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(_MESSAGES)


def imatrix(data: bytes) -> None:
    """An importance matrix in either format."""
    with file_of(data) as path, suppress(QuantizeError):
        read_imatrix(path)


def saved_logits(data: bytes) -> None:
    """Predictions that another program saved."""
    with file_of(data) as path, suppress(IqrunError):
        saved = SavedLogits(path)
        if saved.n_ctx * saved.n_vocab < 1 << 16:
            saved.rows(saved.n_chunks - 1, 0, 1)


def state(data: bytes) -> None:
    """A saved session: its checksum is made right, so that what it holds is looked at."""
    session = state_session("q8_0" if data[8:9] == b"\x08" else "f16")
    body = data[:-STATE_CHECKSUM_BYTES]
    with suppress(IqrunError):
        session.load_state(body + blake2b(body, digest_size=STATE_CHECKSUM_BYTES).digest())
        session.evaluate([1])


@cache
def state_session(kv_type: KVType) -> Session:
    """The session that states are loaded into; its model is forgotten by the disk."""
    with TemporaryDirectory() as folder:
        path = tiny_llama(Path(folder) / "m", n_embd=16, n_head=2, n_head_kv=1, n_ff=16, n_layer=1, n_vocab=300)
        return Session(NativeProgram(build_program(GGUFFile(path))), n_ctx=64, n_threads=1, kv_type=kv_type)


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (container, model, tokenizer, merges, template, imatrix, saved_logits, state)
}
