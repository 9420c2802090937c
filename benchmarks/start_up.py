"""How long until the first token?

Times whole processes, as a user meets them: `import iqrun`, opening a model, `iqrun run -n 1`. Medians of some runs,
in wall and CPU seconds; with ``--instructions`` also the instructions executed (valgrind's callgrind), which depend on
neither the machine's speed nor its load: over a core's clock, times what it executes per cycle (about one of such
code), they give its seconds.

    python benchmarks/start_up.py -m model.gguf [-m other.gguf] [--repeats 7] [--instructions]
    python benchmarks/start_up.py --vocabulary vocabulary.gguf    # llama-1b in IQ4_K with another file's vocabulary
    python benchmarks/start_up.py -m model.gguf --emulated build/aarch64    # the wheel's on a Cortex-A76: instructions

The last one takes the emulated Python that tests/aarch64/run.sh left there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from arm_instructions import compile_plugin, executed

from iqrun.benchmark.synthetic import write_synthetic

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
PROMPT = "Once upon a time there was a small"


def command(name: str, model: str) -> list[str]:
    """The process to time."""
    python = [sys.executable, "-c"]
    main = "import sys; from iqrun.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return {
        "python, numpy": [*python, "import numpy"],
        "import iqrun": [*python, "import iqrun; iqrun.load"],
        "open": [*python, f"import iqrun; iqrun.load({model!r})"],
        "run -n 1": [*python, main, "run", "-m", model, "-p", PROMPT, "-n", "1", "--temp", "0"],
    }[name]


def seconds(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    before, start = os.times(), perf_counter()
    subprocess.run(words, check=True, capture_output=True, env=ENVIRONMENT)
    wall, after = perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def instructions(words: list[str]) -> int:
    """Instructions that a process executes; AVX-512 is beyond valgrind, so AVX2 kernels run."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, *words], check=True, capture_output=True, text=True, env=ENVIRONMENT)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def emulated_instructions(cache: Path, words: list[str]) -> int:
    """The same of the emulated Python, bytecode at hand."""
    sysroot, bytecode = cache / "sysroot", cache / "bytecode"
    os.environ.update(PYTHONPATH=str(cache / "site"), PYTHONHOME=str(sysroot / "usr"), OPENBLAS_NUM_THREADS="1")
    os.environ.update(PYTHONPYCACHEPREFIX=str(bytecode))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    python = ["-L", str(sysroot), str(sysroot / "usr" / "bin" / "python3.11"), *words[1:]]
    subprocess.run(["qemu-aarch64", "-cpu", "cortex-a76", *python], check=True, capture_output=True)
    return executed(compile_plugin(cache), "cortex-a76", python)


@contextmanager
def models(args: argparse.Namespace) -> Iterator[list[str]]:
    """The files to open; one with another file's vocabulary is made for the time being."""
    with tempfile.TemporaryDirectory(prefix="iqrun-") as folder:
        made = []
        for path in args.vocabulary:
            made.append(str(Path(folder) / f"llama-1b-{Path(path).stem}.gguf"))
            write_synthetic(made[-1], "llama-1b", "IQ4_K", vocabulary=path)
        yield [*args.model, *made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append", default=[])
    parser.add_argument("--vocabulary", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--emulated", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    with models(args) as paths:
        for path in paths:
            print(f"{Path(path).name}, {Path(path).stat().st_size / 1e6:.0f} MB")
            for name in ("python, numpy", "import iqrun", "open", "run -n 1"):
                words = command(name, path)
                if args.emulated:
                    count = emulated_instructions(args.emulated.resolve(), words)
                    print(f"  {name:14} {count / 1e6:7.0f} M instructions of a Cortex-A76", flush=True)
                    continue
                seconds(words)  # files into the page cache, bytecode onto the disk
                wall, cpu = zip(*(seconds(words) for _ in range(args.repeats)), strict=True)
                line = f"  {name:14} {median(wall):6.3f} s wall (best {min(wall):.3f}) {median(cpu):6.3f} s CPU"
                if args.instructions:
                    line += f"  {instructions(words) / 1e6:7.0f} M instructions"
                print(line, flush=True)


if __name__ == "__main__":
    main()
