"""How much quality does each type keep per byte, beside a peer's files of the same model?

Quantizes a model to every type, lets the peer's tools make their IQ*_K and Q*_K files from the same text, measures all
of them against the original in iqrun and (with --peer) in the peer, and writes tables (quality.md), every number
(quality.json) and the plots (quality.svg, quality-in-peer.svg) into a folder:

    python benchmarks/quality.py model-f16.gguf --calibration calibration.txt --heldout heldout.txt -c 256 \\
        --peer PATH/bin --out quality --ours "iqrun=--imatrix {imatrix}" --ours "plain="

--ours is a name and the options of `iqrun quantize` for one series of files, repeatable; {imatrix} stands for the
importance matrix of the calibration text, made with `iqrun imatrix --full`. The first series is compared with the peer.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peer_tools import Peer

from iqrun import charts, compare
from iqrun.evaluation.comparison_report import point, to_rows
from iqrun.text_tables import markdown_table

TYPES = ["IQ2_KS", "IQ2_K", "IQ2_KL", "IQ3_KS", "IQ3_K", "IQ4_KSS", "IQ4_KS", "IQ4_K", "IQ5_KS", "IQ5_K", "IQ6_K"]
K_TYPES = ["Q2_K", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K"]
SIDE_BY_SIDE = [("IQ2_K", "Q2_K"), ("IQ3_K", "Q3_K_M"), ("IQ4_K", "Q4_K_M")]
PEER_IQ, PEER_K = "peer", "peer's Q*_K"


@dataclass
class Made:
    """A file and what was measured of it: figures by the names of ``iqrun compare --json``."""

    series: str
    type: str
    path: Path
    seconds: float = 0.0
    here: dict[str, Any] = field(default_factory=dict)
    in_peer: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = list(own_files(args, folder))
        peer = None if args.peer is None else Peer(args.peer.resolve(), folder.resolve(), args.ctx, args.threads)
        if peer is not None:
            files += peer_files(args, peer)
        measure(args, files)
        if peer is not None:
            measure_in_peer(args, peer, files)
    write(args, files)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path, help="the original, F16, BF16 or F32")
    add("--calibration", type=Path, required=True, metavar="TEXT", help="text for the importance matrices")
    add("--heldout", type=Path, required=True, metavar="TEXT", help="text to measure on")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where tables, numbers and plots go")
    add("--fill", type=Path, metavar="PAGE", help="also put the tables between the marks of this Markdown page")
    add(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="keep all files; matrices and the peer's are used again",
    )
    add("--peer", type=Path, metavar="FOLDER", help="the peer's llama-imatrix, llama-quantize, llama-perplexity")
    add("--ours", action="append", metavar="NAME=OPTIONS", help='default: "iqrun=--imatrix {imatrix}"')
    add("-c", "--ctx", type=int, default=512, metavar="N", help="tokens per chunk (default 512)")
    add("-t", "--threads", type=int, default=2, metavar="N", help="threads (default 2)")
    add("--chunks", type=int, metavar="N", help="measure only the first N chunks (in iqrun)")
    add("--types", nargs="+", default=TYPES, metavar="TYPE")
    add("--k-types", nargs="*", default=K_TYPES, metavar="TYPE", help="the peer's types for comparison")
    return parser.parse_args()


def own_files(args: argparse.Namespace, folder: Path) -> Iterator[Made]:
    series = [text.partition("=")[::2] for text in args.ours or ["iqrun=--imatrix {imatrix}"]]
    imatrix = folder / "iqrun.imatrix.gguf"
    if not imatrix.exists() and any("{imatrix}" in options for _, options in series):
        iqrun(
            *("imatrix", "-m", args.model, "-f", args.calibration, "-o", imatrix, "--full", "-c", args.ctx),
            *("-t", args.threads),
        )
    for name, options in series:
        more = [word.replace("{imatrix}", str(imatrix)) for word in shlex.split(options)]
        for type_name in args.types:
            path = folder / f"{name}-{type_name}.gguf"
            words = ["quantize", args.model, path, type_name, "-t", args.threads, "--overwrite", "--json", *more]
            report = json.loads(iqrun(*words))
            note(f"{name} {type_name}: {report['n_bytes']} bytes, {report['seconds']:.1f} s")
            yield Made(name, type_name, path, report["seconds"])


def peer_files(args: argparse.Namespace, peer: Peer) -> Iterator[Made]:
    imatrix = peer.imatrix(args.model.resolve(), args.calibration.resolve())
    for series, types in ((PEER_IQ, args.types), (PEER_K, args.k_types)):
        for type_name in types:
            note(f"{series}: {type_name}")
            yield Made(series, type_name, peer.quantized(args.model.resolve(), type_name, imatrix))


def measure(args: argparse.Namespace, files: Sequence[Made]) -> None:
    note("measuring in iqrun")
    rows = compare(
        [made.path for made in files],
        args.heldout.read_text(encoding="utf-8"),
        base=args.model,
        n_ctx=args.ctx,
        max_chunks=args.chunks,
        n_threads=args.threads,
    )
    for made, figures in zip(files, to_rows(rows), strict=True):
        made.here = {key: value for key, value in figures.items() if key not in ("name", "path", "efficient")}


def measure_in_peer(args: argparse.Namespace, peer: Peer, files: Sequence[Made]) -> None:
    base = peer.base(args.model.resolve(), args.heldout.resolve())
    for made in files:
        note(f"measuring in the peer: {made.series} {made.type}")
        figures = peer.figures(made.path.resolve(), args.heldout.resolve(), base)
        made.in_peer = {"bytes": made.here["bytes"], "bpw": made.here["bpw"], **figures}


def write(args: argparse.Namespace, files: Sequence[Made]) -> None:
    tables = {"types": all_files(files)}
    if args.peer is not None:
        tables["pairs"] = side_by_side(files)
    text = "\n\n".join(tables.values())
    print(text)
    (args.out / "quality.md").write_text(text + "\n", encoding="utf-8")
    if args.fill is not None:
        fill(args.fill, tables)
    numbers = [
        {"series": made.series, "type": made.type, "seconds": made.seconds, "iqrun": made.here, "peer": made.in_peer}
        for made in files
    ]
    (args.out / "quality.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    draw(args, [(made.series, made.type, made.here) for made in files], "iqrun", args.out / "quality.svg")
    if args.peer is not None:
        found = [(made.series, made.type, made.in_peer) for made in files]
        draw(args, found, "the peer", args.out / "quality-in-peer.svg")


def fill(page: Path, tables: dict[str, str]) -> None:
    """Puts the tables between the marks of a page: ``<!-- begin types: ... -->`` and ``<!-- end types -->``."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        head, begin, rest = text.partition(f"<!-- begin {name}: benchmarks/quality.py -->\n")
        _, end, tail = rest.partition(f"<!-- end {name} -->")
        if not (begin and end):
            raise SystemExit(f"{page} has no marks for the table {name!r}")
        text = f"{head}{begin}\n{table}\n\n{end}{tail}"
    page.write_text(text, encoding="utf-8")


def all_files(files: Sequence[Made]) -> str:
    """A line per type: size and divergence of each series, and the first series' share of the peer's divergence."""
    names = [name for name in dict.fromkeys(made.series for made in files) if name != PEER_K]
    found = {(made.series, made.type): made for made in files}
    with_peer = PEER_IQ in names
    headers = ["type", "bits per weight", "bytes"]
    headers += [f"{name}: {what}" for name in names for what in ("PPL", "KLD")]
    headers += ["peer's bytes", "KLD ratio", "KLD ratio in the peer"] if with_peer else []
    rows = []
    for type_name in dict.fromkeys(made.type for made in files if made.series == names[0]):
        own, other = found[names[0], type_name], found.get((PEER_IQ, type_name))
        cells = [type_name, f"{own.here['bpw']:.2f}", f"{own.here['bytes']:,}"]
        for name in names:
            figures = found[name, type_name].here
            cells += [f"{figures['ppl']:.3f}", f"{figures['mean_kld']:.5f}"]
        if other is not None:
            cells += [f"{other.here['bytes']:,}", ratio(own.here, other.here), ratio(own.in_peer, other.in_peer)]
        rows.append(cells)
    return markdown_table(headers, rows)


def side_by_side(files: Sequence[Made]) -> str:
    """IQ2_K beside Q2_K and so on: size, perplexity and divergence, measured in iqrun."""
    first = files[0].series
    found = {(made.series, made.type): made for made in files}
    headers = ["pair", "made by", "type", "bytes", "PPL", "+-", "PPL ratio", "KLD", "+-", "same top 1"]
    rows = []
    for iq, k in SIDE_BY_SIDE:
        for series, type_name in ((first, iq), (PEER_IQ, iq), (PEER_K, k)):
            made = found.get((series, type_name))
            if made is not None:
                rows.append([f"{iq}, {k}", series, type_name, *quality_cells(made.here)])
    return markdown_table(headers, rows)


def quality_cells(figures: dict[str, Any]) -> list[str]:
    return [
        *(f"{figures['bytes']:,}", f"{figures['ppl']:.3f}", f"{figures['ppl_stderr']:.3f}"),
        *(f"{figures['ppl_ratio']:.4f}", f"{figures['mean_kld']:.5f}", f"{figures['kld_stderr']:.5f}"),
        f"{100 * figures['same_top1']:.2f} %",
    ]


def ratio(own: dict[str, Any], other: dict[str, Any]) -> str:
    return f"{own['mean_kld'] / other['mean_kld']:.3f}" if own and other else "-"


def draw(args: argparse.Namespace, found: Sequence[tuple[str, str, dict[str, Any]]], where: str, path: Path) -> None:
    """The plot of (series, type, figures)."""
    series: dict[str, list[charts.Point]] = {}
    for name, type_name, figures in found:
        shown = point(type_name, figures, "bytes", with_kld=True)
        if shown is not None:
            series.setdefault(name, []).append(shown)
    chart = charts.scatter_chart(
        [charts.Series(name, points) for name, points in series.items()],
        title=f"Quality against size: {args.model.stem}",
        subtitle=f"mean KL divergence from the original on {args.heldout.name}, measured in {where}",
        x="file, MB",
        y="mean KLD, nats per token",
    )
    charts.save(chart.drawing, path)


def iqrun(*words: object) -> str:
    command = [sys.executable, "-m", "iqrun", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
