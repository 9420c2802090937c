"""How fast does a model run that does not fit into memory, beside a peer's llama-bench under the same limit?

    python benchmarks/streaming.py model.gguf [--peer PATH/llama-bench] [--memory 450M] [--throttle 20M] [-n 8] [-r 3]

Both take turns in a control group of so much memory, page cache included (which needs root and control groups of
version 1; without them iqrun alone is measured, within its own limit). The disk's speed is that of direct reads in the
same group, before and after. The file's page cache is emptied before each run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from control_group import ControlGroup

from iqrun.cli.options import byte_size

_N_CTX = 64


def child(model_path: str, memory: int, n_tokens: int, n_threads: int) -> dict[str, Any]:
    """One run of iqrun: what is measured inside of it."""
    import iqrun
    from iqrun.benchmark.disk import read_speed

    disk = [read_speed(model_path)]
    with iqrun.load(model_path, n_ctx=_N_CTX, n_threads=n_threads, memory=memory) as model, model.session() as session:
        session.evaluate([1])
        before, start = _bytes_read(), perf_counter()
        for token in range(2, 2 + n_tokens):
            session.evaluate([token])
        seconds, n_read = perf_counter() - start, _bytes_read() - before
        plan = model.streaming
    disk.append(read_speed(model_path))
    return {
        "tokens_per_second": n_tokens / seconds,
        "bytes_per_token": n_read / n_tokens,
        "resident": plan.resident if plan else None,
        "disk": sum(disk) / len(disk),
    }


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def forget(path: str) -> None:
    """Empties the page cache of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def run_both(args: argparse.Namespace, group: ControlGroup) -> dict[str, dict[str, float]]:
    """A run of each inside the group."""
    found = {}
    if args.peer is not None:
        forget(args.model)
        words = ["-m", args.model, "-t", str(args.threads), "-p", "0", "-n", str(args.n), "-r", "1", "-o", "json"]
        done = group.run([args.peer, *words, "-w", "0"])
        speed = json.loads(done.output)[0]["avg_ts"]
        found["peer"] = {"tokens_per_second": speed, "bytes_per_token": done.n_read / args.n, "peak": done.peak}
    forget(args.model)
    words = [args.model, "--child", "--memory", str(args.memory), "-n", str(args.n), "-t", str(args.threads)]
    done = group.run([sys.executable, __file__, *words])
    found["iqrun"] = json.loads(done.output) | {"peak": done.peak}
    return found


def show(name: str, runs: Sequence[dict[str, float]], disk: float) -> None:
    """A row of the table."""
    speed, n_bytes = (median(run[key] for run in runs) for key in ("tokens_per_second", "bytes_per_token"))
    share = median(run["tokens_per_second"] * run["bytes_per_token"] / run.get("disk", disk) for run in runs)
    peak = f"{max(run['peak'] for run in runs) / 1e6:.0f} MB" if "peak" in runs[0] else "-"
    print(f"| {name} | {speed:.3g} | {n_bytes / 1e6:.0f} MB | {100 * share:.0f} % | {peak} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="a model larger than memory, beside a peer's llama-bench")
    parser.add_argument("model", help="GGUF file that both can read")
    parser.add_argument("--peer", help="the peer's llama-bench")
    parser.add_argument("--memory", type=byte_size, default=450_000_000)
    parser.add_argument("--throttle", type=byte_size, help="bytes per second that the disk shall read")
    parser.add_argument("-n", type=int, default=8, help="tokens to generate")
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.model, args.memory, args.n, args.threads)))
        return
    if ControlGroup.usable():
        with ControlGroup(args.memory, args.throttle, Path(args.model)) as group:
            rounds = [run_both(args, group) for _ in range(args.runs)]
    else:
        print("no control groups here (they need root): iqrun alone, within its own limit, the disk as it is")
        rounds = [{"iqrun": child(args.model, args.memory, args.n, args.threads)} for _ in range(args.runs)]
    disk = median(run["iqrun"]["disk"] for run in rounds)
    print(f"limit {args.memory / 1e6:.0f} MB, the disk reads {disk / 1e6:.0f} MB/s\n")
    print("| | tokens/s | read per token | of the disk's speed | peak memory |\n|---|---:|---:|---:|---:|")
    for name in rounds[0]:
        show(name, [run[name] for run in rounds], disk)
    if args.peer is not None and "peer" in rounds[0]:
        ratios = sorted(run["iqrun"]["tokens_per_second"] / run["peer"]["tokens_per_second"] for run in rounds)
        print(f"\niqrun / peer: {median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
