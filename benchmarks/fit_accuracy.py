"""How far off is `iqrun fit`? What it expects of files beside what `iqrun bench` then measures, taking turns.

    python benchmarks/fit_accuracy.py model-iq2k.gguf model-iq4k.gguf [--memory 450M] [-n 32] [-r 3]

With --memory both run in a control group of so much memory, page cache included (root, control groups of version 1),
and the file's page cache is emptied before each of them. The fit is that of the file's own type.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from control_group import ControlGroup
from streaming import forget

from iqrun.cli.options import byte_size

Run = Callable[[list[str]], str]


def run_plainly(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def expect(run: Run, model: str, n_tokens: int) -> dict[str, Any]:
    """The line of `iqrun fit` for the file's own type, and the disk's speed as `fit` measured it."""
    found = json.loads(run([sys.executable, "-m", "iqrun", "fit", model, "-c", str(n_tokens), "--json"]))
    own = next(line for line in found["types"] if line["own"])
    return {"speed": own["tokens_per_second"], "streamed": own["streamed_bytes"], "disk": found["board"]["disk_speed"]}


def measure(run: Run, model: str, n_tokens: int) -> dict[str, Any]:
    """Decoding as `iqrun bench` measures it; the disk's speed, if it streamed."""
    words = ["bench", "-m", model, "-p", "0", "-n", str(n_tokens), "-r", "1", "--json"]
    found = json.loads(run([sys.executable, "-m", "iqrun", *words]))[0]
    disk = found["read_bandwidth"] if found["source"] == "disk" else None
    return {"speed": found["tokens_per_second"], "disk": disk}


def compare(run: Run, model: str, args: argparse.Namespace) -> None:
    """A row of the table."""
    rounds = []
    for _ in range(args.runs):
        if args.memory:
            forget(model)
        expected = expect(run, model, args.n)
        if args.memory:
            forget(model)
        rounds.append((expected, measure(run, model, args.n)))
    both = [[one["speed"] for one in column] for column in zip(*rounds, strict=True)]
    cells = [f"{median(speeds):.3g} ({min(speeds):.3g} .. {max(speeds):.3g})" for speeds in both]
    off = [100 * (expected["speed"] / measured["speed"] - 1) for expected, measured in rounds]
    cells.append(f"{median(off):+.0f} % ({min(off):+.0f} .. {max(off):+.0f})")
    cells.append(f"{median(one['streamed'] for one, _ in rounds) / 1e6:.0f} MB")
    for column in zip(*rounds, strict=True):
        speeds = [one["disk"] for one in column if one["disk"]]
        cells.append(f"{median(speeds) / 1e6:.0f} MB/s" if speeds else "-")
    print(f"| {Path(model).name} | " + " | ".join(cells) + " |", flush=True)


def compare_all(run: Run, args: argparse.Namespace) -> None:
    """The table."""
    columns = ["", "expected tokens/s", "measured", "off by", "streamed", "disk: fit", "bench"]
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|")
    for model in args.models:
        compare(run, model, args)


def main() -> None:
    parser = argparse.ArgumentParser(description="how far off is `iqrun fit`?")
    parser.add_argument("models", nargs="+", metavar="FILE")
    parser.add_argument("--memory", type=byte_size, help="limit of the control group in which both run")
    parser.add_argument("-n", type=int, default=32, help="tokens to generate")
    parser.add_argument("-r", "--runs", type=int, default=3)
    args = parser.parse_args()
    if not args.memory:
        compare_all(run_plainly, args)
        return
    with ControlGroup(args.memory, None, Path(args.models[0])) as group:
        compare_all(lambda command: group.run(command).output, args)


if __name__ == "__main__":
    main()
