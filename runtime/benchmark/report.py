"""What `benchmark.measure` found, for people: a table's cells, and a picture of the speeds against the roof."""

from __future__ import annotations

from collections.abc import Sequence

from iqrun.benchmark.timing import Measurement, Trial
from iqrun.charts import Bar, Drawing, Group, bar_chart

HEADERS = ("model", "test", "tokens/s", "stddev", "threads", "isa", "of the roof")


def cells(results: Sequence[Measurement]) -> list[list[str]]:
    """The rows below `HEADERS`."""
    return [
        [
            *(result.model, _test(result), f"{result.tokens_per_second:.2f}", f"{result.stddev:.2f}"),
            *(str(result.threads), result.isa, percent(result.roof_share)),
        ]
        for result in results
    ]


def roofs(results: Sequence[Measurement]) -> list[str]:
    """A sentence per model on what limits its decoding."""
    first = {result.model: result for result in reversed(results)}
    return [
        f"{result.model}: {result.weight_bytes_per_token / 2**20:.1f} MiB of weights per token, read from the "
        f"{result.source} at {result.read_bandwidth / 1e9:.1f} GB/s: a roof of "
        f"{result.read_bandwidth / result.weight_bytes_per_token:.1f} tokens/s"
        for result in reversed(first.values())
    ]


def plot(results: Sequence[Measurement]) -> Drawing:
    """Bars of tokens per second: decoding, with a line at the roof, above prefill."""
    first = results[0]
    speed = f"the {first.source} reads {first.read_bandwidth / 1e9:.1f} GB/s"
    groups = [
        Group(title, [_bar(result) for result in results if result.test == test])
        for title, test in (("decode; the line is the roof", "decode"), ("prefill", "prefill"))
    ]
    return bar_chart(
        [group for group in groups if group.bars],
        title="Tokens per second",
        subtitle=f"{first.threads} threads, {first.isa}; {speed}",
    )


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _bar(result: Measurement) -> Bar:
    share = "" if result.roof_share is None else f", {100 * result.roof_share:.0f} %"
    text = f"{result.tokens_per_second:.{0 if result.tokens_per_second >= 1000 else 1}f}{share}"
    return Bar(f"{result.model.removesuffix('.gguf')}: {_test(result)}", result.tokens_per_second, text, result.roof)


def _test(result: Measurement) -> str:
    return str(Trial("decode" if result.test == "decode" else "prefill", result.n_tokens, result.depth))
