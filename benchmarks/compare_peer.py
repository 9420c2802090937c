"""How fast is iqrun beside a peer's llama-bench on the same file, in one run?

The two take turns (peer, iqrun, peer, iqrun ...), so that a machine whose speed drifts disturbs both alike; the medians
and the ratio of each pair are printed.

    python benchmarks/compare_peer.py PATH/llama-bench model.gguf [more.gguf ...] [-p 256,512] [-n 48] [-r 5] [-t 2]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median


def peer_speeds(program: str, model: str, args: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one run of the peer: decode and each prefill."""
    command = [program, "-m", model, "-t", str(args.threads), "-p", args.prefill, "-n", str(args.decode)]
    rows = json.loads(_output([*command, "-r", "1", "-o", "json"]))
    return {f"prefill {row['n_prompt']}" if row["n_prompt"] else "decode": row["avg_ts"] for row in rows}


def own_speeds(model: str, args: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one run of `iqrun bench`, and the share of the memory's read speed that decoding reached."""
    command = [sys.executable, "-m", "iqrun", "bench", "-m", model, "-t", str(args.threads)]
    rows = json.loads(_output([*command, "-p", args.prefill, "-n", str(args.decode), "-r", "1", "--json"]))
    kinds = [f"prefill {row['n_tokens']}" if row["test"] == "prefill" else "decode" for row in rows]
    speeds = {kind: row["tokens_per_second"] for kind, row in zip(kinds, rows, strict=True)}
    return speeds | {"roof_share": next(row["roof_share"] for row in rows if row["test"] == "decode")}


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="iqrun beside a peer's llama-bench, taking turns")
    parser.add_argument("peer", help="the peer's llama-bench")
    parser.add_argument("models", nargs="+", help="GGUF files that both can read")
    parser.add_argument("-p", "--prefill", default="256", metavar="N,...")
    parser.add_argument("-n", "--decode", type=int, default=48)
    parser.add_argument("-r", "--runs", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=2)
    args = parser.parse_args()
    print("| file | test | peer | iqrun | ratio (min .. max) | roof |\n|---|---|---:|---:|---:|---:|")
    for model in args.models:
        pairs = [(peer_speeds(args.peer, model, args), own_speeds(model, args)) for _ in range(args.runs)]
        for test in ("decode", *(f"prefill {n}" for n in args.prefill.split(",") if n != "0")):
            ratios = sorted(own[test] / peer[test] for peer, own in pairs)
            roof = f"{100 * median(own['roof_share'] for _, own in pairs):.0f} %" if test == "decode" else ""
            print(
                f"| {Path(model).name} | {test} | {median(peer[test] for peer, _ in pairs):.1f} "
                f"| {median(own[test] for _, own in pairs):.1f} "
                f"| {median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f}) | {roof} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
