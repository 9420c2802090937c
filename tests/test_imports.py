"""Imports run one way: docs/design.md draws the arrows, this test keeps them true."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"runtime": "iqrun", "models": "iqrun.models", "cli": "iqrun.cli"}
HEAVY = {"jinja2", "tokenizers", "sentencepiece", "prompt_toolkit", "platformdirs", "PIL"}

# Part of the package -> what it may import, lazily or not: only parts that stand above it here, and itself.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "log": set(),
    "text_tables": set(),
    "whole_file": set(),
    "native": {"errors"},
    "formats": {"errors", "native"},
    "machine": {"native"},
    "gguf": {"errors", "formats", "native", "whole_file"},
    "file_check": {"formats", "gguf"},
    "tokenizer": {"errors", "gguf"},
    "program": {"errors", "formats", "gguf"},
    "hparams": {"errors", "gguf"},
    "models": {"errors", "gguf", "hparams", "program"},
    "engine": {"errors", "formats", "machine", "native", "program"},
    "sampling": {"errors", "native"},
    "scores": {"errors"},
    "generation": {"engine", "errors", "program", "sampling", "scores", "tokenizer"},
    "chat": {"errors", "generation", "gguf", "sampling", "tokenizer"},
    "parallel": {"chat", "engine", "errors", "generation", "gguf", "tokenizer"},
    "model": {
        *("chat", "engine", "errors", "generation", "gguf", "log", "machine", "models", "parallel", "program"),
        "tokenizer",
    },
    "compat": {
        *("chat", "engine", "errors", "generation", "gguf", "log", "model", "program", "sampling", "tokenizer"),
    },
    "charts": {"text_tables", "whole_file"},
    "quantizer": {
        *("charts", "engine", "errors", "formats", "gguf", "machine", "native", "program", "whole_file"),
    },
    "benchmark": {"charts", "engine", "formats", "gguf", "machine", "native", "quantizer"},
    "evaluation": {
        *("benchmark", "charts", "engine", "errors", "formats", "gguf", "model", "program", "quantizer", "scores"),
        *("text_tables", "whole_file"),
    },
    "fitting": {
        *("benchmark", "engine", "errors", "formats", "gguf", "machine", "model", "native", "program", "quantizer"),
    },
    "calibration": {"errors", "evaluation", "formats", "gguf", "program", "quantizer", "whole_file"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its import name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Names of iqrun modules that a file imports; with `lazy` also inside functions, never those for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not lazy:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(child if child in NAMES else node.module for child in children)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


MODULES = modules()
NAMES = set(MODULES)


def part(name: str) -> str:
    """``iqrun.gguf.reader`` belongs to the part ``gguf``; the package itself is ``""``."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", [name for name in sorted(NAMES) if part(name) in ARROWS])
def test_imports_follow_the_arrows(name: str) -> None:
    """A module imports only from parts below its own."""
    used = {part(other) for other in imports(MODULES[name], lazy=True) if other in NAMES}
    assert used <= ARROWS[part(name)] | {part(name), ""}


def test_the_arrows_have_no_circle() -> None:
    """Every part but the command line has its row, and names only rows above its own."""
    assert {part(name) for name in NAMES} == set(ARROWS) | {"", "cli", "__main__"}
    above: set[str] = set()
    for name, used in ARROWS.items():
        assert used <= above, name
        above.add(name)


def test_only_native_imports_the_extension() -> None:
    """`iqrun._native` has one importer."""
    wrong = [
        name
        for name, path in MODULES.items()
        if name != "iqrun.native" and any("_native" in other for other in imports(path, lazy=True))
    ]
    source = [name for name, path in MODULES.items() if "import iqrun._native" in path.read_text(encoding="utf-8")]
    assert not wrong
    assert source == ["iqrun.native"]


@pytest.mark.parametrize("name", [name for name in sorted(NAMES) if part(name) == "cli"])
def test_command_line_uses_the_library_like_anyone(name: str) -> None:
    """No command reaches below the public library."""
    used = {other for other in imports(MODULES[name], lazy=True) if other.startswith("iqrun")}
    assert not {other for other in used if part(other) in {"native", "engine"} or "._" in other}


def test_nothing_imports_the_gguf_package() -> None:
    """It is a test dependency: its import is slow, and it does not know our types."""
    for name, path in MODULES.items():
        assert not {other for other in imports(path, lazy=True) if other.split(".")[0] == "gguf"}, name


def test_importing_iqrun_is_light() -> None:
    """`import iqrun` brings no other module; loading the model's code brings none of the heavy ones."""
    code = (
        "import sys, iqrun\n"
        "assert 'numpy' not in sys.modules and not [m for m in sys.modules if m.startswith('iqrun.')]\n"
        "iqrun.load, iqrun.Tokenizer, iqrun.SamplingOptions\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
