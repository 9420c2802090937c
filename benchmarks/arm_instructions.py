"""How many instructions do ARM kernels execute per 256 weights and token?

Each format on each instruction set, decoding one token and a prompt of 64 (the unpacking of the weights included, the
quantization of the activations not), counted by a plugin of qemu while the kernels multiply 192 rows of 2048 columns:
the difference between one and three repetitions. With --peer, ik_llama.cpp's kernels on the same core, too; with
--mainline those of llama.cpp for weights that it repacked when it loaded them (the repacking is not counted).

    python benchmarks/arm_instructions.py [--peer PATH/ik_llama.cpp] [--mainline PATH/llama.cpp]
        [--types iq4_k,iq2_k] [--build FOLDER]

Needs Debian's qemu-user and gcc-aarch64-linux-gnu (for the peers g++-aarch64-linux-gnu). BUILD keeps what is compiled.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from iqrun import formats

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks" / "arm"
N_ROWS, N_COLS = 192, 2048
TOKENS = (1, 64)
#: the instruction set, and a core that has it
CORES = {"neon_i8mm": "max", "neon_dotprod": "cortex-a76", "neon": "cortex-a72"}
TYPES = "iq2_k iq2_ks iq2_kl iq3_k iq3_ks iq4_k iq4_ks iq4_kss iq5_k iq5_ks iq6_k q4_0 q8_0 q4_k q6_k"
CC = ["aarch64-linux-gnu-gcc", "-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread"]
PEER_CORE = "cortex-a76"  # without dot products the peer has no vector kernels of these types
#: the files of ik_llama.cpp that its multiplications need, and flags of its own build
PEER_SOURCES = """ggml.c ggml-quants.c ggml-aarch64.c iqk/iqk_mul_mat.cpp iqk/iqk_quantize.cpp
    iqk/iqk_gemm_iqk_quants.cpp iqk/iqk_gemm_kquants.cpp iqk/iqk_gemm_legacy_quants.cpp"""
MAINLINE_TYPES = ("q4_0", "q8_0", "q4_k", "q6_k")  # of ours, those that llama.cpp repacks
MAINLINE_CORES = {"neon_i8mm": "cortex-a76+i8mm", "neon_dotprod": "cortex-a76"}
PEER_FLAGS = """-O3 -DNDEBUG -D_GNU_SOURCE -DGGML_USE_IQK_MULMAT -DGGML_SCHED_MAX_COPIES=4 -flax-vector-conversions
    -ffunction-sections -fdata-sections -w"""


def compile_plugin(build: Path) -> Path:
    """The counter, for this machine's qemu."""
    plugin = build / "count.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", str(HERE / "count_plugin.c"), "-o", str(plugin)], check=True)
    return plugin


def compile_ours(build: Path) -> Path:
    """All kernels of the core and the program that calls them."""
    csrc, program = ROOT / "cffi_build" / "csrc", build / "multiply"
    sources = [path for folder in ("base", "format", "isa", "kernel") for path in sorted((csrc / folder).glob("*.c"))]
    include = [f"-I{csrc}", f"-I{ROOT / 'cffi_build' / 'include'}"]
    files = [str(path) for path in [*sources, HERE / "multiply.c"]]
    subprocess.run([*CC, "-static", *include, *files, "-lm", "-o", str(program)], check=True)
    return program


def compile_peer(build: Path, peer: Path) -> Path:
    """The peer's multiplications; what the sources need beside that is left out by the linker."""
    source, folder = peer / "ggml" / "src", build / PEER_CORE
    folder.mkdir(exist_ok=True)
    include = [f"-I{path}" for path in (source, peer / "ggml" / "include", source / "iqk")]
    flags = [*PEER_FLAGS.split(), f"-mcpu={PEER_CORE}", *include]
    objects = []
    for name in PEER_SOURCES.split():
        target = folder / (Path(name).name + ".o")
        compiler = "aarch64-linux-gnu-gcc" if name.endswith(".c") else "aarch64-linux-gnu-g++"
        if not target.exists():
            subprocess.run([compiler, *flags, "-c", str(source / name), "-o", str(target)], check=True)
        objects.append(str(target))
    program = folder / "multiply_ik"
    link = ["-static", "-Wl,--gc-sections", "-Wl,--unresolved-symbols=ignore-all", "-lm", "-pthread"]
    main = [str(HERE / "multiply_ik.cpp")]
    subprocess.run(["aarch64-linux-gnu-g++", *flags, *main, *objects, *link, "-o", str(program)], check=True)
    return program


def compile_mainline(build: Path, mainline: Path, isa: str) -> Path:
    """llama.cpp's multiplications of repacked weights, compiled for a core with the instruction set."""
    source, program = mainline / "ggml" / "src", build / f"multiply_mainline_{isa}"
    include = [f"-I{path}" for path in (source, source / "ggml-cpu", mainline / "ggml" / "include")]
    flags = ["-std=c++17", *PEER_FLAGS.split(), f"-mcpu={MAINLINE_CORES[isa]}", *include]
    files = [str(HERE / "multiply_mainline.cpp"), str(source / "ggml-cpu" / "arch" / "arm" / "repack.cpp")]
    link = ["-static", "-Wl,--gc-sections", "-Wl,--unresolved-symbols=ignore-all", "-lm", "-pthread"]
    subprocess.run(["aarch64-linux-gnu-g++", *flags, *files, *link, "-o", str(program)], check=True)
    return program


def executed(plugin: Path, core: str, command: list[str]) -> int:
    """Instructions of one run."""
    emulated = ["qemu-aarch64", "-cpu", core, "-plugin", str(plugin), *command]
    run = subprocess.run(emulated, capture_output=True, text=True, check=False)
    found = re.search(r"instructions: (\d+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"{' '.join(command)} on {core} failed: {run.stderr.strip()[-300:]}")
    return int(found[1])


def per_256(plugin: Path, core: str, program: Path, isa: str, type_id: int, n_tokens: int) -> float:
    """Instructions per 256 weights and token."""
    one, three = (
        executed(plugin, core, [str(program), isa, *map(str, (type_id, n_tokens, N_ROWS, N_COLS, repetitions))])
        for repetitions in (1, 3)
    )
    return (three - one) / 2 / (N_ROWS * N_COLS * n_tokens) * 256


def peers(build: Path, isa: str, ik: Path | None, mainline: Path | None) -> dict[str, Path]:
    """The programs to compare with on an instruction set; without dot products the peers have no vector kernels."""
    if isa == "neon":
        return {}
    found = {"ik_llama.cpp": compile_peer(build, ik)} if ik else {}
    return found | ({"llama.cpp": compile_mainline(build, mainline, isa)} if mainline else {})


def row(plugin: Path, isa: str, ours: Path, others: dict[str, Path], name: str) -> list[str]:
    """The cells of a type: our count, and the others' with our ratio to them."""
    type_id, cells = formats.by_name(name.upper()).id, [name.upper()]
    for n_tokens in TOKENS:
        count = per_256(plugin, CORES[isa], ours, isa, type_id, n_tokens)
        cells.append(f"{count:.0f}")
        for other, program in others.items():
            if other == "llama.cpp" and name not in MAINLINE_TYPES:
                cells.append("")
                continue
            theirs = per_256(plugin, CORES[isa], program, "-", type_id, n_tokens)
            cells.append(f"{theirs:.0f} ({count / theirs:.2f})")
    return cells


def table(build: Path, types: list[str], ik: Path | None, mainline: Path | None) -> None:
    """One Markdown table for each instruction set."""
    plugin, ours = compile_plugin(build), compile_ours(build)
    for isa, core in CORES.items():
        others = peers(build, isa, ik, mainline)
        columns = [column for n in TOKENS for column in (f"{n} token{'s' if n > 1 else ''}", *others)]
        print(f"\n{isa} ({core})\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
        for name in types:
            print(f"| {' | '.join(row(plugin, isa, ours, others, name))} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="source folder of ik_llama.cpp")
    parser.add_argument("--mainline", type=Path, help="source folder of llama.cpp")
    parser.add_argument("--types", default=TYPES.replace(" ", ","))
    parser.add_argument("--build", type=Path, help="folder for compiled programs (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        build = options.build or Path(temporary)
        build.mkdir(parents=True, exist_ok=True)
        table(build, options.types.split(","), options.peer, options.mainline)


if __name__ == "__main__":
    main()
