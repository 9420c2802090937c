"""The hostile files of tests/hostile, given to iqrun and to a program of llama.cpp or ik_llama.cpp.

    python -m benchmarks.hostile_peer PATH/llama-cli [--sample 400] [--seed 1] [--experts]

Each broken model is opened by both, each time in a process of its own, and asked for one token (llama-cli) or for the
perplexity of a text of 128 (llama-perplexity); with --experts a mixture of experts, of which only the keys and tensors
of the experts are broken. What a program does is
one of: runs (it answers), refuses (it ends by itself with an error), aborts (SIGABRT: an assertion), crashes (SIGSEGV,
SIGBUS, SIGFPE, SIGILL), hangs (no end after 20 s) or eats memory (8 GiB are not enough for a file of 50 KiB).
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.gguf_builder import tiny_llama
from tests.hostile.breaker import Case, broken
from tests.hostile.classes import is_of_experts
from tests.hostile.test_broken_files import small_model

_SECONDS, _MEMORY = 20, 8 << 30
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


def outcome(command: list[str], folder: str) -> str:
    """Runs a command in a folder, where it may leave its logs, and names what it did."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=_limits,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode >= 0:
        short = b"bad_alloc" in done.stderr or b"MemoryError" in done.stderr
        return "eats memory" if short else "refuses" if done.returncode else "runs"
    if -done.returncode in _CRASHES:
        return "crashes"
    return "eats memory" if b"bad_alloc" in done.stderr or b"length_error" in done.stderr else "aborts"


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def commands(peer: Path, path: Path, text: Path) -> dict[str, list[str]]:
    """How each program is asked for a token, or for a perplexity."""
    own = [sys.executable, "-m", "iqrun"]
    if peer.name == "llama-perplexity":
        ask = ["-m", str(path), "-f", str(text), "-c", "64", "-t", "1"]
        return {peer.name: [str(peer), *ask, "--no-warmup"], "iqrun": [*own, "perplexity", *ask]}
    ask = ["-m", str(path), "-p", "Once", "-n", "1", "-c", "64", "-t", "1"]
    return {peer.name: [str(peer), *ask, "--no-warmup", "--log-disable"], "iqrun": [*own, "run", *ask]}


def hostile_cases(folder: Path, *, experts: bool) -> tuple[bytes, list[Case]]:
    """A valid model, and each way to break it (or its experts)."""
    if not experts:
        good = small_model(folder, "llama")
        return good, list(broken(good))
    sizes = {"n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "n_layer": 1, "n_vocab": 300}
    good = tiny_llama(folder / "m", n_expert=4, **sizes).read_bytes()
    return good, list(filter(is_of_experts, broken(good)))


def main() -> None:
    """Prints a table: what each program did, and how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--experts", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good, cases = hostile_cases(Path(folder), experts=args.experts)
        cases = random.Random(args.seed).sample(cases, args.sample)
        path, text = Path(folder) / "hostile.gguf", Path(folder) / "text.txt"
        text.write_text("the cat in the fox and the dog is on it. " * 20)
        found: dict[str, Counter[str]] = {}
        for case in (Case("valid", "", good), *cases):
            path.write_bytes(case.data)
            for name, command in commands(args.peer, path, text).items():
                found.setdefault(name, Counter())[outcome(command, folder)] += case.name != "valid"
    kinds = ("runs", "refuses", "aborts", "crashes", "hangs", "eats memory")
    print(f"{'':14}" + "".join(f"{kind:>12}" for kind in kinds))
    for name, counts in found.items():
        print(f"{name:14}" + "".join(f"{counts[kind]:>12}" for kind in kinds))


if __name__ == "__main__":
    main()
