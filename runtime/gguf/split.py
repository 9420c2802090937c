"""Models cut into several files: ``NAME-00001-of-0000N.gguf`` and so on."""

from __future__ import annotations

import re
from pathlib import Path

from iqrun.errors import GGUFError
from iqrun.gguf import keys
from iqrun.gguf.header import Header

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def shard_paths(path: str, header: Header) -> list[str]:
    """The paths of all files of the model to which the file `path` belongs, in order; just `path` if it is whole.

    Raises:
        GGUFError: the file says that it is a shard, but its name does not fit.
    """
    count = header.metadata.get_uint(keys.SPLIT_COUNT, 1)
    if count <= 1:
        return [path]
    name = _SHARD.fullmatch(Path(path).name)
    if name is None or int(name["count"]) != count:
        wanted = f"NAME-00001-of-{count:05d}.gguf"
        raise GGUFError(
            f"{keys.SPLIT_COUNT} is {count}, but the file is not named {wanted}", path=path, key=keys.SPLIT_COUNT
        )
    folder = Path(path).parent
    return [str(folder / f"{name['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]


def check_shard(path: str, header: Header, index: int, count: int) -> None:
    """A shard's own numbers must agree with its place.

    Raises:
        GGUFError: naming the shard.
    """
    n_shards = header.metadata.get_uint(keys.SPLIT_COUNT)
    number = header.metadata.get_uint(keys.SPLIT_NO)
    if (number, n_shards) != (index, count):
        what = f"this file says that it is shard {number + 1} of {n_shards}, but its place is {index + 1} of {count}"
        raise GGUFError(what, path=path, key=keys.SPLIT_NO)


def check_tensor_count(path: str, header: Header, n_tensors: int) -> None:
    """The first shard's count of tensors must be that of all shards together.

    Raises:
        GGUFError: naming both counts.
    """
    wanted = header.metadata.get_uint(keys.SPLIT_TENSORS_COUNT, n_tensors)
    if wanted != n_tensors:
        what = f"{keys.SPLIT_TENSORS_COUNT} is {wanted}, but the shards hold {n_tensors}: one is another model's"
        raise GGUFError(what, path=path, key=keys.SPLIT_TENSORS_COUNT)
