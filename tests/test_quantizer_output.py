"""iqrun.quantizer.output: runs that are stopped and resumed, and files in several parts."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqrun.errors import QuantizeError, ResourceError
from iqrun.gguf import GGUFFile, hashes
from iqrun.quantizer import journal, quantize
from iqrun.quantizer.report import QuantizeReport
from tests.gguf_builder import tiny_llama
from tests.test_quantizer_pipeline import full_imatrix

N_TENSORS = 2 * 9 + 3


class Stopped(Exception):
    """What the tests stop a run with."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=2, weight_type="F16")


def stop_at(calls: int) -> Callable[..., None]:
    """A progress callback that stops the run at its n-th call."""
    count = itertools.count(1)

    def progress(*_: object) -> None:
        if next(count) == calls:
            raise Stopped

    return progress


def run(source: Path, out: Path, **options: Any) -> QuantizeReport:
    return quantize(source, out, "IQ3_K", effort="fast", n_threads=1, **options)


def content(folder: Path) -> dict[str, bytes]:
    """Everything that a run has left, the input aside."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "in.gguf"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [1, 2, 11, 20, N_TENSORS])
@pytest.mark.parametrize("max_shard_bytes", [None, 300_000])
def test_resumed_run_gives_the_same_bytes(
    source: Path, tmp_path: Path, calls: int, max_shard_bytes: int | None
) -> None:
    """Stopped after any tensor, in one file or several: files and report are those of an unbroken run."""
    options = {"max_shard_bytes": max_shard_bytes, "hashes": True}
    folders = [tmp_path / "whole", tmp_path / "broken"]
    for folder in folders:
        folder.mkdir()
    whole = run(source, folders[0] / "out.gguf", **options)
    with pytest.raises(Stopped):
        run(source, folders[1] / "out.gguf", resume=True, progress=stop_at(calls), **options)
    assert names(folders[1]) == {"out.gguf.part"}
    seen: list[tuple[int, int, str]] = []
    broken = run(source, folders[1] / "out.gguf", resume=True, progress=lambda *call: seen.append(call), **options)
    assert content(folders[0]) == content(folders[1])
    assert names(folders[0]) == names(folders[1])
    assert whole.tensors == broken.tensors
    assert N_TENSORS - calls == len({name for _, _, name in seen})
    assert seen == [] or seen[-1][0] == whole.n_weights


def test_resume_without_an_earlier_run_starts_one(source: Path, tmp_path: Path) -> None:
    """The option may be given from the start."""
    run(source, tmp_path / "a.gguf", resume=True)
    run(source, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_damaged_parts_are_made_again(source: Path, tmp_path: Path) -> None:
    """After a power cut bytes may be missing or wrong, and the journal cut off: only what is intact is kept."""
    out, part = tmp_path / "out.gguf", tmp_path / "out.gguf.part"
    run(source, tmp_path / "whole.gguf")
    for damage in ("flip", "shorten", "tear the journal", "lose the file", "empty journal"):
        with pytest.raises(Stopped):
            run(source, out, resume=True, progress=stop_at(12))
        data, journal = part / "00001.gguf", part / "journal.jsonl"
        raw = bytearray(data.read_bytes())
        if damage == "flip":
            raw[-1000] ^= 4
            data.write_bytes(raw)
        elif damage == "shorten":
            data.write_bytes(raw[: len(raw) // 2])
        elif damage == "tear the journal":
            journal.write_bytes(journal.read_bytes()[:-40])
        elif damage == "lose the file":
            data.unlink()
        else:
            journal.write_bytes(b"")
        run(source, out, resume=True)
        assert out.read_bytes() == (tmp_path / "whole.gguf").read_bytes(), damage
        out.unlink()
        assert not part.exists()


def test_changed_settings_are_refused_and_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the bytes depend on must be as it was; the finished tensors survive the refusal."""
    out = tmp_path / "out.gguf"
    matrix = full_imatrix(source, tmp_path / "m.dat")
    with pytest.raises(Stopped):
        run(source, out, resume=True, progress=stop_at(5))
    for options, what in [
        ({"imatrix": matrix}, "the importance matrix"),
        ({"output_type": "Q8_0"}, "the types, shards or hashes"),
        ({"max_shard_bytes": 300_000}, "the types, shards or hashes"),
        ({"hashes": True}, "the types, shards or hashes"),
    ]:
        with pytest.raises(QuantizeError, match=f"begun with other settings: {what} changed"):
            run(source, out, resume=True, **options)
    with pytest.raises(QuantizeError, match="the effort changed"):
        quantize(source, out, "IQ3_K", effort="best", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr("iqrun.quantizer.pipeline.version", lambda: "99")
        with pytest.raises(QuantizeError, match="the version of iqrun changed"):
            run(source, out, resume=True)
    run(source, out, resume=True)
    with pytest.raises(Stopped):
        run(source, out, resume=True, overwrite=True, progress=stop_at(5))
    raw = bytearray(source.read_bytes())
    raw[-2] ^= 1
    source.write_bytes(raw)
    with pytest.raises(QuantizeError, match="the model changed"):
        run(source, out, resume=True, overwrite=True)


def test_an_unfinished_run_is_not_lost_by_accident(source: Path, tmp_path: Path) -> None:
    """Without resume a run refuses to throw finished tensors away, unless overwrite says so."""
    out = tmp_path / "out.gguf"
    with pytest.raises(Stopped):
        run(source, out, resume=True, progress=stop_at(5))
    with pytest.raises(QuantizeError, match=rf"out\.gguf\.part holds an unfinished run \(5 of {N_TENSORS} tensors\)"):
        run(source, out)
    run(source, out, overwrite=True)
    assert names(tmp_path) == {"in.gguf", "out.gguf"}


def test_failure_without_resume_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """As if it had never run, also with several files."""
    for options in ({}, {"max_shard_bytes": 300_000}):
        with pytest.raises(Stopped):
            run(source, tmp_path / "out.gguf", progress=stop_at(15), **options)
        assert names(tmp_path) == {"in.gguf"}


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_two_runs_do_not_mix(source: Path, tmp_path: Path) -> None:
    """A second run for the same output is refused while the first is at work, and the first ends well."""
    refused = []

    def second(*_: object) -> None:
        with pytest.raises(QuantizeError, match="another process is at work") as error:
            run(source, tmp_path / "out.gguf", resume=True, overwrite=True)
        refused.append(error)

    run(source, tmp_path / "out.gguf", progress=second)
    assert refused
    assert names(tmp_path) == {"in.gguf", "out.gguf"}


def test_death_while_the_files_get_their_names(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two renames, or after the last: the next run puts the rest in place and computes nothing."""
    wanted = tmp_path / "wanted"
    wanted.mkdir()
    run(source, wanted / "out.gguf", max_shard_bytes=300_000)
    n_shards = len(names(wanted))
    assert n_shards >= 3
    real = Path.replace
    for n_renamed in range(n_shards):
        folder = tmp_path / str(n_renamed)
        folder.mkdir()
        calls = itertools.count()

        def replace(self: Path, target: Path, calls: Any = calls, n_renamed: int = n_renamed) -> Path:
            if next(calls) == n_renamed:
                raise Stopped
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(Stopped):
                run(source, folder / "out.gguf", max_shard_bytes=300_000, resume=True)
        assert n_renamed == len(names(folder)) - 1
        run(source, folder / "out.gguf", max_shard_bytes=300_000, resume=True, progress=stop_at(1))
        assert content(wanted) == content(folder)
        assert names(wanted) == names(folder)


def kill_and_resume(source: Path, folder: Path, n_kills: int, rng: random.Random) -> int:
    """Kills `iqrun quantize --resume` up to `n_kills` times until it finishes; returns how often it was killed."""
    command = [sys.executable, "-m", "iqrun", "quantize", str(source), str(folder / "out.gguf"), "IQ4_K"]
    command += ["--effort", "best", "-t", "1", "--resume", "--max-shard-size", "400K", "--hash"]
    killed = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            error = process.communicate(timeout=rng.uniform(0.1, 0.6) if killed < n_kills else 60)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            error = process.communicate()[1]
        if process.returncode == 0 or (folder.exists() and names(folder) and "out.gguf.part" not in names(folder)):
            return killed  # also if it was killed behind its last step
        assert (process.returncode, error) == (-signal.SIGKILL, b"")
        killed += 1


@pytest.mark.skipif(sys.platform != "linux", reason="POSIX signals")
@pytest.mark.parametrize("n_kills", [15, pytest.param(200, marks=pytest.mark.slow)], ids=["quick", "long"])
def test_killed_at_random_moments(source: Path, tmp_path: Path, n_kills: int) -> None:
    """kill -9 again and again: the files in the end are those of an unbroken run, and nothing else is left."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    quantize(source, whole / "out.gguf", "IQ4_K", effort="best", max_shard_bytes=400_000, hashes=True)
    rng, killed = random.Random(n_kills), 0
    while killed < n_kills:
        broken.mkdir()
        killed += kill_and_resume(source, broken, n_kills - killed, rng)
        assert content(whole) == content(broken)
        assert names(whole) == names(broken)
        shutil.rmtree(broken)


# ---- a full disk --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
@pytest.mark.parametrize("resume", [False, True])
def test_disk_that_fills_up(source: Path, tmp_path: Path, resume: bool) -> None:
    """A real limit of the system in the middle of a file: a clear error; nothing, or what can be gone on with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(ResourceError, match="the disk is full") as error:
            run(source, tmp_path / "out.gguf", resume=resume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if not resume:
        assert "nothing was left behind" in str(error.value)
        assert names(tmp_path) == {"in.gguf"}
        return
    assert f"of {N_TENSORS} tensors are kept" in str(error.value)
    run(source, tmp_path / "out.gguf", resume=True)
    run(source, tmp_path / "whole.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


# ---- several files ------------------------------------------------------------------------------------------------


def test_shards_hold_the_model(source: Path, tmp_path: Path) -> None:
    """No file is too large, together they are the model, and quantizing them again gives the single file."""
    run(source, tmp_path / "one.gguf")
    report = run(source, tmp_path / "many.gguf", max_shard_bytes=300_000, hashes=True)
    shards = sorted(tmp_path.glob("many-*.gguf"))
    count = len(shards)
    assert [f"many-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)] == [p.name for p in shards]
    assert str(shards[0]) == report.destination
    assert all(path.stat().st_size <= 300_000 for path in shards)
    assert sum(path.stat().st_size for path in shards) == report.n_bytes
    with GGUFFile(tmp_path / "one.gguf") as one, GGUFFile(shards[-1]) as many:
        assert list(one.tensors) == list(many.tensors)
        assert all((one.tensor_bytes(name) == many.tensor_bytes(name)).all() for name in one.tensors)
        assert set(one.metadata) < set(many.metadata)
        assert all(is_good for _, is_good in hashes.verify(many))
        assert N_TENSORS == len(hashes.stored(many))
    quantize(shards[1], tmp_path / "copy.gguf", "IQ3_K", tensor_types=[(".", "Q8_0")], allow_requantize=True)
    quantize(tmp_path / "one.gguf", tmp_path / "two.gguf", "IQ3_K", tensor_types=[(".", "Q8_0")], allow_requantize=True)
    assert (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_a_model_that_fits_stays_one_file(source: Path, tmp_path: Path) -> None:
    """A limit above the size changes nothing; one below any tensor gives each its own file."""
    report = run(source, tmp_path / "a.gguf")
    run(source, tmp_path / "b.gguf", max_shard_bytes=report.n_bytes)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    run(source, tmp_path / "c-00001-of-00007.gguf", max_shard_bytes=1)
    assert N_TENSORS == len(list(tmp_path.glob(f"c-*-of-{N_TENSORS:05d}.gguf")))
    with pytest.raises(ValueError, match="must be at least 1"):
        run(source, tmp_path / "d.gguf", max_shard_bytes=0)


def test_shards_never_replace_what_is_there(source: Path, tmp_path: Path) -> None:
    """One file in the way stops all, before the work; a shard of the input is never an output."""
    run(source, tmp_path / "out.gguf", max_shard_bytes=300_000)
    shards = sorted(tmp_path.glob("out-*.gguf"))
    for path in shards[1:]:
        path.unlink()
    shards[0].write_bytes(b"precious")
    with pytest.raises(QuantizeError, match=r"00001-of-.* exists"):
        run(source, tmp_path / "out.gguf", max_shard_bytes=300_000, progress=stop_at(1))
    assert names(tmp_path) == {"in.gguf", shards[0].name}
    assert shards[0].read_bytes() == b"precious"
    run(source, tmp_path / "s.gguf", max_shard_bytes=300_000)
    first = min(tmp_path.glob("s-*.gguf"))
    with pytest.raises(QuantizeError, match="is the input"):
        run(first, tmp_path / "s.gguf", max_shard_bytes=300_000, allow_requantize=True, overwrite=True)


def test_many_small_reads(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run has left is verified in pieces."""
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 1000)
    with pytest.raises(Stopped):
        run(source, tmp_path / "out.gguf", resume=True, progress=stop_at(12))
    seen: list[str] = []
    run(source, tmp_path / "out.gguf", resume=True, progress=lambda *call: seen.append(call[2]))
    assert N_TENSORS - 12 == len(set(seen))
