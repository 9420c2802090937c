"""What is installed is what is here."""

from __future__ import annotations

import re
import struct
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

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


def test_32_bit_python_is_refused_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip shows on a 32-bit Raspberry Pi OS: the reason, and where the 64-bit one is to be had."""
    real_size = struct.calcsize
    monkeypatch.setattr(struct, "calcsize", lambda form: 4 if form == "P" else real_size(form))
    monkeypatch.setattr("platform.machine", lambda: "armv7l")
    spec = spec_from_file_location("build_rules", ROOT / "cffi_build" / "build.py")
    assert spec is not None and spec.loader is not None
    with pytest.raises(SystemExit, match=r"this one is 32-bit \(on armv7l\).*Raspberry Pi OS \(64-bit"):
        spec.loader.exec_module(module_from_spec(spec))
