"""A Jinja environment that a hostile template can neither leave, nor keep busy, nor fill with text.

Chat templates come from model files: they are programs by strangers. Jinja's immutable sandbox keeps them away from
Python's internals, and only the filters that templates need are there. What can repeat or grow is watched: loops,
calls, operators and filters draw from one budget of steps and time per rendering; every text and list that they build
is weighed, and what could become large in one step is weighed before it is built.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SOURCE = 65_536  # characters of a template, twice the longest known; compiling takes kilobytes for each
MAX_CHARS = 4_000_000  # of any text while rendering, and of the result
MAX_STEPS = 500_000
MAX_SECONDS = 5.0
MAX_RANGE = 100_000

# fmt: off
FILTERS = {
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim", "unique",
    "upper",
}
# fmt: on
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "translate"}
_BITS = 64  # weight of one bit of an integer: long multiplications are slow before they are large
_COUNTED, _WEIGHED = "iqrun_counted", "iqrun_weighed"


class LimitError(Exception):
    """A template went beyond a limit, or called `raise_exception`."""


class Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._steps = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """Pays for one turn of a loop, call, operator or filter."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise LimitError(f"it takes more than {MAX_STEPS} steps")
        if self._steps % 64 == 0 and time.monotonic() > self._deadline:
            raise LimitError(f"it takes more than {MAX_SECONDS:.0f} seconds")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Set `budget` before each rendering, and render once at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self.budget = Budget()
        self.filters = {name: function for name, function in self.filters.items() if name in FILTERS}
        self.filters.update(tojson=_to_json, join=_join, replace=_replace)
        self.filters.update({_COUNTED: self.counted, _WEIGHED: self.weighed})
        del self.globals["lipsum"]
        self.globals.update(range=_short_range, raise_exception=_raise, strftime_now=_strftime_now)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Guards().visit(super()._parse(source, name, filename))
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Hides what the sandbox hides, and the string methods that pad to any width."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def wrap_str_format(self, value: Any) -> Any:
        """Lets ``'...'.format`` pass if its pattern asks for no large width."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_pattern(str(getattr(value, "__self__", "")))
        return wrapped

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as the base class
        """Calls a function or method for the template."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "join" and args:
            return __self.weighed(_join(args[0], owner))
        if isinstance(owner, str) and name == "replace" and len(args) >= 2:
            return __self.weighed(_replace(owner, *args))
        __self.budget.step()
        return __self.weighed(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Computes an operator whose result can be large."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_size(_BITS * left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str):
            _check_pattern(left)
        return self.weighed(super().call_binop(context, operator, left, right))

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, each at the price of a step."""
        for item in items:
            self.budget.step()
            yield item

    def weighed(self, value: Any) -> Any:
        """The value, if it is not too large to be shown."""
        self.budget.step()
        if isinstance(value, (str, list, tuple, dict)):
            _check_size(_weight(value))
        return value


class Generation(Extension):
    """``{% generation %}...{% endgeneration %}`` marks the model's words for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - the type of the base class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Leaves the tags out."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Guards(NodeTransformer):
    """Adds the counting of loops and the weighing of results to a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named by the class it visits
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED, node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), _WEIGHED, node.lineno)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        return _filtered(self.generic_visit(node), _WEIGHED, node.lineno)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, _WEIGHED, node.lineno)
        return node


def _filtered(node: Any, name: str, lineno: int) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)


def _weight(value: Any) -> int:
    """About how many characters the value has when it is written; stops counting beyond the limit."""
    total, rest = 0, [value]
    while rest and total <= MAX_CHARS:
        item = rest.pop()
        total += len(item) if isinstance(item, str) else 1
        if isinstance(item, (list, tuple)):
            _check_size(len(item))
            rest.extend(item)
        elif isinstance(item, dict):
            _check_size(len(item))
            rest.extend(item)
            rest.extend(item.values())
    return total


def _check_size(size: int) -> None:
    if size > MAX_CHARS:
        raise LimitError(f"it builds more than {MAX_CHARS} characters or elements")


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, (str, list, tuple)) and isinstance(other, int):
            _check_size(len(one) * other)
    if isinstance(left, int) and isinstance(right, int):
        _check_size(_BITS * (left.bit_length() + right.bit_length()))


def _check_pattern(pattern: str) -> None:
    """Refuses field widths of seven digits, and widths that come from the arguments."""
    if re.search(r"\d{7}|%[^a-zA-Z%]*\*|:[^{}]*\{", pattern):
        raise LimitError("it formats a text to a very large width")


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    texts = [str(item if attribute is None else item[attribute]) for item in items]
    _check_size(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(text: Any, old: Any, new: Any, count: int | None = -1) -> str:
    whole, part, by = str(text), str(old), str(new)
    _check_size(len(whole) + (len(whole) + 1 if not part else whole.count(part)) * len(by))
    return whole.replace(part, by, -1 if count is None else count)


def _short_range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE:
        raise LimitError(f"it asks for a range of more than {MAX_RANGE} numbers")
    return numbers


def _raise(message: object) -> None:
    raise LimitError(str(message)[:1000])


def _strftime_now(pattern: str) -> str:
    _check_pattern(pattern)
    return datetime.now().strftime(pattern)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """Plain JSON, nothing escaped for HTML: what models were trained on."""
    if indent is not None and not 0 <= indent <= 16:
        raise LimitError("it asks for JSON with a very large indent")
    return json.dumps(value, ensure_ascii=False, indent=indent)
