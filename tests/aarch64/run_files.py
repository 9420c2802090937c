"""Runs test files one by one, each in a fork of this process, and keeps what each one said.

    python tests/aarch64/run_files.py LOG_FOLDER FILE... [-- PYTEST_ARGUMENT...]

IQRUN_TEST_SECONDS in the environment is how long a test may take: one that takes longer is ended and counts as skipped.
An emulated interpreter needs half a minute to import numpy, pytest and hypothesis: here it does so once. The output is
LOG_FOLDER/NAME.log if a file passed and NAME.failed if not; what has passed is not run again until its log is removed,
so a run that takes hours can be interrupted and taken up. Exit code 0: everything passed.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import hypothesis  # noqa: F401 (imported for the forks)
import numpy.testing  # noqa: F401
import pytest

EARLY_IMPORT = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis would have its asserts rewritten


class TimeLimit:
    """A pytest plugin that skips a test when its time is over; fixtures, which tests share, have ten times as much."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def _limited(self, seconds: float) -> Generator[None, object, object]:
        def end(_signal: int, _frame: FrameType | None) -> None:
            pytest.skip(f"takes more than {seconds:g} s here")

        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        return (yield from self._limited(10 * self.seconds))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._limited(self.seconds))


def run_in_fork(file: str, log: Path, arguments: list[str]) -> bool:
    """Whether all tests of a file passed; standard output and error are the log."""
    child = os.fork()
    if child == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        limit = float(os.environ.get("IQRUN_TEST_SECONDS", "0"))
        if limit > 0:  # a test that is ended leaves programs behind that pytest would complain about
            arguments = ["-p", "no:unraisableexception", *arguments]
        plugins = [TimeLimit(limit)] if limit > 0 else []
        code = pytest.main(["-p", "no:cacheprovider", "-rs", *EARLY_IMPORT, *arguments, file], plugins)
        sys.stdout.flush()
        os._exit(int(code))
    return os.waitpid(child, 0)[1] == 0


def last_line(log: Path) -> str:
    """What pytest said at the end: `12 passed, 1 skipped in 3.21s`."""
    return log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]


def totals(folder: Path) -> str:
    """The last lines of all logs, added up."""
    count: Counter[str] = Counter()
    seconds = 0.0
    for log in [*folder.glob("*.log"), *folder.glob("*.failed")]:
        line = last_line(log)
        count.update({word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", line)})
        seconds += sum(float(number) for number in re.findall(r"in ([\d.]+)s", line))
    words = ", ".join(f"{count[word]} {word}" for word in ("passed", "failed", "error", "skipped"))
    return f"{words} in {seconds:.0f} s"


def main() -> int:
    folder, *rest = sys.argv[1:]
    end = rest.index("--") if "--" in rest else len(rest)
    files, arguments = rest[:end], rest[end + 1 :]
    logs = Path(folder)
    logs.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file in files:
        log = logs / f"{Path(file).stem}.log"
        if log.exists():
            continue
        running = log.with_suffix(".failed")
        passed = run_in_fork(file, running, arguments)
        if passed:
            running.rename(log)
        failed += not passed
        print(f"{file}: {last_line(log if passed else running)}", flush=True)
    print(f"{logs.name}: {totals(logs)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
