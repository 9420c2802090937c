"""`iqrun run`: completes one prompt. The text alone goes to stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import format_options, options, ui
from iqrun.whole_file import write_whole

if TYPE_CHECKING:
    from iqrun import Model
    from iqrun.generation.generate import Step, Timings

HELP = "complete one prompt"
EXAMPLES = """\
  iqrun run -m model.gguf -p "Once upon a time" -n 64
  iqrun run -m model.gguf --chat -p "Tell me a story about a cat." --temp 0
  iqrun run -m model.gguf -p "$(cat report.txt) In short:" --lookup --prompt-cache report.state
  iqrun run -m model.gguf --chat -p "Invent a person." --json-schema person.json
  echo "Dear diary," | iqrun run -m model.gguf --stop "The end" > story.txt
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    options.add_model_options(parser)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt (default: read from stdin)")
    parser.add_argument(
        "-n", "--n-predict", type=int, metavar="N", help="most tokens (default: until the context is full)"
    )
    parser.add_argument("--chat", action="store_true", help="the prompt is a question: use the model's chat template")
    parser.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told first")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end here; may be repeated")
    parser.add_argument("--lookup", action="store_true", help="guess tokens from the text so far: same text, sooner")
    parser.add_argument(
        "--prompt-cache", metavar="FILE", help="keep what was read of the prompt here, and do not read it again"
    )
    parser.add_argument("--verbose", action="store_true", help="report speed on stderr")
    format_options.add_format_options(parser)
    options.add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the completion as it comes."""
    if args.system is not None and not args.chat:
        raise ValueError("--system needs --chat")
    if args.prompt_cache is not None and args.chat:
        raise ValueError("--prompt-cache is not for --chat: `iqrun chat` keeps conversations")
    how = {  # a wrong option is told before the model is loaded
        "sampling": options.sampling(args),
        "response_format": format_options.response_format(args),
        "max_tokens": args.n_predict,
        "stop": args.stop,
        "lookup": args.lookup,
    }
    prompt = args.prompt if args.prompt is not None else sys.stdin.read()
    with options.load_model(args) as model:
        if args.chat:
            steps = model.chat(system=args.system).steps(prompt, **how)
        else:
            steps = model.generate(prompt, state=_state(model, args.prompt_cache, prompt), **how)
        last = _show_all(steps)
    return _report(last, args.verbose)


def _state(model: Model, path: str | None, prompt: str) -> bytes | None:
    """What is kept of the prompt; read now if the file is not there yet."""
    if path is None:
        return None
    file = Path(path)
    if not file.exists():
        write_whole(file, model.state(prompt))
    return file.read_bytes()


def _show_all(steps: Iterator[Step]) -> Step | None:
    """Prints the text of all steps; the last one."""
    step = None
    for step in steps:
        _show(step.text)
    print()
    return step


def _show(text: str) -> None:
    """Prints a piece of the text; on a terminal without control characters."""
    print(ui.without_controls(text) if sys.stdout.isatty() else text, end="", flush=bool(text))


def _report(last: Step | None, verbose: bool) -> int:
    """Tells on stderr what is to be known of the answer; the exit code."""
    if verbose and last is not None and last.timings is not None:
        ui.stderr(_speed(last.timings))
    if last is None or last.complete is not False:
        return 0
    ui.stderr(f"Error: the answer was cut ({last.finish_reason}) before it was complete: allow more with -n or -c")
    return 1


def _speed(timings: Timings) -> str:
    guessed = f"; guessed: {timings.n_accepted} of {timings.n_drafted} right" if timings.n_drafted else ""
    return (
        f"prompt: {timings.n_prompt} tokens, {timings.prompt_per_second:.1f} tokens/s; "
        f"generated: {timings.n_generated} tokens, {timings.generated_per_second:.1f} tokens/s{guessed}"
    )
