"""A file to be, cut into files of a greatest size: ``NAME-00001-of-0000N.gguf`` and so on.

The first file has the metadata; all have the numbers of the split. A tensor is never cut, so a file of one huge tensor
may be larger than asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

from iqrun.errors import QuantizeError
from iqrun.gguf import GGUFPlan, TensorInfo, ValueType, keys

_MAX_SHARDS = 99999  # five digits in the name
_SUFFIX = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$")
_INFO_BYTES = 8 + 4 + 4 * 8 + 4 + 8  # of a tensor's description, its name left out


def split(plan: GGUFPlan, max_bytes: int | None) -> list[GGUFPlan]:
    """The plans of the files: just `plan` if it is small enough or `max_bytes` is None.

    Raises:
        QuantizeError: there would be more files than their names can count.
        ValueError: `max_bytes` is below 1.
    """
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"the greatest size of a shard is {max_bytes} bytes, but must be at least 1")
    if max_bytes is None or plan.file_bytes <= max_bytes:
        return [plan]
    groups = _groups(plan, max_bytes)
    if len(groups) > _MAX_SHARDS:
        raise QuantizeError(f"files of at most {max_bytes} bytes make {len(groups)} shards; allow larger ones")
    others = [GGUFPlan(alignment=plan.alignment) for _ in groups[1:]]
    shards = [plan.without_tensors(), *others]
    for index, (shard, group) in enumerate(zip(shards, groups, strict=True)):
        _number(shard, index, len(groups), len(plan.tensors))
        for info in group:
            shard.add_tensor(info.name, info.shape, info.type_id)
    return shards


def shard_paths(path: Path, count: int) -> list[Path]:
    """The names of the files, in the field's way; just `path` if there is one."""
    if count == 1:
        return [path]
    stem = _SUFFIX.sub("", path.name)
    return [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]


def _groups(plan: GGUFPlan, max_bytes: int) -> list[list[TensorInfo]]:
    """The tensors of each file, as many as fit. Sizes are rounded up a little, so no file becomes too large."""
    empty = plan.without_tensors()
    _number(empty, 0, 1, 0)
    groups: list[list[TensorInfo]] = []
    size = 0
    for info in plan.tensors:
        more = _INFO_BYTES + len(info.name.encode("utf-8", "surrogateescape")) + info.n_bytes + plan.alignment
        if not groups or (groups[-1] and size + more > max_bytes):
            size = empty.file_bytes if not groups else _other_header(plan)
            groups.append([])
        groups[-1].append(info)
        size += more
    return groups


def _other_header(plan: GGUFPlan) -> int:
    other = GGUFPlan(alignment=plan.alignment)
    _number(other, 0, 1, 0)
    return other.file_bytes


def _number(plan: GGUFPlan, index: int, count: int, n_tensors: int) -> None:
    plan.set(keys.SPLIT_NO, index, ValueType.UINT16)
    plan.set(keys.SPLIT_COUNT, count, ValueType.UINT16)
    plan.set(keys.SPLIT_TENSORS_COUNT, n_tensors, ValueType.INT32)
