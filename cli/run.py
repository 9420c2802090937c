"""`iqrun run`: completes one prompt. The text alone goes to stdout."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from iqrun.cli import options, ui

if TYPE_CHECKING:
    from iqrun import Model, SamplingOptions
    from iqrun.generate import Step, Timings

HELP = "complete one prompt"
EXAMPLES = """\
  iqrun run -m model.gguf -p "Once upon a time" -n 64
  iqrun run -m model.gguf --chat -p "Tell me a story about a cat." --temp 0
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
    parser.add_argument("--verbose", action="store_true", help="report speed on stderr")
    options.add_sampling_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the completion as it comes."""
    if args.system is not None and not args.chat:
        raise ValueError("--system needs --chat")
    sampling = options.sampling(args)  # a wrong option is told before the model is loaded
    prompt = args.prompt if args.prompt is not None else sys.stdin.read()
    with options.load_model(args) as model:
        last = (_answer if args.chat else _complete)(model, prompt, args, sampling)
    print()
    if args.verbose and last is not None and last.timings is not None:
        ui.stderr(_report(last.timings))
    return 0


def _complete(model: Model, prompt: str, args: argparse.Namespace, sampling: SamplingOptions) -> Step | None:
    step = None
    for step in model.generate(prompt, sampling=sampling, max_tokens=args.n_predict, stop=args.stop):
        _show(step.text)
    return step


def _answer(model: Model, prompt: str, args: argparse.Namespace, sampling: SamplingOptions) -> Step | None:
    chat = model.chat(system=args.system)
    for piece in chat.send(prompt, max_tokens=args.n_predict, stop=args.stop, **sampling.keywords()):
        _show(piece)
    return chat.last


def _show(text: str) -> None:
    """Prints a piece of the text; on a terminal without control characters."""
    print(ui.without_controls(text) if sys.stdout.isatty() else text, end="", flush=bool(text))


def _report(timings: Timings) -> str:
    return (
        f"prompt: {timings.n_prompt} tokens, {timings.prompt_per_second:.1f} tokens/s; "
        f"generated: {timings.n_generated} tokens, {timings.generated_per_second:.1f} tokens/s"
    )
