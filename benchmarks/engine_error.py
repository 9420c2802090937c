"""How far is the engine's arithmetic from exact float32 on the same weights, beside a peer's?

Quantizes a model, decodes that file to F32, and lets the peer run the F32 file over a text with float32 activations.
Printed is how far iqrun and the peer are from its predictions with the quantized file: mean KL divergence per token.

    python benchmarks/engine_error.py model-f16.gguf --peer PATH/bin -f text.txt -c 256 --chunks 24
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from peer_tools import Peer

import iqrun
from iqrun.text_tables import markdown_table

TYPES = ["IQ2_K", "IQ3_K", "IQ4_K", "IQ4_KS", "IQ6_K", "Q8_0"]


def main() -> None:
    args = parse()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for type_name in args.types:
            own, peer = errors(args, type_name, Path(folder))
            rows.append([type_name, f"{own:.6f}", f"{peer:.6f}", f"{own / peer:.2f}"])
    print(markdown_table(["file", "iqrun: KLD from exact", "peer: KLD from exact", "ratio"], rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path, help="F16, BF16 or F32")
    add("--peer", type=Path, required=True, metavar="FOLDER", help="the peer's llama-perplexity")
    add("-f", "--file", type=Path, required=True, metavar="TEXT")
    add("-c", "--ctx", type=int, default=256, metavar="N", help="tokens per chunk (default 256)")
    add("--chunks", type=int, default=24, metavar="N", help="chunks of the text (default 24)")
    add("-t", "--threads", type=int, default=2, metavar="N", help="threads (default 2)")
    add("--types", nargs="+", default=TYPES, metavar="TYPE")
    return parser.parse_args()


def errors(args: argparse.Namespace, type_name: str, folder: Path) -> tuple[float, float]:
    """Mean divergences of iqrun and of the peer for one type; the files are removed again."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        quantized, exact = Path(name, "quantized.gguf"), Path(name, "exact.gguf")
        iqrun.quantize(args.model, quantized, type_name)
        iqrun.quantize(quantized, exact, "F32", allow_requantize=True)
        peer = Peer(args.peer.resolve(), Path(name), args.ctx, args.threads, args.chunks)
        text = args.file.resolve()
        base = peer.base(exact, text)
        exact.unlink()
        words = ("-m", quantized, "-f", text, "-c", args.ctx, "-t", args.threads)
        words += ("--chunks", args.chunks, "--kl-base", base)
        command = [sys.executable, "-m", "iqrun", "perplexity", *map(str, words), "--json"]
        own = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return own["mean_kld"], peer.figures(quantized, text, base)["mean_kld"]


if __name__ == "__main__":
    main()
