"""What is installed is what is here."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"runtime": "iqrun", "models": "iqrun.models", "cli": "iqrun.cli"}


def test_every_folder_of_the_package_is_installed() -> None:
    """A folder that is missing in pyproject.toml works in an editable install and nowhere else."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*?)^\]", text, re.M | re.S)
    assert listed is not None
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == found
