"""The chat of `iqrun chat` with a model that says what it is told to, for tests in a terminal.

python -m tests.scripted_chat ANSWERS.json [OPTION OF CHAT ...]

ANSWERS.json holds ``{"answers": [TEXT, ...], "seconds": N per step, "n_ctx": N}``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iqrun.cli import chat, terminal
from tests.scripted_model import ScriptedModel, ScriptedSession


class SlowSession(ScriptedSession):
    """Takes its time for each step."""

    seconds = 0.0

    def evaluate(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        time.sleep(self.seconds)
        return super().evaluate(ids)


def main() -> None:
    """Runs the conversation."""
    script = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser()
    chat.configure(parser)
    args = parser.parse_args(["--temp", "0", *sys.argv[2:]])
    model = ScriptedModel(*script["answers"], n_ctx=script.get("n_ctx", 1000))
    model.only_session.__class__ = SlowSession
    SlowSession.seconds = script.get("seconds", 0.0)
    repl = chat._repl(model, args, interactive=True)  # type: ignore[arg-type]
    repl.run(terminal.prompt_reader(repl))


if __name__ == "__main__":
    main()
