"""How good and how fast are the row encoders?

    python benchmarks/encoder_error.py [--types IQ3_K,IQ4_KS] [--efforts fast,normal,best]

For each type and effort: our relative RMSE over that of ik_llama.cpp's quantizer and over a near-exhaustive search, on
the rows of tests/data/encoder_reference.npz (mean and worst row, without and with importance), and the speed of one
thread in millions of weights per second of CPU time, on Gaussian rows of 4096 (the best of several runs).
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.formats import Effort, decode, encode
from iqrun.native import isa_name

Floats = npt.NDArray[np.float32]
Errors = npt.NDArray[np.float64]

FIXTURE = Path(__file__).parents[1] / "tests" / "data" / "encoder_reference.npz"
SOLVABLE = [0, 1, 2, 3, 4, 5, 9]  # rows whose error is not near zero: not the zeros, the constant, the spike


def relative_error(x: Floats, y: Floats, weights: Floats) -> Errors:
    energy = (weights * x.astype(np.float64) ** 2).sum(axis=1)
    return np.asarray(np.sqrt((weights * (x.astype(np.float64) - y) ** 2).sum(axis=1) / np.maximum(energy, 1e-300)))


def errors(x: Floats, importance: Floats, name: str, effort: Effort) -> Errors:
    """(2, rows): without and with importance."""
    both = []
    for given in (None, importance):
        y = decode(encode(x, name, given, effort), name, x.shape[1])
        both.append(relative_error(x, y, np.ones_like(importance) if given is None else given))
    return np.array(both)


def millions_per_second(name: str, effort: Effort, repeats: int = 5) -> float:
    x = np.random.default_rng(0).standard_normal((32, 4096)).astype(np.float32)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        encode(x, name, effort=effort, n_threads=1)
        seconds.append(time.process_time() - start)
    return x.size / min(seconds) / 1e6


def ratio(ours: Errors, theirs: Errors) -> str:
    if not np.isfinite(theirs[:, SOLVABLE]).all():
        return f"{'':15}"
    quotient = ours[:, SOLVABLE] / theirs[:, SOLVABLE]
    return f"{quotient.mean():7.4f} {quotient.max():7.4f}"


def main() -> None:
    with np.load(FIXTURE) as file:
        fixture = dict(file)
    names = [str(name) for name in fixture["types"]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(names))
    parser.add_argument("--efforts", default="fast,normal,best")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {isa_name()}, one thread")
    print("                ours / reference  ours / optimum")
    print("type     effort    mean   worst    mean   worst   Mweights/s")
    for name in options.types.split(","):
        row = names.index(name)
        for effort in options.efforts.split(","):
            ours = errors(fixture["x"], fixture["importance"], name, effort)
            against = f"{ratio(ours, fixture['reference'][row])} {ratio(ours, fixture['optimum'][row])}"
            print(f"{name:8} {effort:7} {against} {millions_per_second(name, effort):8.1f}", flush=True)


if __name__ == "__main__":
    main()
