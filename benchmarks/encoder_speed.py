"""How fast are the row encoders beside a peer's llama-quantize, in one run?

    python benchmarks/encoder_speed.py PATH/llama-quantize model-f16.gguf [--types IQ3_K,IQ4_KS] [--efforts fast,normal]

Both encode every matrix of the model whose rows fill superblocks, with one thread and no importance matrix, and take
turns (peer, iqrun, peer, iqrun ...). What counts is user CPU time, the shortest of several runs; of the peer's, the
time that it needs to copy the file as F16 is taken off. IQRUN_ISA forces an instruction set.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.formats import Effort, decode, encode
from iqrun.gguf import GGUFFile
from iqrun.native import isa_name

TYPES = "IQ2_K,IQ2_KS,IQ2_KL,IQ3_K,IQ3_KS,IQ4_K,IQ4_KS,IQ4_KSS,IQ5_K,IQ5_KS,IQ6_K"
Matrices = list[npt.NDArray[np.float32]]


def matrices_of(model: Path) -> Matrices:
    with GGUFFile(model) as file:
        infos = [info for info in file.tensors.values() if len(info.shape) > 1 and info.n_cols % 256 == 0]
        return [decode(file.tensor_rows(info.name), info.format, info.n_cols) for info in infos]


def peer_seconds(program: Path, model: Path, type_name: str) -> float:
    """User CPU seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with tempfile.TemporaryDirectory() as folder:
        command = [str(program), "--pure", str(model), str(Path(folder) / "out.gguf"), type_name, "1"]
        subprocess.run(command, check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def own_seconds(matrices: Matrices, type_name: str, effort: Effort) -> float:
    start = time.process_time()
    for matrix in matrices:
        encode(matrix, type_name, effort=effort, n_threads=1)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path, help="the peer's llama-quantize")
    parser.add_argument("model", type=Path, help="an F16 model")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--efforts", default="fast,normal")
    parser.add_argument("-r", "--runs", type=int, default=3)
    options = parser.parse_args()
    matrices = matrices_of(options.model)
    millions = sum(matrix.size for matrix in matrices) / 1e6
    copying = min(peer_seconds(options.peer, options.model, "F16") for _ in range(options.runs))
    print(f"{millions:.1f}M weights, {isa_name()}, millions of weights per second of CPU time")
    print("| type | effort | peer | iqrun | ratio |\n|---|---|---:|---:|---:|")
    for type_name in options.types.split(","):
        peers: list[float] = []
        own: dict[Effort, list[float]] = {effort: [] for effort in options.efforts.split(",")}
        for _ in range(options.runs):
            peers.append(peer_seconds(options.peer, options.model, type_name) - copying)
            for effort, seconds in own.items():
                seconds.append(own_seconds(matrices, type_name, effort))
        for effort, seconds in own.items():
            ours, theirs = millions / min(seconds), millions / min(peers)
            print(f"| {type_name} | {effort} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.1f} |", flush=True)


if __name__ == "__main__":
    main()
