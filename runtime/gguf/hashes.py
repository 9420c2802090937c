"""SHA-256 of every tensor, kept in the file: damage from a disk or a download is found tensor by tensor.

Two string arrays of equal length pair each tensor with the hash of its stored bytes, padding left out::

    iqrun.hash.names     "token_embd.weight"   "blk.0.attn_q.weight" ...
    iqrun.hash.sha256    64 hexadecimal digits each

In a split model they stand in the first file, for the tensors of all files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from iqrun.errors import GGUFError
from iqrun.gguf import keys
from iqrun.gguf.header import TensorInfo
from iqrun.gguf.keys import ValueType
from iqrun.gguf.plan import GGUFPlan
from iqrun.gguf.reader import GGUFFile

UNKNOWN = "0" * 64  # holds a hash's place in a header that is planned before the data

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 22


def set_hashes(plan: GGUFPlan, names: Sequence[str], digests: Sequence[str]) -> None:
    """Writes the hashes into a header; the header's size does not depend on their values."""
    plan.set_array(keys.HASH_NAMES, names, ValueType.STRING)
    plan.set_array(keys.HASH_SHA256, digests, ValueType.STRING)


def stored(file: GGUFFile) -> Mapping[str, str]:
    """The hashes that a file carries, by tensor name; empty if it has none.

    Raises:
        GGUFError: they are malformed, or name a tensor that is not there.
    """
    names = list(file.metadata.get_array(keys.HASH_NAMES, "str", ()))
    digests = list(file.metadata.get_array(keys.HASH_SHA256, "str", ()))
    if len(names) != len(digests) or len(set(names)) != len(names):
        what = f"{keys.HASH_NAMES} and {keys.HASH_SHA256} do not pair {len(names)} tensors with {len(digests)} hashes"
        raise GGUFError(what, path=file.path, key=keys.HASH_SHA256)
    for name, digest in zip(names, digests, strict=True):
        if not _DIGEST.fullmatch(digest):
            raise GGUFError(f"the hash of {name!r} is no SHA-256: {digest[:64]!r}", path=file.path, key=name)
        if name not in file.tensors:
            what = f"{keys.HASH_NAMES} lists {name!r}, but there is no such tensor: it was lost or renamed"
            raise GGUFError(what, path=file.path, key=name)
    return dict(zip(names, digests, strict=True))


def digest(file: GGUFFile, name: str) -> str:
    """SHA-256 of a tensor's bytes; memory stays bounded, whatever its size."""
    found = hashlib.sha256()
    rows, info = file.tensor_rows(name), file.tensor(name)
    step = max(1, _CHUNK_BYTES // info.row_bytes)
    for first in range(0, info.n_rows, step):
        last = min(first + step, info.n_rows)
        found.update(rows[first:last].data)
        file.release_rows(name, first, last)
    return found.hexdigest()


def verify(file: GGUFFile) -> Iterator[tuple[TensorInfo, bool]]:
    """Reads every tensor that has a hash, in file order, and says whether its bytes are those that were hashed.

    Raises:
        GGUFError: the hashes are malformed, or name a tensor that is not there.
    """
    wanted = stored(file)
    for name, info in file.tensors.items():
        if name in wanted:
            yield info, digest(file, name) == wanted[name]
