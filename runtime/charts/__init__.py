"""Pictures of measurements, as SVG or PNG: quality against size, bars, lines."""

from iqrun.charts import page
from iqrun.charts.axis import Axis
from iqrun.charts.bars import Bar, Group, bar_chart
from iqrun.charts.drawing import Drawing, stack
from iqrun.charts.png import png
from iqrun.charts.save import check_picture, save
from iqrun.charts.scatter import Point, Series, efficient, scatter_chart
from iqrun.charts.svg import svg

__all__ = [
    "Axis",
    "Bar",
    "Drawing",
    "Group",
    "Point",
    "Series",
    "bar_chart",
    "check_picture",
    "efficient",
    "page",
    "png",
    "save",
    "scatter_chart",
    "stack",
    "svg",
]
