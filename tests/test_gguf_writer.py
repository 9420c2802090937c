"""iqrun.gguf.writer: what is written reads back, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from iqrun.errors import GGUFError, ResourceError
from iqrun.formats import FORMATS
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, StringArray, ValueType, keys
from tests.gguf_builder import tiny_llama

SCALARS: list[tuple[ValueType, Any]] = [
    (ValueType.UINT8, 255),
    (ValueType.INT8, -128),
    (ValueType.UINT16, 65535),
    (ValueType.INT16, -32768),
    (ValueType.UINT32, 2**32 - 1),
    (ValueType.INT32, -(2**31)),
    (ValueType.FLOAT32, 0.25),
    (ValueType.BOOL, True),
    (ValueType.STRING, "Grüße"),
    (ValueType.UINT64, 2**64 - 1),
    (ValueType.INT64, -(2**63)),
    (ValueType.FLOAT64, 1e300),
]


def full_plan() -> GGUFPlan:
    """One key of each type, scalar and array."""
    plan = GGUFPlan()
    for kind, value in SCALARS:
        plan.set(f"one.{kind.name}", value, kind)
        plan.set_array(f"many.{kind.name}", [value, value], kind)
        plan.set_array(f"none.{kind.name}", [], kind)
    return plan


def finish(path: Path, plan: GGUFPlan, **options: bool) -> Path:
    with GGUFWriter(path, plan, **options) as writer:
        for info in plan.tensors:
            writer.write(bytes(info.n_bytes))
    return path


def test_every_value_type_round_trips(tmp_path: Path) -> None:
    """Scalars and arrays of all types read back by iqrun and by the gguf package."""
    path = finish(tmp_path / "m.gguf", full_plan())
    reference = gguf.GGUFReader(path)
    with GGUFFile(path) as file:
        for kind, value in SCALARS:
            assert value == file.metadata[f"one.{kind.name}"] == reference.fields[f"one.{kind.name}"].contents()
            many = file.metadata[f"many.{kind.name}"]
            assert isinstance(many, (StringArray, np.ndarray))
            assert [value, value] == list(many) == reference.fields[f"many.{kind.name}"].contents()
            assert kind == file.metadata.entry(f"many.{kind.name}").item


def test_copied_metadata_is_byte_identical(tmp_path: Path) -> None:
    """Copying every key, invalid UTF-8 included, gives the same bytes and types."""
    plan = full_plan()
    plan.set_array("bytes", [b"\xff", b"", "x"], ValueType.STRING)
    plan.set("k\udcff", b"\xfe", ValueType.STRING)
    with GGUFFile(finish(tmp_path / "a.gguf", plan)) as first:
        copy = GGUFPlan()
        for key in first.metadata:
            copy.copy(first.metadata, key)
        finish(tmp_path / "b.gguf", copy)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_string_array_of_a_file_can_be_set_again(tmp_path: Path) -> None:
    """A StringArray is written with its raw bytes."""
    plan = GGUFPlan()
    plan.set_array("words", [b"\xff", "b"], ValueType.STRING)
    with GGUFFile(finish(tmp_path / "a.gguf", plan)) as first:
        again = GGUFPlan()
        again.set_array("words", first.metadata.get_array("words", "str"), ValueType.STRING)
    assert plan.encode() == again.encode()


def test_whole_model_round_trips(tmp_path: Path) -> None:
    """A model copied tensor by tensor holds the same keys and data, as the gguf package sees it."""
    source = tiny_llama(tmp_path / "a.gguf", weight_type="F16")
    with GGUFFile(source) as file:
        plan = GGUFPlan(alignment=64)
        for key in file.metadata:
            plan.copy(file.metadata, key)
        for info in file.tensors.values():
            plan.add_tensor(info.name, info.shape, info.type_id)
        with GGUFWriter(tmp_path / "b.gguf", plan) as writer:
            for info in file.tensors.values():
                for row in file.tensor_rows(info.name):
                    writer.write(row)
    first, second = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "b.gguf")
    assert second.alignment == 64
    for one, two in zip(first.tensors, second.tensors, strict=True):
        assert (one.name, list(one.shape), one.data.tobytes()) == (two.name, list(two.shape), two.data.tobytes())
    assert plan.file_bytes == (tmp_path / "b.gguf").stat().st_size


@pytest.mark.parametrize("name", FORMATS)
def test_every_tensor_type_round_trips(tmp_path: Path, name: str) -> None:
    """Types with and without row_meta take exactly the planned bytes, written in pieces of any size."""
    plan = GGUFPlan()
    info = plan.add_tensor("t", (512, 3), FORMATS[name].id)
    plan.add_tensor("after", (1,), 0)
    data = np.random.default_rng(0).integers(0, 256, info.n_bytes, np.uint8)
    with GGUFWriter(tmp_path / "m.gguf", plan) as writer:
        for first in range(0, len(data), 1001):
            writer.write(data[first : first + 1001])
        writer.write(b"last")
    with GGUFFile(tmp_path / "m.gguf") as file:
        assert data.tobytes() == file.tensor_bytes("t").tobytes()
        assert file.tensor_bytes("after").tobytes() == b"last"
        assert plan.file_bytes == file.file_bytes


def test_plan_refuses_what_cannot_be_stored() -> None:
    """Values outside their type, nested arrays, bad keys, names, shapes and alignments."""
    plan = GGUFPlan()
    for value, kind in [
        (256, ValueType.UINT8),
        (-1, ValueType.UINT32),
        (2**63, ValueType.INT64),
        (1.5, ValueType.INT32),
        (1e300, ValueType.FLOAT32),
        (2, ValueType.BOOL),
        ("x", ValueType.UINT8),
        (1, ValueType.STRING),
        (1, ValueType.ARRAY),
    ]:
        with pytest.raises(ValueError, match=r"."):
            plan.set("key", value, kind)
    for call in (
        lambda: plan.set_array("key", [], ValueType.ARRAY),
        lambda: plan.set("", 1, ValueType.UINT8),
        lambda: plan.set("k" * 65536, 1, ValueType.UINT8),
        lambda: plan.add_tensor("", (1,), 0),
        lambda: plan.add_tensor("n" * 64, (1,), 0),
        lambda: plan.add_tensor("t", (), 0),
        lambda: plan.add_tensor("t", (1, 1, 1, 1, 1), 0),
        lambda: plan.add_tensor("t", (0,), 0),
        lambda: plan.add_tensor("t", (255,), FORMATS["IQ3_K"].id),
        lambda: GGUFPlan(alignment=48),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()
    assert (plan.file_bytes - len(plan.encode()), plan.tensors) == (0, ())
    plan.add_tensor("t", (1,), 0)
    with pytest.raises(ValueError, match="taken"):
        plan.add_tensor("t", (1,), 0)


def test_existing_file_is_kept_unless_overwrite(tmp_path: Path) -> None:
    """Without overwrite the writer refuses at once; with it, the old file stays until the new one is complete."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(GGUFError, match="the file exists"):
        finish(path, full_plan())
    plan = full_plan()
    plan.add_tensor("t", (4,), 0)
    with GGUFWriter(path, plan, overwrite=True) as writer:
        assert path.read_bytes() == b"old"
        writer.write(bytes(16))
    assert path.read_bytes()[:4] == b"GGUF"
    assert [path] == list(tmp_path.iterdir())


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    """An exception inside the block, an unfinished tensor and surplus data remove the temporary file."""
    plan = full_plan()
    plan.add_tensor("t", (4,), 0)
    path = tmp_path / "m.gguf"
    with pytest.raises(KeyboardInterrupt), GGUFWriter(path, plan) as writer:
        writer.write(bytes(8))
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="'t' is not complete"), GGUFWriter(path, plan) as writer:
        writer.write(bytes(8))
    with pytest.raises(ValueError, match="t needs only 16 more bytes, not 17"), GGUFWriter(path, plan) as writer:
        writer.write(bytes(17))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["open", "write", "fsync"])
def test_disk_full_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A full disk at any moment: one sentence with the size needed, and nothing is left."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object) -> None:
        raise full

    plan = full_plan()
    plan.add_tensor("t", (4,), 0)
    with pytest.raises(ResourceError, match=f"the disk is full; the file needs {plan.file_bytes} bytes"):
        if where == "open":
            monkeypatch.setattr(GGUFWriter, "_check_target", fail_in_open(full, monkeypatch))
        if where == "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        with GGUFWriter(tmp_path / "m.gguf", plan) as writer:
            if where == "write":
                monkeypatch.setattr(writer._part._file, "_raw", _FullDisk(writer._part._file._raw))
            writer.write(bytes(16))
    assert list(tmp_path.iterdir()) == []


def fail_in_open(error: OSError, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the temporary file impossible to create."""

    def fail(*_: object, **__: object) -> None:
        raise error

    def check(self: GGUFWriter) -> None:
        monkeypatch.setattr(Path, "open", fail)

    return check


class _FullDisk:
    """A file that takes nothing."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_unwritable_targets_are_named(tmp_path: Path) -> None:
    """A folder, a device and a missing folder are refused with the path."""
    for path, match in [
        (tmp_path, "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "absent" / "m.gguf", "cannot write it: No such file"),
    ]:
        with pytest.raises(GGUFError, match=match) as caught:
            finish(path, full_plan(), overwrite=True)
        assert str(path) in str(caught.value)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    """The finished file has the permissions of any newly made file, not those of a temporary one."""
    path = finish(tmp_path / "m.gguf", full_plan())
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == stat.S_IMODE(path.stat().st_mode)


def test_link_is_written_through(tmp_path: Path) -> None:
    """Writing to a link replaces the file that it points to and keeps the link."""
    target = tmp_path / "folder" / "m.gguf"
    target.parent.mkdir()
    target.write_bytes(b"old")
    (tmp_path / "link.gguf").symlink_to(target)
    finish(tmp_path / "link.gguf", full_plan(), overwrite=True)
    assert (tmp_path / "link.gguf").is_symlink()
    assert target.read_bytes()[:4] == b"GGUF"


def test_key_names_agree_with_the_gguf_package() -> None:
    """Our key names and value types are those of the field."""
    theirs = {
        value
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for value in vars(group).values()
        if isinstance(value, str)
    }
    ours = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    assert set() == {key for key in ours - theirs if not key.startswith(("iqrun.", "quantize."))}
    assert {kind.name: kind.value for kind in gguf.GGUFValueType} == {kind.name: kind.value for kind in ValueType}
