"""How much quality does each type keep per byte? Quantizes a model to every type and measures against the original.

python benchmarks/quality.py model-f16.gguf --calibration calibration.txt --heldout heldout.txt -c 256 > table.md

Each file is measured on the held-out text: perplexity and mean KL divergence from the original, without and with an
importance matrix of the calibration text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iqrun

TYPES = ["IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS", "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K"]


def main() -> None:
    args = parse()
    heldout = Path(args.heldout).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, load(args.model, args) as original:
        imatrix = Path(folder) / "imatrix.gguf"
        calibration = Path(args.calibration).read_text(encoding="utf-8")
        iqrun.calibrate(original, calibration, imatrix, n_ctx=args.ctx)
        print("| type | bytes | bits per weight | perplexity | mean KLD | with imatrix: perplexity | mean KLD |")
        print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
        rows = []
        for name in args.types:
            rows.append(dict(measured(name, original, imatrix, heldout, Path(folder) / "quantized.gguf", args)))
            print(line(rows[-1]), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the original, F16, BF16 or F32")
    parser.add_argument("--calibration", required=True, metavar="TEXT", help="text for the importance matrix")
    parser.add_argument("--heldout", required=True, metavar="TEXT", help="text to measure on")
    parser.add_argument("-c", "--ctx", type=int, default=512, metavar="N", help="tokens per chunk (default 512)")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")
    parser.add_argument("--effort", choices=("fast", "normal", "best"), default="normal")
    parser.add_argument("--types", nargs="+", default=TYPES, metavar="TYPE")
    parser.add_argument("--json", metavar="FILE", help="also write every number to a file")
    return parser.parse_args()


def load(path: str | Path, args: argparse.Namespace) -> iqrun.Model:
    return iqrun.load(path, n_ctx=args.ctx, n_threads=args.threads)


def measured(
    name: str, original: iqrun.Model, imatrix: Path, heldout: str, target: Path, args: argparse.Namespace
) -> Iterator[tuple[str, Any]]:
    for label, matrix in (("plain", None), ("imatrix", imatrix)):
        report = iqrun.quantize(
            original.path,
            target,
            name,
            imatrix=matrix,
            effort=args.effort,
            n_threads=args.threads,
            overwrite=True,
        )
        with load(target, args) as model:
            result = iqrun.divergence(model, original, heldout, n_ctx=args.ctx)
        print(f"{name} {label}: {report.seconds:.1f} s, KLD {result.mean_kld:.5f}", file=sys.stderr)
        yield "type", name
        yield "bytes", report.n_bytes
        yield "bpw", report.bpw
        yield "ppl_original", result.base.ppl
        yield label, {"ppl": result.model.ppl, "mean_kld": result.mean_kld, "kld_stderr": result.kld_stderr}


def line(row: dict[str, Any]) -> str:
    plain, guided = row["plain"], row["imatrix"]
    return (
        f"| {row['type']} | {row['bytes']:,} | {row['bpw']:.2f} | {plain['ppl']:.3f} | {plain['mean_kld']:.5f} "
        f"| {guided['ppl']:.3f} | {guided['mean_kld']:.5f} |"
    )


if __name__ == "__main__":
    main()
