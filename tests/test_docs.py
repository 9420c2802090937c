"""The documentation is true: links lead somewhere, commands parse, code runs, tests that are named exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import iqrun
from iqrun import compat, errors
from iqrun.cli.commands import COMMANDS as CHAT_COMMANDS
from iqrun.cli.main import COMMANDS, _parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DEMO = ROOT / "models" / "demo" / "stories-13m-f16.gguf"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
ENDS = {"|", ">", "<", "2>", ">>", ";", "&&", "&", "||"}

pages = pytest.mark.parametrize("page", PAGES, ids=IDS)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language, without their indent."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.M | re.S)
    return ["\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n" for indent, body in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def nav() -> list[str]:
    """The pages that mkdocs.yml names."""
    return re.findall(r"^ +- .*: ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)


def commands(page: Path) -> list[tuple[str, bool]]:
    """Commands of iqrun on a page; and whether each is complete: one in the middle of a sentence need not be."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    whole = [part for line in lines for part in re.split(r"&&|;", line)]
    inline = re.findall(r"`(iqrun [^`]+)`", prose(page).replace("\\|", "|"))
    found = [(re.sub(r"^\S*/iqrun ", "iqrun ", part.strip()), True) for part in whole]
    return [pair for pair in [*found, *((text, False) for text in inline)] if pair[0].startswith("iqrun ")]


def slug(heading: str) -> str:
    """The anchor that mkdocs makes of a heading."""
    text = re.sub(r"[`*\\]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", text))


def test_menu_and_folder_agree() -> None:
    """Every page of the menu exists, and every page is in the menu."""
    assert sorted(nav()) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that a link names; anchors of the reference are made by mkdocs."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md" and not anchor.startswith("iqrun."):
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {slug(heading) for heading in headings}, f"{target}: no such heading"


@pages
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command line with `iqrun` has options that exist, with values that they take."""
    for text, whole in commands(page):
        words = shlex.split(text, comments=True)[1:]
        end = next((index for index, word in enumerate(words) if word in ENDS), len(words))
        words = [word for word in words[:end] if word != "..."]
        if not words or words[0].startswith("-") or words[0].isupper():
            continue
        try:
            _parse(words)
        except SystemExit:
            message = capsys.readouterr().err.strip().splitlines()[-1]
            assert not whole and "required" in message, f"{text}: {message}"


def test_chat_page_lists_the_commands_of_the_chat() -> None:
    """All of them, and no others."""
    text = (DOCS / "chat.md").read_text(encoding="utf-8")
    listed = {name for row in re.findall(r"^\| (`/.*?) \|", text, re.M) for name in re.findall(r"`/(\w+)", row)}
    assert listed == set(CHAT_COMMANDS)


def test_every_command_is_shown_somewhere() -> None:
    """Each command of `iqrun` stands in a command line of the documentation."""
    shown = {text.split()[1] for page in PAGES for text, _ in commands(page) if len(text.split()) > 1}
    assert set(COMMANDS) <= shown


def test_reference_shows_all_that_is_public() -> None:
    """Every name of `iqrun` and of `iqrun.compat`; the errors are one page."""
    shown = set()
    for page in (DOCS / "reference").glob("*.md"):
        shown |= set(re.findall(r"^::: (iqrun(?:\.\w+)*)", page.read_text(encoding="utf-8"), re.M))
    names = [f"iqrun.{name}" for name in iqrun.__all__ if name != "__version__"]
    names += [f"iqrun.compat.{name}" for name in compat.__all__]
    missing = set(names) - shown - {f"iqrun.{name}" for name in vars(errors)}
    assert not missing
    assert "iqrun.errors" in shown


@pages
def test_python_is_python(page: Path) -> None:
    """Every block compiles, and what it imports from iqrun exists."""
    for source in blocks(page, "python"):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iqrun"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("name", ["python.md", "coming-from.md"])
def test_code_of_the_guides_runs(name: str, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, with the demo model as `model.gguf`."""
    pytest.importorskip("llguidance")
    shutil.copy(DEMO, tmp_path / "model.gguf")
    source = "".join(blocks(DOCS / name, "python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100


@pages
def test_tests_that_are_named_exist(page: Path) -> None:
    """A promise is worth what its test is."""
    for file, name in re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
        assert (ROOT / file).exists(), file
        if name:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@pytest.mark.slow
def test_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    """`mkdocs build --strict`, with the reference from the docstrings."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "compat" / "index.html").exists()
