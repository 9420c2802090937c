"""`iqrun inspect`: show what a GGUF file holds."""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from iqrun.cli import ui

if TYPE_CHECKING:
    from iqrun.file_check import TensorCheck
    from iqrun.gguf import GGUFFile, TensorInfo, Value

HELP = "show what a GGUF file holds"
EXAMPLES = """\
  iqrun inspect model.gguf
  iqrun inspect model.gguf --tensors | sort -k3
  iqrun inspect model.gguf --program
  iqrun inspect model.gguf --tensors --json
  iqrun inspect model.gguf --check
"""

_SHOWN_ITEMS = 4  # of a long array
_SHOWN_CHARACTERS = 200  # of a long string


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("file", metavar="FILE", help="a GGUF file; of a split model any shard")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--program", action="store_true", help="print the operations that run the model")
    parser.add_argument(
        "--check", action="store_true", help="read every weight: find NaN and infinities, compare stored hashes"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, long arrays in full")


def run(args: argparse.Namespace) -> int:
    """Prints the summary, and what else was asked for."""
    from iqrun import GGUFFile

    with GGUFFile(args.file) as file:
        program = _program(file) if args.program else None
        checks = _check(file) if args.check else []
        if args.json:
            ui.print_json(_as_json(file, program, checks))
        else:
            print(_summary(file))
            if args.tensors:
                print("\n" + _tensor_table(file))
            if program is not None:
                print("\n" + program)
            if args.check:
                print("\n" + _check_report(checks))
    return 0 if all(check.sound for check in checks) else 1


def _check(file: GGUFFile) -> list[TensorCheck]:
    from iqrun.file_check import check_tensors

    with ui.Progress("checking", unit="B") as progress:
        return list(check_tensors(file, progress))


def _check_report(checks: list[TensorCheck]) -> str:
    """What is wrong, tensor by tensor, and what could be looked at."""
    damaged = [check for check in checks if not check.sound]
    hashed = sum(check.hash_agrees is not None for check in checks)
    unread = sorted({check.info.type.name for check in checks if check.n_nan is None})
    rows = [(ui.printable(check.info.name), check.info.type.name, *_findings(check)) for check in damaged]
    lines = [ui.table(("damaged tensor", "type", "NaN", "infinite", "first at", "hash"), rows)] if rows else []
    lines.append(f"check: {len(damaged)} of {len(checks)} tensors are damaged; {hashed} were compared with a hash")
    if unread:
        lines.append(f"check: weights of type {', '.join(unread)} cannot be decoded by iqrun and were not looked at")
    return "\n".join(lines)


def _findings(check: TensorCheck) -> tuple[object, object, str, str]:
    n_nan, n_inf = ("?" if count is None else count for count in (check.n_nan, check.n_inf))
    first = "" if check.first is None else f"row {check.first[0]} column {check.first[1]}"
    return n_nan, n_inf, first, {None: "", True: "agrees", False: "differs"}[check.hash_agrees]


def _summary(file: GGUFFile) -> str:
    """Sizes, storage types and metadata, as aligned text."""
    n_weights, n_bytes = _totals(file)
    facts = [
        ("file", ", ".join(file.paths)),
        ("format", f"GGUF version {file.version}, alignment {file.alignment}"),
        ("size", f"{ui.human_bytes(file.file_bytes)} ({file.file_bytes} bytes)"),
        ("tensors", f"{len(file.tensors)}, {n_weights} weights, {_bpw(n_bytes, n_weights):.3f} bits per weight"),
    ]
    parts = [ui.table(("", ""), [(key, ui.printable(value)) for key, value in facts]).lstrip()]
    types = [(name, len(infos), *_type_sizes(infos)) for name, infos in _by_type(file).items()]
    if types:
        parts.append(ui.table(("type", "tensors", "weights", "size", "bpw"), types))
    rows = [
        (ui.printable(key), file.metadata.entry(key).describe(), _shown(value)) for key, value in file.metadata.items()
    ]
    parts.append(ui.table(("key", "type", "value"), rows))
    return "\n\n".join(parts)


def _tensor_table(file: GGUFFile) -> str:
    rows = []
    for info in file.tensors.values():
        shape = "x".join(str(size) for size in info.shape)
        bpw = f"{_bpw(info.n_bytes, info.n_weights):.3f}"
        rows.append((ui.printable(info.name), shape, info.type.name, bpw, info.n_bytes, info.offset, info.file_index))
    return ui.table(("tensor", "shape", "type", "bpw", "bytes", "offset", "shard"), rows)


def _program(file: GGUFFile) -> str:
    """The operations of the model as text."""
    from iqrun.model import build_program

    return str(build_program(file))


def _as_json(file: GGUFFile, program: str | None, checks: list[TensorCheck]) -> dict[str, Any]:
    n_weights, n_bytes = _totals(file)
    types = {name: len(infos) for name, infos in _by_type(file).items()}
    found: dict[str, Any] = {
        "paths": list(file.paths),
        "version": file.version,
        "alignment": file.alignment,
        "file_bytes": file.file_bytes,
        "n_weights": n_weights,
        "bpw": _bpw(n_bytes, n_weights),
        "types": types,
        "metadata": {ui.printable(key): _plain(value) for key, value in file.metadata.items()},
        "tensors": [_tensor_json(info) for info in file.tensors.values()],
    }
    found |= {"program": program.splitlines()} if program is not None else {}
    return found | ({"check": [_check_json(check) for check in checks]} if checks else {})


def _check_json(check: TensorCheck) -> dict[str, Any]:
    return {
        "name": ui.printable(check.info.name),
        "sound": check.sound,
        "n_nan": check.n_nan,
        "n_inf": check.n_inf,
        "first": check.first,
        "hash_agrees": check.hash_agrees,
    }


def _tensor_json(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": ui.printable(info.name),
        "shape": list(info.shape),
        "type": info.type.name,
        "type_id": info.type_id,
        "n_bytes": info.n_bytes,
        "offset": info.offset,
        "file_index": info.file_index,
    }


def _plain(value: Value) -> Any:
    """A value as JSON can hold it; NaN and infinities become words."""
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    return [_plain(item) for item in (value if not hasattr(value, "tolist") else value.tolist())]


def _shown(value: Value) -> str:
    """A value on one line, shortened, without control characters."""
    if isinstance(value, str):
        cut = value[:_SHOWN_CHARACTERS]
        return ui.printable(cut) + ("..." if len(cut) < len(value) else "")
    if isinstance(value, (bool, int, float)):
        return f"{value:.7g}" if isinstance(value, float) else str(value)
    items = [repr(item) if isinstance(item, str) else f"{item:.7g}" for item in value[:_SHOWN_ITEMS]]
    more = f", ... ({len(value)} in all)" if len(value) > _SHOWN_ITEMS else ""
    return ui.printable(f"[{', '.join(items)}{more}]")


def _by_type(file: GGUFFile) -> dict[str, list[TensorInfo]]:
    """Tensors by storage type, the type with most bytes first."""
    groups: dict[str, list[TensorInfo]] = defaultdict(list)
    for info in file.tensors.values():
        groups[info.type.name].append(info)
    return dict(sorted(groups.items(), key=lambda group: -sum(info.n_bytes for info in group[1])))


def _type_sizes(infos: list[TensorInfo]) -> tuple[int, str, str]:
    n_weights, n_bytes = sum(info.n_weights for info in infos), sum(info.n_bytes for info in infos)
    return n_weights, ui.human_bytes(n_bytes), f"{_bpw(n_bytes, n_weights):.3f}"


def _totals(file: GGUFFile) -> tuple[int, int]:
    infos = file.tensors.values()
    return sum(info.n_weights for info in infos), sum(info.n_bytes for info in infos)


def _bpw(n_bytes: int, n_weights: int) -> float:
    return 8 * n_bytes / max(n_weights, 1)
