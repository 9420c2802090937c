"""How fast is attention at depth, and what share of the memory's read speed does it reach while decoding?

The model has the attention of a named size and little else. Decoding: keys and values of any depth are put into the
cache, tokens follow one by one, and the engine's own clock says what attention cost. Prefill: one step of 512 tokens at
that depth.

    python benchmarks/attention.py [--size llama-1b] [--layers 4] [-d 4096,8192,32768] [--kv-type f16,q8_0] [-t 2]
        [--n-decode 16] [--no-prefill] [--keep FILE]

--keep writes the model to a file that a peer's llama-bench can read.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import iqrun
from iqrun.benchmark import synthetic
from iqrun.benchmark.timing import read_bandwidth
from iqrun.engine.context import Context
from iqrun.engine.lowering import NativeProgram

N_PREFILL = 512


def thin(name: str, n_layer: int) -> synthetic.Size:
    """The attention of a size, with the smallest of everything else."""
    return replace(synthetic.SIZES[name], n_layer=n_layer, n_ff=256, n_vocab=512, tied=False)


def fill(context: Context, depth: int) -> None:
    """Gives sequence 0 that many tokens with random keys and values."""
    rng = np.random.default_rng(1)
    shapes = [(op.n_head_kv, op.head_dim) for op in context.program.ops if op.kind == "attention"]
    n_values = sum(2 * n_head_kv * head_dim for n_head_kv, head_dim in shapes) * depth
    values = np.resize(rng.standard_normal(1 << 20, np.float32), n_values)
    if context.kv_type == "q8_0":
        data = iqrun.formats.encode(values.reshape(-1, 32), iqrun.formats.by_name("Q8_0")).reshape(-1)
    else:
        data = values.astype({"f16": np.float16, "f32": np.float32}[context.kv_type]).view(np.uint8)
    context.import_state([0] * depth, data)


def attention_seconds(context: Context, n_steps: int, n_tokens: int) -> float:
    """The engine's clock: seconds in attention per step of so many tokens."""
    depth = len(context.tokens[0])
    context.profile(True)
    for _ in range(n_steps):
        context.evaluate([1] * n_tokens, 0, np.zeros(n_tokens, np.bool_))
    seconds = context.profile(False)
    context.truncate(depth)
    ops = context.program.ops
    return sum(spent for op, spent in zip(ops, seconds, strict=True) if op.kind == "attention") / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description="speed of attention at depth")
    parser.add_argument("--size", default="llama-1b", choices=tuple(synthetic.SIZES))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("-d", "--depths", default="4096,8192,32768")
    parser.add_argument("--kv-type", default="f16,q8_0")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--n-decode", type=int, default=16)
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("--no-prefill", action="store_true")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.keep or Path(folder) / "attention.gguf"
        if not path.exists():
            synthetic.write_synthetic(path, thin(args.size, args.layers), "Q8_0")
        bandwidth = read_bandwidth(args.threads, 1 << 28)
        print(f"{args.size}, {args.layers} layers, {args.threads} threads, reads {bandwidth / 1e9:.1f} GB/s")
        columns = ["KV", "depth", "decode, us per layer", "GB/s", "of the read speed"]
        columns += [] if args.no_prefill else [f"prefill {N_PREFILL}, ms per layer", "GFLOP/s"]
        print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
        with iqrun.load(path, n_ctx=64, n_threads=args.threads) as model:
            native = NativeProgram(model.program)
            for kv_type in args.kv_type.split(","):
                for depth in map(int, args.depths.split(",")):
                    measure(native, kv_type, depth, bandwidth, args)


def measure(native: NativeProgram, kv_type: str, depth: int, bandwidth: float, args: argparse.Namespace) -> None:
    """One row of the table: best of the runs."""
    context = Context(native, n_ctx=depth + N_PREFILL, n_threads=args.threads, kv_type=kv_type)
    fill(context, depth)
    n_bytes = context.export_state()[1].size
    attention_seconds(context, 2, 1)
    decode = min(attention_seconds(context, args.n_decode, 1) for _ in range(args.runs))
    speed = n_bytes / decode
    row = f"| {kv_type} | {depth} | {1e6 * decode / args.layers:.0f} | {speed / 1e9:.1f} "
    row += f"| {100 * speed / bandwidth:.0f} % |"
    if not args.no_prefill:
        prefill = min(attention_seconds(context, 1, N_PREFILL) for _ in range(args.runs))
        op = next(op for op in context.program.ops if op.kind == "attention")
        flops = 4 * op.n_head * op.head_dim * N_PREFILL * (depth + N_PREFILL / 2) * args.layers
        row += f" {1e3 * prefill / args.layers:.1f} | {flops / prefill / 1e9:.0f} |"
    print(row, flush=True)
    context.close()


if __name__ == "__main__":
    main()
