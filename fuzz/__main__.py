"""Coverage-guided fuzzing with atheris: ``python -m fuzz TARGET CORPUS [-runs=1000000] [other libFuzzer options]``."""

from __future__ import annotations

import gc
import sys

import atheris

with atheris.instrument_imports(include=["iqrun", "jinja2"]):
    from fuzz.targets import TARGETS
    from iqrun.chat import template_limits  # noqa: F401 - and with it Jinja, which is otherwise imported too late


def main() -> None:
    """Runs one target until a finding or the given number of runs."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {'|'.join(TARGETS)} CORPUS [libFuzzer options]")
    target = TARGETS[sys.argv.pop(1)]
    gc.freeze()  # the modules: else they are most of what every collection walks
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
