"""iqrun.gguf.split: models in several files, and shards that do not fit together (S18)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqrun.errors import GGUFError
from iqrun.gguf import GGUFFile
from tests.gguf_builder import F32, INT32, STRING, UINT16, RawGGUF, kv


def shard(index: int, count: int, names: list[str], total: int | None = None) -> RawGGUF:
    """A shard with one float32 pair per name; the first one also says what the model is."""
    kvs = [kv("split.no", UINT16, index), kv("split.count", UINT16, count)]
    kvs += [] if total is None else [kv("split.tensors.count", INT32, total)]
    raw = RawGGUF(kvs=([kv("general.name", STRING, "first")] if index == 0 else []) + kvs)
    for name in names:
        raw.add_tensor(name, (2,), F32, np.array([index, len(name)], "<f4").tobytes())
    return raw


def write_model(folder: Path, shards: list[RawGGUF]) -> list[Path]:
    count = len(shards)
    return [raw.write(folder / f"m-{i + 1:05d}-of-{count:05d}.gguf") for i, raw in enumerate(shards)]


def three(folder: Path, total: int = 4) -> list[Path]:
    shards = [shard(0, 3, ["a"], total), shard(1, 3, ["bb", "ccc"], total), shard(2, 3, ["dddd"], total)]
    return write_model(folder, shards)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_shard_opens_all(tmp_path: Path, which: int) -> None:
    """Opening a shard opens the model: metadata of the first, tensors of all, each from its own file."""
    paths = three(tmp_path)
    with GGUFFile(paths[which]) as file:
        assert [str(path) for path in paths] == list(file.paths)
        assert file.metadata.get_str("general.name") == "first"
        assert {n: t.file_index for n, t in file.tensors.items()} == {"a": 0, "bb": 1, "ccc": 1, "dddd": 2}
        for name, info in file.tensors.items():
            assert [info.file_index, len(name)] == file.tensor_bytes(name).view("<f4").tolist()


def test_s18_missing_shard_is_named(tmp_path: Path) -> None:
    """S18: the path of the absent file is in the message."""
    paths = three(tmp_path)
    paths[1].unlink()
    with pytest.raises(GGUFError, match=r"m-00002-of-00003\.gguf: cannot open it"):
        GGUFFile(paths[0])


def test_s18_shard_of_another_place_or_model(tmp_path: Path) -> None:
    """S18: numbers that do not fit the place, a wrong tensor total, a tensor in two shards."""
    paths = three(tmp_path)
    shard(2, 3, ["bb"], 4).write(paths[1])
    with pytest.raises(GGUFError, match=r"00002-of-00003.*says that it is shard 3 of 3, but its place is 2 of 3"):
        GGUFFile(paths[0])
    shard(1, 7, ["bb"], 4).write(paths[1])
    with pytest.raises(GGUFError, match="shard 2 of 7"):
        GGUFFile(paths[0])
    shard(1, 3, ["bb"], 4).write(paths[1])
    with pytest.raises(GGUFError, match="is 4, but the shards hold 3"):
        GGUFFile(paths[0])
    shard(1, 3, ["a", "ccc"], 4).write(paths[1])
    with pytest.raises(GGUFError, match=r"00002-of-00003.*'a' is also in another shard"):
        GGUFFile(paths[0])
    RawGGUF().write(paths[1])
    with pytest.raises(GGUFError, match=r"00002-of-00003.*'split.count' is missing"):
        GGUFFile(paths[0])


def test_s18_lying_count_and_name(tmp_path: Path) -> None:
    """S18: a split.count that the file name contradicts is refused without looking for thousands of files."""
    path = shard(0, 65535, ["a"]).write(tmp_path / "m-00001-of-00003.gguf")
    with pytest.raises(GGUFError, match=r"split\.count is 65535, but the file is not named NAME-00001-of-65535\.gguf"):
        GGUFFile(path)
    path = shard(0, 2, ["a"]).write(tmp_path / "renamed.gguf")
    with pytest.raises(GGUFError, match="not named"):
        GGUFFile(path)


def test_single_shard_is_a_whole_model(tmp_path: Path) -> None:
    """A model "split" into one file opens under any name."""
    with GGUFFile(shard(0, 1, ["a"], 1).write(tmp_path / "x.gguf")) as file:
        assert list(file.tensors) == ["a"]
