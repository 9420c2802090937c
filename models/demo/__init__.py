"""The packaged demo model: a 13-million-parameter teller of children's stories; see MODEL_CARD.md."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from iqrun.errors import IqrunError

FILE_NAME = "stories-13m-f16.gguf"


def model_path() -> Path:
    """Where the model lies (GGUF, F16, 27 MB).

    Raises:
        IqrunError: the installation has no such file.
    """
    path = Path(str(files(__name__) / FILE_NAME))
    if not path.is_file():
        raise IqrunError(f"the demo model {path} is missing; reinstall iqrun")
    return path
