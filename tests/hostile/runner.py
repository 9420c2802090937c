"""Runs hostile cases in a worker process, so that a crash or a hang is a result and not the end of the tests."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.emulated import SLOWER
from tests.hostile.breaker import Case

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 2.0 * SLOWER
MAX_GROWTH = 64 << 20
_DEADLINE = 20.0 * SLOWER  # a case that takes longer hangs: the worker is killed


@dataclass(frozen=True)
class Report:
    """What a case did; see `tests.hostile.worker`."""

    case: Case
    outcome: str
    known: bool
    message: str
    seconds: float
    grown: int


def run_cases(task: str, good: bytes, cases: Iterable[Case]) -> Iterator[Report]:
    """Runs each case, after the valid file, whose report comes first: it loads the libraries."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        for case in (Case("valid", "", good), Case("valid again", "", good), *cases):
            pickle.dump((case.name, task, case.data), worker.stdin)
            worker.stdin.flush()
            timer = threading.Timer(_DEADLINE, worker.kill)
            timer.start()
            line = worker.stdout.readline()
            timer.cancel()
            assert line, f"{case.name}: the process died with code {worker.wait()}"
            found = json.loads(line)
            del found["name"]
            if case.name != "valid":
                yield Report(case=case, **found)
    finally:
        worker.kill()
        worker.communicate()


def check(report: Report) -> None:
    """What holds for every case: it works, or there is one clear sentence about the right place; soon and in bounds."""
    what = f"{report.case.name}: {report.outcome}: {report.message}"
    assert report.known, what
    assert report.seconds < MAX_SECONDS, what
    assert report.grown < MAX_GROWTH, f"{what} ({report.grown} bytes)"
    if report.outcome == "ok":
        return
    assert "hostile.gguf" in report.message or report.outcome in ("TemplateError", "TokenizerError"), what
    assert "\n" not in report.message, what
    assert len(report.message) < 1000, what
    assert _names_a_place(report), what


def _names_a_place(report: Report) -> bool:
    """The key or tensor that was broken, a place in the file, or (where the break hides it) what does not fit it."""
    known = report.case.owner and report.case.owner in report.message
    named = re.search(
        r"at byte \d+|'[^']*'|tokenizer\.ggml\.\w+|\w+\.[\w.]+ (is|has|=)|line \d+|only \d+ bytes", report.message
    )
    return bool(not report.case.owner or known or named or report.outcome in ("TemplateError", "TokenizerError"))
