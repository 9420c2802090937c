"""S17: files that change while they are mapped, and paths that are no files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import iqrun
from iqrun.models.demo import model_path
from tests.hostile.runner import ROOT

IDS = [1, 5, 9, 14]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be changed there")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "model.gguf"
    shutil.copyfile(model_path(), target)
    yield target


def shorten(path: Path) -> None:
    os.truncate(path, 1000)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\1\2\3")


@pytest.mark.parametrize("change", [shorten, rewrite, Path.unlink])
def test_a_changed_file_is_an_error_before_the_next_step(path: Path, change: object) -> None:
    """S17: shortened or rewritten: GGUFError with the path, again and again; deleted: unharmed."""
    with iqrun.load(path, n_threads=2) as model, model.session() as session:
        session.evaluate(IDS)
        change(path)  # type: ignore[operator]
        if change is Path.unlink:
            session.evaluate([3])
            return
        for ids in ([3], IDS):
            with pytest.raises(iqrun.GGUFError, match=r"model\.gguf.*replace files by renaming"):
                session.evaluate(ids)
        with pytest.raises(iqrun.GGUFError):
            next(iter(model.stream("Once")))


def test_a_file_replaced_by_renaming_goes_on_as_it_was(path: Path) -> None:
    """S17: the old file lives on in the map, so quantizing over a model in use is harmless."""
    with iqrun.load(path, n_threads=2) as model:
        before = model.complete("Once upon a time", max_tokens=8, temperature=0)
        other = path.with_suffix(".new")
        other.write_bytes(b"GGUF" + bytes(1000))
        other.replace(path)
        assert model.complete("Once upon a time", max_tokens=8, temperature=0) == before


@pytest.mark.parametrize("change", [shorten, rewrite, Path.unlink])
def test_a_copied_model_does_not_need_its_file(path: Path, change: object) -> None:
    """S17: with copy=True nothing that happens to the file matters."""
    with iqrun.load(path, n_threads=2, copy=True) as model:
        before = model.complete("Once upon a time", max_tokens=8, temperature=0)
        assert str(path) not in Path("/proc/self/maps").read_text()
        change(path)  # type: ignore[operator]
        assert model.complete("Once upon a time", max_tokens=8, temperature=0) == before


def test_a_copy_beyond_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is allocated, with both numbers."""
    monkeypatch.setattr("iqrun.machine.available_memory", lambda: 1_000_000)
    with pytest.raises(iqrun.ResourceError, match=r"a copy of .*model.gguf needs 0.0 GB"):
        iqrun.load(path, copy=True)


def run_script(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A program of a few lines, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_the_guard_turns_a_cut_at_any_moment_into_an_error(path: Path) -> None:
    """S17: twenty times, a thread cuts the file at a random moment of a long prefill and of generation; each ends with
    GGUFError (or in time), and the process lives, which it would not without the guard."""
    found = run_script(
        """
        import os, random, shutil, sys, threading, time
        import iqrun
        iqrun.guard_mapped_files()
        source, path = sys.argv[1] + ".whole", sys.argv[1]
        shutil.copyfile(path, source)
        random.seed(5)
        refused = 0
        for round in range(20):
            shutil.copyfile(source, path)
            with iqrun.load(path, n_threads=2) as model, model.session() as session:
                cut = threading.Timer(random.random() * 0.02, os.truncate, (path, random.randrange(10**6)))
                cut.start()
                try:
                    for _ in range(40):
                        session.truncate(0)
                        session.evaluate([1] * (400 if round % 2 else 1))
                except iqrun.GGUFError as error:
                    assert "model.gguf" in str(error), error
                    refused += 1
                cut.join()
        with iqrun.load(source) as model:  # other files are well
            assert len(model.complete("Once", max_tokens=4)) > 0
        print(refused)
        """,
        path,
    )
    assert found.returncode == 0, found
    assert int(found.stdout) > 5


def test_the_guard_leaves_other_bus_errors_alone(tmp_path: Path) -> None:
    """S17: a fault in the host's own map ends the process as it would have, with the host's handler before it."""
    found = run_script(
        """
        import faulthandler, mmap, os, sys
        import iqrun
        faulthandler.enable()
        iqrun.guard_mapped_files()
        iqrun.guard_mapped_files()
        with open(sys.argv[1], "w+b") as file:
            file.write(bytes(1 << 16))
            file.flush()
            mine = mmap.mmap(file.fileno(), 0)
            file.truncate(0)
            mine[1 << 15]
        """,
        tmp_path / "own",
    )
    assert found.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in found.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads signal masks as Linux shows them")
def test_without_the_guard_no_signal_is_touched() -> None:
    """Loading and running a model changes neither handlers nor masks of the process and its threads."""
    found = run_script(
        """
        import sys
        def signals():
            lines = (line.split() for line in open("/proc/self/status"))
            names = ("SigBlk:", "SigIgn:", "SigCgt:")  # signals 32 and 33 are the C library's own
            return [int(line[1], 16) & 0x7fffffff for line in lines if line[0] in names]
        before = signals()
        import iqrun
        from iqrun.models.demo import model_path
        with iqrun.load(model_path(), n_threads=2) as model:
            model.complete("Once", max_tokens=4)
            assert signals() == before, (signals(), before)
        """
    )
    assert found.returncode == 0, found.stderr


def test_paths_that_are_no_files(tmp_path: Path, path: Path) -> None:
    """S17: directory, FIFO, device, missing file, link to nothing, a loop of links, no permission, an embedded NUL: an
    error with the path at once, never a wait."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "nothing").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")
    path.chmod(0)
    names = [".", "fifo", "missing", "nothing", "loop", "model.gguf/x", "a\0b", "x" * 300]
    names += [] if os.geteuid() == 0 else ["model.gguf"]  # root may read anything
    for name in [*(tmp_path / name for name in names), Path("/dev/null"), Path("/dev/zero")]:
        with pytest.raises(iqrun.GGUFError) as caught:
            iqrun.load(name)
        assert str(name) in str(caught.value)
        assert caught.value.path == str(name)


def test_odd_names_and_links_work(tmp_path: Path, path: Path) -> None:
    """S17: spaces, line ends, non-ASCII, bytes that are no UTF-8, symbolic and hard links."""
    odd = [os.fsencode(tmp_path) + b"/" + name for name in (b"a b\n%s.gguf", "ä☺".encode(), b"\xff\xfe")]
    for name in odd:
        os.link(path, name)
    (tmp_path / "link").symlink_to(path)
    for name in (*odd, tmp_path / "link"):
        with iqrun.load(name, n_threads=1) as model:  # type: ignore[arg-type]
            assert model.n_vocab > 0


@pytest.mark.parametrize("how", ["shorten", "rewrite"])
def test_a_source_that_changes_is_not_quantized(path: Path, tmp_path: Path, how: str) -> None:
    """S17: a source that is cut or rewritten while it is quantized is an error, and leaves no output."""
    found = run_script(
        """
        import os, sys
        import iqrun
        iqrun.guard_mapped_files()
        path, target, how = sys.argv[1:]
        def change(done, total, name):
            if 0 < done < total:
                if how == "shorten":
                    os.truncate(path, 1000)
                else:
                    with open(path, "r+b") as file:
                        file.seek(-4, os.SEEK_END)
                        file.write(b"0000")
        try:
            iqrun.quantize(path, target, "IQ4_KS", effort="fast", n_threads=2, progress=change)
        except iqrun.GGUFError as error:
            assert "model.gguf" in str(error), error
            assert not os.path.exists(target)
            print("refused")
        """,
        path,
        tmp_path / "out.gguf",
        how,
    )
    assert (found.returncode, found.stdout.strip()) == (0, "refused"), found
