"""A peer's command-line tools, given by their folder: what it makes and measures with a model."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIGURES = {
    "ppl": r"Mean PPL\(Q\)\s*:\s*(\S+)",
    "ppl_stderr": r"Mean PPL\(Q\)\s*:\s*\S+\s*±\s*(\S+)",
    "ppl_base": r"Mean PPL\(base\)\s*:\s*(\S+)",
    "mean_kld": r"Mean\s+KLD:\s*(\S+)",
    "kld_stderr": r"Mean\s+KLD:\s*\S+\s*±\s*(\S+)",
    "kld_p99": r"99\.0%\s+KLD:\s*(\S+)",
    "kld_max": r"Maximum KLD:\s*(\S+)",
    "same_top1": r"Same top p:\s*(\S+)",
}


@dataclass(frozen=True)
class Peer:
    """llama-imatrix, llama-quantize and llama-perplexity of llama.cpp or ik_llama.cpp.

    Attributes:
        tools: the folder they lie in.
        folder: where files are made; those that are there already are not made again.
        n_ctx: tokens per chunk.
        n_threads: threads that compute.
        n_chunks: how much of a text to measure on; -1 = all of it.
    """

    tools: Path
    folder: Path
    n_ctx: int
    n_threads: int
    n_chunks: int = -1

    def imatrix(self, model: Path, text: Path) -> Path:
        """Its importance matrix of a text."""
        words = ("-m", model, "-f", text, "-c", self.n_ctx, "-t", self.n_threads, "-o")
        return self._made("peer.imatrix.dat", lambda target: self._run("llama-imatrix", *words, target))

    def quantized(self, model: Path, type_name: str, imatrix: Path) -> Path:
        """Its file of a type, with its default mix."""
        words = ("--imatrix", imatrix, model)
        return self._made(
            f"peer-{type_name}.gguf",
            lambda target: self._run("llama-quantize", *words, target, type_name, self.n_threads),
        )

    def base(self, model: Path, text: Path) -> Path:
        """The predictions of the original, saved."""
        return self._made("peer-base.kld", lambda target: self._perplexity(model, text, "--kl-divergence-base", target))

    def figures(self, model: Path, text: Path, base: Path) -> dict[str, Any]:
        """What it measures of a file, by the names of ``iqrun perplexity --json``."""
        output = self._perplexity(model, text, "--kl-divergence-base", base, "--kl-divergence")
        found = {name: re.search(pattern, output) for name, pattern in _FIGURES.items()}
        missing = [name for name, match in found.items() if match is None]
        if missing:
            raise SystemExit(f"llama-perplexity printed no {', '.join(missing)} for {model}:\n{output[-2000:]}")
        figures = {name: float(match[1]) for name, match in found.items() if match is not None}
        return {**figures, "same_top1": figures["same_top1"] / 100}

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A file of the folder; made under another name, so that what is there is complete."""
        target = self.folder / name
        if not target.exists():
            unfinished = self.folder / f"unfinished-{name}"
            make(unfinished)
            unfinished.replace(target)
        return target

    def _perplexity(self, model: Path, text: Path, *more: object) -> str:
        words = ("-m", model, "-f", text, "-c", self.n_ctx, "-t", self.n_threads, "--chunks", self.n_chunks)
        return self._run("llama-perplexity", *words, *more)

    def _run(self, tool: str, *words: object) -> str:
        command = [str(self.tools / tool), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=self.folder, check=False)
        output = done.stdout + done.stderr
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
        return output
