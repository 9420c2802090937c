"""`iqrun demo`: quantizes the packaged story model once, and talks to it."""

from __future__ import annotations

import argparse
import os
from hashlib import sha256
from pathlib import Path

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
    options.sampling(args)  # a wrong option is told before anything is done
    args.model = str(prepare(args.type, args.threads))
    if args.prompt is None:
        return chat.talk(args, hint=f'try: "{QUESTION}"')
    with options.load_model(args) as model:
        talk, write = model.chat(system=args.system), terminal.answer_writer()
        for step in talk.steps(args.prompt, sampling=options.sampling(args), max_tokens=args.n_predict):
            write(step.text)
        write("\n")
        ui.stderr(f'now talk to it: iqrun demo, and type "{QUESTION}"')
    return 0


def prepare(type_name: str, n_threads: int | None = None) -> Path:
    """The demo model in a type: from the cache, or quantized into it now.

    Raises:
        IqrunError: the quantization failed.
        OSError: the cache cannot be written.
    """
    import iqrun
    from iqrun.models.demo import model_path

    source = model_path()
    target = _cache_path(source, type_name)
    if _is_complete(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with ui.Progress(f"quantizing to {type_name}", unit="weights") as progress:
        report = iqrun.quantize(source, target, type_name, n_threads=n_threads, overwrite=True, progress=progress)
    ui.stderr(f"wrote {target}: {ui.human_bytes(report.source_bytes)} -> {ui.human_bytes(report.n_bytes)}")
    return target


def _cache_path(source: Path, type_name: str) -> Path:
    """Where the quantized model lies; the name changes with the source and with the version of iqrun."""
    import iqrun

    folder = os.environ.get("IQRUN_CACHE")
    if folder:
        cache = Path(folder)
    else:
        from platformdirs import user_cache_path

        cache = user_cache_path("iqrun")
    key = sha256(iqrun.__version__.encode() + source.read_bytes()).hexdigest()[:12]
    return cache / f"stories-13m-{type_name.lower()}-{key}.gguf"


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
