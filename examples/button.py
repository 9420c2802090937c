"""A story at the push of a button, spoken aloud, for a Raspberry Pi. Here the button is Enter, the voice is print.

    python examples/button.py model.gguf

On a board, `presses` yields when ``gpiozero.Button(17).wait_for_press()`` returns, and `speak` passes each sentence to
``subprocess.run(["espeak-ng", sentence])``. Speech begins with the first sentence, while the model writes the next one.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator

import iqrun

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def presses() -> Iterator[None]:
    """One item for each push."""
    return (None for _ in sys.stdin)


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Whole sentences, as soon as each is complete."""
    text = ""
    for piece in pieces:
        *done, text = SENTENCE_END.split(text + piece)
        yield from (" ".join(sentence.split()) for sentence in done)
    if text.strip():
        yield " ".join(text.split())


def main(path: str, pushes: Iterable[None], speak: Callable[[str], object]) -> None:
    """A story for each push; the model stays in memory between them."""
    with iqrun.load(path, n_ctx=512, on_progress=lambda done, total: None) as model:
        for _ in pushes:
            for sentence in sentences(model.stream("Once upon a time", max_tokens=80)):
                speak(sentence)


if __name__ == "__main__":
    main(sys.argv[1], presses(), print)
