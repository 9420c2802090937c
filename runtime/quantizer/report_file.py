"""A quantization's report as a file that people look at: a web page or a picture; or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path, PurePath

from iqrun.charts import Bar, Drawing, Group, Point, Series, bar_chart, page, png, scatter_chart, stack, svg
from iqrun.quantizer.report import QuantizeReport, TensorReport
from iqrun.whole_file import check_output, write_whole

SUFFIXES = (".html", ".json", ".svg", ".png")

_LAYER = re.compile(r"^blk\.(\d+)\.(.+)$")
_N_WORST = 12
_ERROR = "root of the squared error over the squared weights, columns weighted by their importance where it is known"
_HEADERS = ("tensor", "shape", "from", "to", "bits per weight", "bytes", "imatrix", "error %")


def check_report(path: str | PathLike[str]) -> None:
    """Checks that `save_report` can write there, before the work.

    Raises:
        OSError: the folder does not exist.
        ValueError: the suffix is none of `SUFFIXES`.
    """
    check_output(path, SUFFIXES)


def save_report(report: QuantizeReport, path: str | PathLike[str]) -> None:
    """Writes a report in the form that the suffix names; the file appears when it is complete.

    Args:
        report: from `quantize`.
        path: .html has charts and tables, .svg and .png the charts, .json every number.

    Raises:
        OSError: it cannot be written.
        ValueError: the suffix is none of `SUFFIXES`.
    """
    suffix = check_output(path, SUFFIXES)
    if suffix == ".json":
        data = (json.dumps(report.to_dict(), indent=1) + "\n").encode("utf-8")
    elif suffix == ".html":
        data = _page(report).encode("utf-8")
    else:
        drawing = stack(_charts(report, f"{_title(report)}, size by role", _summary(report)))
        data = png(drawing) if suffix == ".png" else svg(drawing).encode("utf-8")
    write_whole(Path(fspath(path)), data)


def _page(report: QuantizeReport) -> str:
    parts = [page.paragraph(_summary(report))]
    parts += [page.paragraph(text, warning=True) for text in report.warnings]
    parts += [page.picture(chart) for chart in _charts(report, "Size by role", "")]
    parts += [page.heading("All tensors"), page.table(_HEADERS, [_cells(tensor) for tensor in report.tensors])]
    return page.page(_title(report), parts)


def _title(report: QuantizeReport) -> str:
    return f"{PurePath(report.destination).name}: {report.type}"


def _summary(report: QuantizeReport) -> str:
    imatrix = "no importance matrix" if report.imatrix is None else f"importance matrix {PurePath(report.imatrix).name}"
    took = "dry run, nothing written" if report.dry_run else f"{report.seconds:.1f} s"
    size = f"{report.source_bytes / 1e6:,.1f} MB to {report.n_bytes / 1e6:,.1f} MB"
    source = PurePath(report.source).name
    return f"from {source}, {size}, {report.bpw:.3f} bits per weight; effort {report.effort}, {imatrix}; {took}"


def _charts(report: QuantizeReport, title: str, subtitle: str) -> list[Drawing]:
    """The drawings; the first bears the headline given."""
    lossy = [tensor for tensor in report.tensors if tensor.relative_error]
    return [_sizes(report, title, subtitle), *([_worst(lossy), _by_layer(lossy)] if lossy else [])]


def _sizes(report: QuantizeReport, title: str, subtitle: str) -> Drawing:
    """Bytes of the tensors of each role."""
    roles: dict[str, list[TensorReport]] = {}
    for tensor in report.tensors:
        roles.setdefault(_role(tensor.name)[0], []).append(tensor)
    bars = [_size_bar(role, tensors, report) for role, tensors in roles.items()]
    bars.sort(key=lambda bar: -bar.value)
    return bar_chart([Group("", bars)], title=title, subtitle=subtitle)


def _size_bar(role: str, tensors: Sequence[TensorReport], report: QuantizeReport) -> Bar:
    n_bytes, n_weights = sum(tensor.n_bytes for tensor in tensors), sum(tensor.n_weights for tensor in tensors)
    types = "/".join(dict.fromkeys(tensor.target for tensor in tensors))
    share = 100 * n_bytes / max(sum(tensor.n_bytes for tensor in report.tensors), 1)
    text = f"{n_bytes / 1e6:.2f} MB, {share:.1f} %, {8 * n_bytes / n_weights:.2f} bits ({types})"
    return Bar(role, n_bytes / 1e6, text)


def _worst(tensors: Sequence[TensorReport]) -> Drawing:
    """The tensors that lost most, of their strength."""
    worst = sorted(tensors, key=lambda tensor: -_percent(tensor))[:_N_WORST]
    bars = [Bar(tensor.name, _percent(tensor), f"{_percent(tensor):.2f} % ({tensor.target})") for tensor in worst]
    return bar_chart([Group("", bars)], title="Largest errors", subtitle=_ERROR)


def _by_layer(tensors: Sequence[TensorReport]) -> Drawing:
    """Error of each role's tensors from layer to layer."""
    series: dict[str, list[Point]] = {}
    for tensor in tensors:
        role, layer = _role(tensor.name)
        if layer is not None:
            series.setdefault(role, []).append(Point(tensor.name, layer, _percent(tensor)))
    return scatter_chart(
        [Series(role, sorted(points, key=lambda point: point.x)) for role, points in series.items()],
        title="Errors layer by layer",
        x="layer",
        y="error, %",
        log_y=False,
        frontier=False,
        joined=True,
    ).drawing


def _percent(tensor: TensorReport) -> float:
    return 100 * (tensor.relative_error or 0.0)


def _role(name: str) -> tuple[str, int | None]:
    """What a tensor is in the model, and its layer, if any: ``blk.3.attn_q.weight`` is attn_q of layer 3."""
    found = _LAYER.match(name)
    role = (name if found is None else found[2]).removesuffix(".weight")
    return role, None if found is None else int(found[1])


def _cells(tensor: TensorReport) -> tuple[str, ...]:
    target = tensor.target if tensor.fallback is None else f"{tensor.target} (not {tensor.fallback})"
    error = "-" if tensor.relative_error is None else f"{100 * tensor.relative_error:.3f}"
    shape = " x ".join(str(size) for size in tensor.shape)
    weighted = "yes" if tensor.weighted else "no"
    return tensor.name, shape, tensor.source, target, f"{tensor.bpw:.3f}", f"{tensor.n_bytes:,}", weighted, error
