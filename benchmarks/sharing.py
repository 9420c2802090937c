"""What is left of the speed when the cores are shared?

Generates tokens alone, with twice as many threads, and in two processes at once (the sum of their speeds), iqrun and a
peer's llama-bench in turns; all speeds as shares of the program's own speed alone.

    python benchmarks/sharing.py model.gguf [--peer PATH/llama-bench] [-n 128] [-r 3] [-t 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median

Command = Callable[[int], list[str]]


def own_command(args: argparse.Namespace) -> Command:
    words = ["-m", args.model, "-p", "0", "-n", str(args.tokens), "-r", "3", "--json"]
    return lambda n_threads: [sys.executable, "-m", "iqrun", "bench", *words, "-t", str(n_threads)]


def peer_command(args: argparse.Namespace) -> Command:
    words = ["-m", args.model, "-p", "0", "-n", str(args.tokens), "-r", "3", "-o", "json"]
    return lambda n_threads: [args.peer, *words, "-t", str(n_threads)]


def speeds(command: list[str], n_processes: int) -> list[float]:
    """Tokens per second of each of so many processes that run at once."""
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(n_processes)
    ]
    outputs = [process.communicate()[0] for process in processes]
    rows = [json.loads(output)[0] for output in outputs]
    return [row["tokens_per_second"] if "tokens_per_second" in row else row["avg_ts"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description="speed that is left when cores are shared")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--peer", help="a peer's llama-bench")
    parser.add_argument("-n", "--tokens", type=int, default=128)
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=2)
    args = parser.parse_args()
    programs = {"iqrun": own_command(args)} | ({"peer": peer_command(args)} if args.peer else {})
    ways = {
        "alone": lambda command: speeds(command(args.threads), 1),
        "twice the threads": lambda command: speeds(command(2 * args.threads), 1),
        "two processes": lambda command: speeds(command(args.threads), 2),
    }
    results: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.runs):
        for program, command in programs.items():
            for way, run in ways.items():
                results.setdefault((program, way), []).append(sum(run(command)))
    print("| | alone, tokens/s | twice the threads | two processes, both together |\n|---|---:|---:|---:|")
    for program in programs:
        alone, more, two = (median(results[program, way]) for way in ways)
        print(f"| {program} | {alone:.1f} | {more / alone:.0%} | {two / alone:.0%} |")


if __name__ == "__main__":
    main()
