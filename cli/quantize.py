"""`iqrun quantize`: write a quantized copy of a GGUF file."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from iqrun.cli import ui
from iqrun.cli.options import add_thread_option, weight_type

if TYPE_CHECKING:
    from iqrun.quantizer import TensorReport

HELP = "write a quantized copy of a GGUF file"
EXAMPLES = """\
  iqrun quantize model-f16.gguf model-iq4k.gguf IQ4_K
  iqrun quantize model-f16.gguf model-iq3k.gguf IQ3_K --imatrix model.imatrix
  iqrun quantize in.gguf out.gguf IQ2_K --tensor-type 'ffn_down=IQ3_K' --output-type Q6_K
  iqrun quantize in.gguf out.gguf IQ4_KS --dry-run --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("input", metavar="IN", help="the model: F32, F16 or BF16; of a split model any shard")
    add("output", metavar="OUT", help="the file to write; it appears when it is complete")
    add("type", metavar="TYPE", type=weight_type, help="IQ2_KS ... IQ6_K, Q8_0, Q6_0, BF16, F16, F32 and others")
    add("--imatrix", metavar="FILE", help="importance matrix, GGUF or legacy .dat")
    add("--effort", choices=("fast", "normal", "best"), default="normal", help="how hard to search (default: normal)")
    add_thread_option(parser)
    add("--pure", action="store_true", help="every matrix in TYPE, no mix")
    add(
        "--tensor-type",
        metavar="REGEX=TYPE",
        type=_rule,
        action="append",
        default=[],
        help="type of the tensors in whose name REGEX is found; repeatable, the first that matches decides",
    )
    add("--output-type", metavar="TYPE", type=weight_type, help="type of the output matrix")
    add("--embedding-type", metavar="TYPE", type=weight_type, help="type of the token embedding")
    add("--keep-f32", metavar="REGEX", type=_regex, help="tensors to store as F32")
    add("--allow-requantize", action="store_true", help="take a model that is quantized already (it loses twice)")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add("--dry-run", action="store_true", help="show types and sizes, write nothing")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Quantizes and prints the report."""
    from iqrun import quantize

    with ui.Progress("quantizing", unit="weights") as progress:
        report = quantize(
            args.input,
            args.output,
            args.type,
            imatrix=args.imatrix,
            pure=args.pure,
            tensor_types=args.tensor_type,
            output_type=args.output_type,
            embedding_type=args.embedding_type,
            keep_f32=args.keep_f32,
            effort=args.effort,
            n_threads=args.threads,
            allow_requantize=args.allow_requantize,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            progress=progress,
        )
    ui.warn(report.warnings)
    if args.json:
        ui.print_json(report.to_dict())
        return 0
    headers = ("tensor", "shape", "from", "to", "bpw", "error %")
    print(ui.table(headers, [_row(tensor) for tensor in report.tensors]))
    size = f"{ui.human_bytes(report.source_bytes)} -> {ui.human_bytes(report.n_bytes)} ({report.n_bytes} bytes)"
    took = "dry run, nothing written" if report.dry_run else f"{report.seconds:.1f} s"
    print(f"\n{report.type}: {len(report.tensors)} tensors, {report.bpw:.3f} bits per weight, {size}, {took}")
    return 0


def _row(tensor: TensorReport) -> tuple[str, ...]:
    error = "-" if tensor.relative_error is None else f"{100 * tensor.relative_error:.3f}"
    target = tensor.target if tensor.fallback is None else f"{tensor.target} (not {tensor.fallback})"
    shape = "x".join(str(size) for size in tensor.shape)
    return ui.printable(tensor.name), shape, tensor.source, target, f"{tensor.bpw:.3f}", error


def _rule(text: str) -> tuple[str, str]:
    regex, equals, name = text.rpartition("=")
    if not equals or not regex:
        raise argparse.ArgumentTypeError(f"{text!r} is not REGEX=TYPE")
    return _regex(regex), weight_type(name)


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"the regular expression {text!r} is wrong: {error}") from None
    return text
