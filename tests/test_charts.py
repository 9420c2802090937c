"""iqrun.charts: scales, placement, and files that viewers accept."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from io import BytesIO
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

from iqrun import charts
from iqrun.charts import Axis, Bar, Group, Point, Series
from iqrun.charts.axis import label
from iqrun.charts.drawing import Dot, Drawing, Line, Rect, Text

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (4.1e6, 1.1e7), (-3, -1), (0.001, 0.0012), (12, 13)])
def test_linear_ticks_are_round_and_inside(low: float, high: float) -> None:
    """Evenly spaced multiples of 1, 2 or 5 times a power of ten, a handful of them."""
    ticks = Axis("x", low, high).ticks()
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx(steps[0])
    assert round(steps[0] / 10 ** np.floor(np.log10(steps[0] * 1.0001)), 6) in (1, 2, 5)


def test_whole_axes_have_no_halves() -> None:
    """Layers are counted: few of them do not get fractional ticks."""
    assert Axis.around("layer", [0, 1, 2], whole=True).ticks(10) == [0, 1, 2]


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.1), (1, 1e6), (0.02, 0.09), (5, 6)])
def test_log_ticks_are_inside(low: float, high: float) -> None:
    """At least three ticks, even within one decade."""
    ticks = Axis("y", low, high, log=True).ticks()
    assert len(ticks) >= 3
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_places_on_a_log_axis() -> None:
    """Equal ratios are equally far apart; 0 stands at the beginning."""
    axis = Axis("y", 0.01, 100, log=True)
    assert [axis.place(value) for value in (0.01, 0.1, 1, 100)] == pytest.approx([0, 0.25, 0.5, 1])
    assert axis.place(0) == axis.place(-1) == 0


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [nan, inf], [0.0, 5.0], [1e-9, 1e-9]])
@pytest.mark.parametrize("log", [False, True])
def test_axes_around_anything_can_be_drawn(values: list[float], log: bool) -> None:
    """No values, one, the same twice, none that can be shown: there is an axis, and its ends differ."""
    axis = Axis.around("x", values, log=log)
    assert axis.low < axis.high
    assert axis.ticks()


def test_labels_are_short() -> None:
    """No exponents in the usual range, no trailing zeros."""
    assert [label(value) for value in (0.002, 0.5, 3.0, 2.5, 12_000, 0)] == ["0.002", "0.5", "3", "2.5", "12k", "0"]


def test_efficient_points_are_those_that_none_beats() -> None:
    """Against a search over all pairs; equal sizes up to a thousandth count as equal."""
    rng = np.random.default_rng(3)
    points = [Point(str(i), float(x), float(y)) for i, (x, y) in enumerate(rng.uniform(1, 2, (200, 2)))]
    best = charts.efficient(points)
    assert [point.x for point in best] == sorted(point.x for point in best)
    beaten = {p for p in points for q in points if q.x <= p.x * 1.001 and q.y < p.y}
    assert set(best) == set(points) - beaten
    twins = [Point("a", 1000.0, 2.0), Point("b", 1000.5, 1.0)]
    assert charts.efficient(twins) == [twins[1]]


def _chart() -> Drawing:
    ours = Series("ours", [Point("A<&>", 1, 0.1, 0.01), Point("B", 2, 0.01), Point("C", 3, 0.001)])
    theirs = Series("theirs", [Point("D", 2, 0.02), Point("zero", 2.5, 0.0)])
    return charts.scatter_chart([ours, theirs], title="A & B", subtitle="x < y", x="size", y="loss").drawing


def test_scatter_chart_places_points_by_their_values() -> None:
    """Smaller values stand lower, larger sizes further right; beaten points are rings; labels cover nothing."""
    drawing = _chart()
    dots = {shape.note.split(":")[0]: shape for shape in drawing.shapes if isinstance(shape, Dot) and shape.note}
    a, b, d = dots["ours A<&>"], dots["ours B"], dots["theirs D"]
    assert a.x < b.x == d.x
    assert a.y < d.y < b.y
    assert (a.filled, b.filled, d.filled) == (True, True, False)
    texts = [shape for shape in drawing.shapes if isinstance(shape, Text)]
    assert {"A<&>", "B", "C", "D", "ours", "theirs", "size", "loss"} <= {text.text for text in texts}


def test_crowded_points_keep_their_dots_and_lose_labels() -> None:
    """A hundred points at one place: all are drawn, and no two labels overlap."""
    points = [Point(f"point {i}", 1.0, 1.0) for i in range(100)]
    chart = charts.scatter_chart([Series("s", points)], title="t", x="x", y="y")
    labels = [shape for shape in chart.drawing.shapes if isinstance(shape, Text) and shape.text.startswith("point")]
    assert 1 <= len(labels) < 20
    assert sum(isinstance(shape, Dot) for shape in chart.drawing.shapes) == 100


def test_svg_is_valid_and_escaped() -> None:
    """XML that parses, whatever the names hold; light and dark colors; the title for those who cannot see."""
    drawing = _chart()
    drawing.add(Text(1, 1, "bell\a \ud800 end"))
    text = charts.svg(drawing)
    root = ET.fromstring(text.encode("utf-8"))
    assert root.tag == f"{SVG}svg"
    assert root.get("aria-label") == "A & B"
    assert "prefers-color-scheme: dark" in text
    assert "A<&>" in [element.text for element in root.iter(f"{SVG}text")]
    assert len(list(root.iter(f"{SVG}circle"))) >= 5


def test_png_shows_what_was_drawn() -> None:
    """Twice the size, the colors at their places."""
    from PIL import Image

    drawing = Drawing(60, 40, "t", [Rect(10, 10, 20, 10, "series0"), Line(((0, 35), (60, 35)), "ink", 4, dash=True)])
    drawing.add(Dot(45, 15, 5, "series1"), Text(2, 8, "x\n"), Rect(1, 1, 0, 5, "ink"))
    image = Image.open(BytesIO(charts.png(drawing)))
    assert image.size == (120, 80)
    assert image.getpixel((40, 30)) == (0x1D, 0x4E, 0xD8)
    assert image.getpixel((90, 30)) == (0xC2, 0x41, 0x0C)
    assert image.getpixel((70, 50)) == (255, 255, 255)


def test_bars_are_as_long_as_their_values() -> None:
    """In each group on its own scale; the mark stands where its value is."""
    groups = [Group("decode", [Bar("a", 10, "10", 20), Bar("b", 5, "5")]), Group("prefill", [Bar("c", 1000, "1000")])]
    drawing = charts.bar_chart(groups, title="t", subtitle="s")
    bars = {shape.note: shape for shape in drawing.shapes if isinstance(shape, Rect) and shape.note}
    assert bars["a: 10"].width == pytest.approx(2 * bars["b: 5"].width)
    assert bars["c: 1000"].width > 3 * bars["b: 5"].width
    mark = next(shape for shape in drawing.shapes if isinstance(shape, Line))
    assert mark.points[0][0] == pytest.approx(bars["a: 10"].x + 2 * bars["a: 10"].width)
    assert drawing.height > max(bar.y + bar.height for bar in bars.values())


def test_empty_charts_are_drawn() -> None:
    """Nothing to show is no error."""
    charts.svg(charts.bar_chart([Group("", [])], title="t"))
    charts.svg(charts.bar_chart([Group("", [Bar("zero", 0.0, "0")])], title="t"))
    charts.svg(charts.scatter_chart([], title="t", x="x", y="y").drawing)


def test_stacked_drawings_keep_their_shapes() -> None:
    """The second stands below the first."""
    whole = charts.stack(
        [Drawing(10, 20, "a", [Text(1, 2, "x")]), Drawing(30, 5, "b", [Line(((0, 1), (2, 3)), "ink")])]
    )
    assert (whole.width, whole.height, whole.title) == (30, 25, "a")
    assert whole.shapes == [Text(1, 2, "x"), Line(((0, 21), (2, 23)), "ink")]


def test_saving_checks_the_name_first(tmp_path: Path) -> None:
    """Only .svg and .png, only into folders that exist; nothing but the file remains."""
    for name, error in (("x.gif", ValueError), ("no/x.svg", FileNotFoundError), ("x", ValueError)):
        with pytest.raises(error):
            charts.check_picture(tmp_path / name)
    (tmp_path / "d.svg").mkdir()
    with pytest.raises(IsADirectoryError):
        charts.save(_chart(), tmp_path / "d.svg")
    charts.save(_chart(), tmp_path / "a.SVG")
    charts.save(_chart(), tmp_path / "a.png")
    charts.save(_chart(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "a.png", "d.svg"]
