"""kill -9 while files are written: what is there afterwards is absent, complete, or gone on with.

`iqrun quantize` has its own test of this kind, in tests/test_quantizer_output.py.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import iqrun
from iqrun.cli.conversations import Store
from tests.gguf_builder import tiny_llama

N_KILLS = pytest.mark.parametrize("n_kills", [4, pytest.param(200, marks=pytest.mark.slow)], ids=["quick", "long"])
FOREVER = 300.0  # seconds that no command takes
IQRUN = [sys.executable, "-m", "iqrun"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def killed(command: Sequence[str], seconds: float, folder: Path, *, stdin: Path | None = None) -> bool:
    """Runs a command and kills it so many seconds after it first changed `folder`; whether it had not finished then."""
    before = contents(folder)
    with Path(stdin or os.devnull).open("rb") as lines:
        process = subprocess.Popen(command, stdin=lines, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            while process.poll() is None and contents(folder) == before:
                time.sleep(0.001)
            error = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            error = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), error.decode()
    return process.returncode != 0


def contents(folder: Path) -> list[str]:
    """What is in a folder; a file that was replaced counts as another one."""
    with os.scandir(folder) as entries:
        return sorted(f"{entry.name} {entry.inode()}" for entry in entries)


@N_KILLS
def test_imatrix(tmp_path: Path, n_kills: int) -> None:
    """`iqrun imatrix --resume` until it finishes, again and again: the same bytes as unbroken, nothing beside them."""
    model = tiny_llama(tmp_path / "m.gguf", n_embd=512, n_head=8, n_head_kv=8, n_ff=512, n_layer=1, n_vocab=300)
    text = tmp_path / "text.txt"
    text.write_text("the dog ran to the house and took it. " * 60)
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / "out.gguf"
    command = [*IQRUN, "imatrix", "-m", str(model), "-f", str(text), "-c", "16", "-t", "1", "--full", "--memory", "1"]
    command += ["--resume", "-o", str(out)]
    assert not killed(command, FOREVER, folder)
    whole = out.read_bytes()
    rng, left, n_unfinished = random.Random(n_kills), n_kills, 0
    while left > 0:
        out.unlink()
        while not out.exists():
            left -= killed(command, rng.choice((0.0, 0.03, 0.3)) * rng.random() if left > 0 else FOREVER, folder)
            n_unfinished += not out.exists() and any(folder.iterdir())
        assert out.read_bytes() == whole
    assert not killed([*command, "--overwrite"], FOREVER, folder)  # removes what was killed behind its last step
    assert [path.name for path in folder.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == whole
    assert n_unfinished, "no job was killed half way"


@N_KILLS
def test_save(tmp_path: Path, n_kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/save` of a growing conversation with its state: what is found is whole, and a state does not change answers."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "iqrun" / "conversations"
    folder.mkdir(parents=True)
    path = tiny_llama(tmp_path / "m.gguf", n_embd=32, n_head=2, n_head_kv=1, n_ff=32, n_layer=1, n_ctx=4096)
    command = [*IQRUN, "chat", "-m", str(path), "--keep-state", "--temp", "0", "-n", "3", "-t", "1"]
    many, few = tmp_path / "many.txt", tmp_path / "few.txt"
    many.write_text("".join(f"the dog {n}\n/save one\n" + "/clear\n" * (n % 20 == 19) for n in range(20_000)))
    few.write_text("the end\n/save one\n")
    store, rng, found = Store(folder), random.Random(n_kills), 0
    with iqrun.load(path, n_threads=1) as model:
        for _ in range(n_kills):
            assert killed(command, rng.choice((0.0, 0.03, 0.3)) * rng.random(), folder, stdin=many)
            assert store.names() in ([], ["one"])
            if store.names():
                found += 1
                check_conversation(model, store)
        assert not killed(command, FOREVER, folder, stdin=few)
        check_conversation(model, store)
    assert found
    assert {file.name for file in folder.iterdir()} == {"one.json", "one.state"}


def check_conversation(model: iqrun.Model, store: Store) -> None:
    """Turns alternate, and the answer that follows is the same with the kept state and without."""
    messages, state = store.load("one").messages, store.state("one")
    assert [turn["role"] for turn in messages] == ["user", "assistant"] * (len(messages) // 2)
    answers = set()
    for kept in (None, state):
        chat = model.chat()
        chat.restore(messages)
        if kept is not None:
            chat.load_state(kept)
        answers.add("".join(chat.send("a cat", max_tokens=5, temperature=0)))
        chat.close()
    assert len(answers) == 1
