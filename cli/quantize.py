"""`iqrun quantize`: write a quantized copy of a GGUF file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqrun.cli import ui
from iqrun.cli.options import add_thread_option, byte_size, weight_type

if TYPE_CHECKING:
    from iqrun.quantizer import QuantizeReport, TensorReport
    from iqrun.quantizer.jobs import MatrixEncoder
    from iqrun.quantizer.scaling import ScaledModel

HELP = "write a quantized copy of a GGUF file"
EXAMPLES = """\
  iqrun quantize model-f16.gguf model-iq4k.gguf IQ4_K
  iqrun quantize model-f16.gguf model-iq3k.gguf IQ3_K --imatrix model.imatrix
  iqrun quantize in.gguf out.gguf IQ2_K --tensor-type 'ffn_down=IQ3_K' --output-type Q6_K
  iqrun quantize in.gguf out.gguf IQ2_K --calibrate text.txt --best-mix --imatrix model.imatrix
  iqrun quantize in.gguf out.gguf --target-bpw 3.5 --imatrix model.imatrix
  iqrun quantize in.gguf out.gguf IQ3_K --best-mix --imatrix model.imatrix
  iqrun quantize in.gguf out.gguf IQ4_KS --dry-run --json
  iqrun quantize in.gguf out.gguf IQ3_K --report report.html
  iqrun quantize large-f16.gguf large.gguf IQ4_K --max-shard-size 2G --hash --resume
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("input", metavar="IN", help="the model: F32, F16 or BF16; of a split model any shard")
    add("output", metavar="OUT", help="the file to write; it appears when it is complete")
    add(
        "type",
        metavar="TYPE",
        nargs="?",
        type=weight_type,
        help="IQ2_KS ... IQ6_K, Q8_0, Q6_0, BF16, F16, F32 and others; not with a target size",
    )
    add("--imatrix", metavar="FILE", help="importance matrix, GGUF or legacy .dat")
    add("--feedback", action="store_true", help="codes make up for each other's rounding; FILE was made with --full")
    add(
        "--calibrate",
        metavar="TEXT",
        help="the strongest: run this text through the model and fit each matrix to what those before it have changed",
    )
    add("--awq", action="store_true", help="scale columns by how strongly text drives them, where FILE says it helps")
    add("--ctx", metavar="N", type=int, default=512, help="tokens per chunk of --calibrate (default: 512)")
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
    add("--best-mix", action="store_true", help="search the best mix of types for the size that TYPE's mix has")
    add("--target-bpw", metavar="X", type=float, help="search the best mix of at most X bits per weight")
    add("--target-size", metavar="SIZE", type=byte_size, help="search the best mix for files of at most SIZE (2.5G)")
    add(
        "--include-types",
        metavar="TYPE,TYPE...",
        type=_types,
        help="what a searched mix is made of (default: every IQ*_K type and Q8_0)",
    )
    add(
        "--measure",
        metavar="TEXT",
        help="measure on this text how much each tensor matters for a searched mix, instead of estimating it (minutes)",
    )
    add("--output-type", metavar="TYPE", type=weight_type, help="type of the output matrix")
    add("--embedding-type", metavar="TYPE", type=weight_type, help="type of the token embedding")
    add("--keep-f32", metavar="REGEX", type=_regex, help="tensors to store as F32")
    add("--allow-requantize", action="store_true", help="take a model that is quantized already (it loses twice)")
    add(
        "--max-shard-size",
        metavar="SIZE",
        type=byte_size,
        help="write several files, none larger than this (2G, 700M): OUT-00001-of-0000N.gguf and so on",
    )
    add("--hash", action="store_true", help="store the SHA-256 of every tensor in the file")
    add("--resume", action="store_true", help="go on where the same command was stopped, and stay resumable")
    add("--overwrite", action="store_true", help="replace OUT if it exists; forget an unfinished run")
    add("--dry-run", action="store_true", help="show types and sizes, write nothing")
    add("--report", metavar="FILE", help="also write the report: .html, .svg or .png with charts, or .json")
    add("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Quantizes and prints the report."""
    from iqrun.quantizer import check_report, save_report

    if args.report is not None:
        check_report(args.report)
    if args.feedback and (args.imatrix is None or args.calibrate is not None):
        raise ValueError("--feedback takes its matrices from --imatrix FILE; --calibrate does without")
    if args.measure is not None and not (args.best_mix or args.target_bpw or args.target_size):
        raise ValueError("--measure is for a mix that is searched: give a target size or --best-mix")
    if args.awq and args.imatrix is None:
        raise ValueError("--awq takes the strength of the columns from --imatrix FILE")
    report = _quantized(args)
    ui.warn(report.warnings)
    if args.report is not None:
        save_report(report, args.report)
    if args.json:
        ui.print_json(report.to_dict())
        return 0
    headers = ("tensor", "shape", "from", "to", "bpw", "error %")
    print(ui.table(headers, [_row(tensor) for tensor in report.tensors]))
    size = f"{ui.human_bytes(report.source_bytes)} -> {ui.human_bytes(report.n_bytes)} ({report.n_bytes} bytes)"
    took = "dry run, nothing written" if report.dry_run else f"{report.seconds:.1f} s"
    print(f"\n{report.type}: {len(report.tensors)} tensors, {report.bpw:.3f} bits per weight, {size}, {took}")
    return 0


def _quantized(args: argparse.Namespace) -> QuantizeReport:
    """Does the work."""
    from iqrun import quantize

    with (
        _scaled(args) as scaled,
        ui.Progress("quantizing", unit="weights") as bar,
        _encoder(args, scaled, progress := ui.Furthest(bar)) as encoder,
    ):
        report = quantize(
            args.input if scaled is None else scaled.path,
            args.output,
            args.type,
            imatrix=args.imatrix if scaled is None else scaled.imatrix,
            pure=args.pure,
            tensor_types=args.tensor_type,
            output_type=args.output_type,
            embedding_type=args.embedding_type,
            keep_f32=args.keep_f32,
            best_mix=args.best_mix,
            target_bpw=args.target_bpw,
            target_bytes=args.target_size,
            include_types=args.include_types,
            sensitivity=None if args.measure is None else lambda: _measured(args),
            effort=args.effort,
            n_threads=args.threads,
            allow_requantize=args.allow_requantize,
            max_shard_bytes=args.max_shard_size,
            hashes=args.hash,
            resume=args.resume,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
            progress=progress,
            encoder=encoder,
            scaled=args.awq,
        )
    return report if scaled is None else replace(report, source=scaled.source, source_bytes=scaled.source_bytes)


@contextmanager
def _scaled(args: argparse.Namespace) -> Iterator[ScaledModel | None]:
    """What ``--awq`` asks for; a dry run needs no scales."""
    from iqrun import GGUFFile
    from iqrun.model import build_program
    from iqrun.quantizer.scaling import recipe_like, scaled_model

    if not args.awq or args.dry_run:
        yield None
        return
    with ExitStack() as stack:
        source = stack.enter_context(GGUFFile(args.input))
        recipe = recipe_like(
            source,
            args.type,
            target_bpw=args.target_bpw,
            target_bytes=args.target_size,
            pure=args.pure,
            tensor_types=args.tensor_type,
            output_type=args.output_type,
            embedding_type=args.embedding_type,
            keep_f32=args.keep_f32,
        )
        with ui.Progress("scaling", unit="pairs") as progress:
            making = scaled_model(
                source,
                build_program(source),
                args.output,
                recipe,
                args.imatrix,
                n_threads=args.threads,
                overwrite=args.overwrite or args.resume or args.max_shard_size is not None,
                progress=progress,
            )
            scaled = stack.enter_context(making)
        yield scaled


@contextmanager
def _encoder(
    args: argparse.Namespace, scaled: ScaledModel | None, progress: ui.Furthest
) -> Iterator[MatrixEncoder | None]:
    """What ``--feedback`` or ``--calibrate`` asks for."""
    import iqrun
    from iqrun.machine import physical_cores
    from iqrun.quantizer import GramFile
    from iqrun.quantizer.feedback import GramEncoder
    from iqrun.quantizer.scaling import ScaledGrams

    if args.feedback:
        grams = GramFile(args.imatrix) if scaled is None else ScaledGrams(args.imatrix, scaled.scaling)
        with grams:
            yield GramEncoder(grams, args.effort, args.threads or physical_cores())
    elif args.calibrate is not None:
        text = Path(args.calibrate).read_bytes().decode("utf-8", "replace")
        source = args.input if scaled is None else scaled.path
        with iqrun.load(source, n_threads=args.threads) as model:
            yield iqrun.calibrated_encoder(model, text, n_ctx=args.ctx, effort=args.effort, progress=progress)
    else:
        yield None


def _measured(args: argparse.Namespace) -> dict[str, float]:
    """What ``--measure`` finds out."""
    import iqrun
    from iqrun.evaluation.measurement import measure_sensitivity
    from iqrun.quantizer import read_imatrix

    text = Path(args.measure).read_bytes().decode("utf-8", "replace")
    matrix = None if args.imatrix is None else read_imatrix(args.imatrix)
    with iqrun.load(args.input, n_threads=args.threads) as model, ui.Progress("measuring", unit="tensors") as progress:
        return measure_sensitivity(model, text, imatrix=matrix, progress=progress)


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


def _types(text: str) -> list[str]:
    return [weight_type(name.strip()) for name in text.split(",")]


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"the regular expression {text!r} is wrong: {error}") from None
    return text
