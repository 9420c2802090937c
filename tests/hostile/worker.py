"""Opens hostile files in a process of its own and reports what each did.

``python -m tests.hostile.worker`` reads cases from standard input (see `tests.hostile.runner`), and prints one JSON
line per case: name, outcome ("ok" or the exception's class), whether that is an `IqrunError`, its message, seconds of
CPU time, and by how many bytes the process grew at most.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from iqrun import IqrunError, TokenizerError
from iqrun.chat.template import ChatTemplate
from iqrun.cli import inspect
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import pieces_of
from iqrun.engine.session import Session
from iqrun.engine.stream import Stream
from iqrun.gguf import GGUFFile
from iqrun.model import build_program
from iqrun.quantizer.imatrix import read_imatrix
from iqrun.tokenizer import Tokenizer

_PIECE_BYTES = 1024  # small matrices have several
_MESSAGES = [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": ""}]


def run_parts(path: Path, parts: Iterable[Callable[[GGUFFile, Path], None]]) -> None:
    """Each part is run, whatever becomes of the others; the first error is raised at the end."""
    first: list[IqrunError] = []
    with GGUFFile(path) as file:
        for part in parts:
            with _collected(first):
                part(file, path)
    if first:
        raise first[0]


@contextlib.contextmanager
def _collected(errors: list[IqrunError]) -> Iterator[None]:
    try:
        yield
    except IqrunError as error:
        errors.append(error)


def _list(file: GGUFFile, path: Path) -> None:
    _inspect(path, "--tensors")


def _dump(file: GGUFFile, path: Path) -> None:
    _inspect(path, "--json")


def _inspect(path: Path, how: str) -> None:
    parser = argparse.ArgumentParser()
    inspect.configure(parser)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        inspect.run(parser.parse_args([str(path), how]))


def _tokenize(file: GGUFFile, path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(file)
    text = tokenizer.decode(range(min(tokenizer.n_vocab, 2000)), skip_special=True)[:10_000]
    for sample in ("Once upon\ta time ☺ <s>", text):
        with contextlib.suppress(TokenizerError):  # not every vocabulary can write every text
            tokenizer.decode(tokenizer.encode(sample, parse_special=True))


def _chat(file: GGUFFile, path: Path) -> None:
    tokenizer = Tokenizer.from_gguf(file)
    ChatTemplate.from_metadata(file.metadata, tokenizer).render(_MESSAGES)


def _compute(file: GGUFFile, path: Path) -> None:
    program = build_program(file)
    with Session(NativeProgram(program), n_ctx=32, n_threads=2) as session:
        session.evaluate([token % program.n_vocab for token in range(12)])
        session.evaluate([0])


def _stream(file: GGUFFile, path: Path) -> None:
    """The same logits with weights that are read while they are used, half of them kept."""
    native = NativeProgram(build_program(file))
    ids = [token % native.program.n_vocab for token in range(5)]
    with Session(native, n_ctx=32, n_threads=2) as session:
        expected = session.evaluate(ids)
    resident = [index % 2 == 0 for index in range(len(pieces_of(native, _PIECE_BYTES)))]
    native.stream = Stream(native, resident, piece_bytes=_PIECE_BYTES, n_slot=2, n_reader=2, context_bytes=1 << 30)
    with Session(native, n_ctx=32, n_threads=2) as session:
        assert session.evaluate(ids).tobytes() == expected.tobytes()
    native.stream.close()


def run_imatrix(path: Path) -> None:
    """An importance matrix."""
    read_imatrix(path)


# all that a program would do with a file; the model's 3000 cases are listed only, as the others show the JSON
TASKS: dict[str, Callable[[Path], None]] = {
    "model": partial(run_parts, parts=(_list, _tokenize, _chat, _compute)),
    "streamed": partial(run_parts, parts=(_list, _dump, _stream)),
    "vocabulary": partial(run_parts, parts=(_list, _dump, _tokenize, _chat)),
    "cost": partial(run_parts, parts=(_list, _dump, _tokenize, _chat, _compute)),
    "imatrix": run_imatrix,
}


def report(name: str, task: str, path: Path) -> dict[str, Any]:
    """Runs one case."""
    before = _peak_reset()
    start = time.process_time()
    outcome, known, message = "ok", True, ""
    try:
        TASKS[task](path)
    except Exception as error:
        outcome, known, message = type(error).__name__, isinstance(error, IqrunError), str(error)
        if not known:
            message += "".join(traceback.format_exception(error)[-3:])
    seconds = time.process_time() - start
    grown = _status_bytes("VmHWM") - before
    return {"name": name, "outcome": outcome, "known": known, "message": message, "seconds": seconds, "grown": grown}


def _peak_reset() -> int:
    """Sets the kernel's peak of resident memory to what is resident now, and returns that."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(field)


def main() -> None:
    """Reads pickled (name, task, file name, bytes) until the end; the first case should be a valid one."""
    with tempfile.TemporaryDirectory() as folder:
        while True:
            try:
                name, task, data = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            path = Path(folder) / "hostile.gguf"
            path.write_bytes(data)
            print(json.dumps(report(name, task, path)), flush=True)


if __name__ == "__main__":
    main()
