"""`iqrun demo`: quantizes the packaged story model once, and talks to it."""

from __future__ import annotations

import argparse
import os
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from iqrun.cli import chat, options, terminal, ui

DEFAULT_TYPE = "IQ3_K"
QUESTION = "Tell me a story about a cat."

HELP = "quantize the packaged story model and talk to it"
EXAMPLES = f"""\
  iqrun demo
  iqrun demo IQ2_K
  iqrun demo --prompt "{QUESTION}"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "type",
        metavar="TYPE",
        nargs="?",
        type=options.weight_type,
        default=DEFAULT_TYPE,
        help=f"type to quantize to (default {DEFAULT_TYPE})",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="ask this one question, print the answer and end")
    chat.add_chat_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prepares the model, then asks the one question or opens the conversation."""
    settings = chat.settings(args)  # a wrong option is told before anything is done
    args.model = str(prepare(args.type, args.threads))
    if args.prompt is None:
        return chat.talk(args, hint=f'try: "{QUESTION}"')
    with options.load_model(args) as model:
        talk, view = model.chat(system=args.system), terminal.answer_view(plain=args.plain)
        view.think = settings.think
        with view:
            for piece in talk.send(args.prompt, **settings.options()):
                view.write(piece)
        ui.stderr(f'now talk to it: iqrun demo, and type "{QUESTION}"')
    return 0


def prepare(type_name: str, n_threads: int | None = None) -> Path:
    """The demo model in a type: from the cache, or quantized into it now.

    Raises:
        IqrunError: the quantization failed, or the cache cannot be written.
    """
    import iqrun
    from iqrun.models.demo import model_path

    source = model_path()
    target = _cache_path(source, type_name)
    if _is_complete(target):
        return target
    _check_writable(target.parent)
    with ui.Progress(f"quantizing to {type_name}", unit="weights") as progress:
        report = iqrun.quantize(source, target, type_name, n_threads=n_threads, overwrite=True, progress=progress)
    ui.stderr(f"wrote {target}: {ui.human_bytes(report.source_bytes)} -> {ui.human_bytes(report.n_bytes)}")
    return target


def _check_writable(folder: Path) -> None:
    """Makes the folder if it is not there.

    Raises:
        IqrunError: nothing can be written there.
    """
    from iqrun.errors import IqrunError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise IqrunError(
            f"the demo model cannot be kept in {folder}: {error.strerror}; name a folder that you may write to in the "
            "environment variable IQRUN_CACHE"
        ) from None


def _cache_path(source: Path, type_name: str) -> Path:
    """Where the quantized model lies; the name changes with the source and with what quantizes it."""
    folder = os.environ.get("IQRUN_CACHE")
    if folder:
        cache = Path(folder)
    else:
        from platformdirs import user_cache_path

        cache = user_cache_path("iqrun")
    key = sha256()
    for path in (source, *_quantizer_files()):
        key.update(sha256(path.read_bytes()).digest())
    return cache / f"stories-13m-{type_name.lower()}-{key.hexdigest()[:12]}.gguf"


def _quantizer_files() -> list[Path]:
    """The native encoders and the code around them: in a source tree they change more often than the version."""
    native, quantizer = find_spec("iqrun._native"), find_spec("iqrun.quantizer")
    assert native is not None and native.origin is not None
    assert quantizer is not None and quantizer.origin is not None
    return [Path(native.origin), *sorted(Path(quantizer.origin).parent.rglob("*.py"))]


def _is_complete(path: Path) -> bool:
    """Whether a whole model file is there; the reader checks that every tensor lies inside of it."""
    import iqrun

    if not path.is_file():
        return False
    try:
        with iqrun.GGUFFile(path):
            return True
    except iqrun.GGUFError:
        return False
