"""Files of one model side by side: size, storage types, quality, speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike, fsdecode
from pathlib import PurePath
from typing import TypeAlias

from iqrun.benchmark.timing import Trial, measure
from iqrun.charts import Point, efficient
from iqrun.engine.session import KVType
from iqrun.evaluation.evaluate import divergences, open_base, perplexity
from iqrun.gguf import GGUFFile
from iqrun.model import load
from iqrun.scores import Divergence, Perplexity

StrPath: TypeAlias = str | PathLike[str]
Progress: TypeAlias = Callable[[int, int], None]

_SPEED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        n_bytes: size, of all files of a split model.
        bpw: bits per weight over all tensors, headers left out.
        types: share of the weights that each storage type holds, largest first.
    """

    n_bytes: int
    bpw: float
    types: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of the files.

    Attributes:
        path: the file.
        contents: its size and types.
        perplexity: how well it predicts the text.
        divergence: how far it is from the base; None without one.
        decode_speed: generated tokens per second; None if not measured.
    """

    path: str
    contents: Contents
    perplexity: Perplexity
    divergence: Divergence | None
    decode_speed: float | None

    @property
    def name(self) -> str:
        """The file's name without folder and suffix."""
        return PurePath(self.path).stem

    @property
    def loss(self) -> float:
        """What is to be small: mean divergence, or perplexity without a base."""
        return self.perplexity.ppl if self.divergence is None else self.divergence.mean_kld

    @property
    def loss_stderr(self) -> float:
        """Standard error of `loss`."""
        return self.perplexity.ppl_stderr if self.divergence is None else self.divergence.kld_stderr


@dataclass(frozen=True, slots=True)
class _Settings:
    """What all measurements have in common."""

    text: str
    n_ctx: int
    max_chunks: int | None
    n_threads: int | None
    kv_type: KVType


def compare(
    paths: Sequence[StrPath],
    text: str,
    *,
    base: StrPath | None = None,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    n_threads: int | None = None,
    kv_type: KVType = "f16",
    speed: bool = False,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Measures files of one model side by side.

    With a base, all files are open at the same time and go through the text together, so that the base runs once;
    they are mapped, so that they take the memory that the system can spare. Without one, they take turns.

    Args:
        paths: GGUF files.
        text: text to measure on; at least ``2 * n_ctx`` tokens.
        base: the original, or llama.cpp's file of its saved logits.
        n_ctx: tokens per chunk.
        max_chunks: only the first chunks.
        n_threads: threads that compute; None takes one per physical core.
        kv_type: type of cached keys and values.
        speed: also measure the speed of decoding.
        progress: called with (chunks done, chunks in all).

    Returns:
        One `Comparison` per path, in the same order.

    Raises:
        IqrunError: a file cannot be run, or is damaged.
        ValueError: no file, the text is too short, or the vocabularies differ.

    Example:
        >>> for row in iqrun.compare(["a.gguf", "b.gguf"], text, base="f16.gguf"):
        ...     print(row.name, row.contents.bpw, row.divergence.mean_kld)
    """
    if not paths:
        raise ValueError("no files to compare")
    contents = [_contents(path) for path in paths]
    settings = _Settings(text, n_ctx, max_chunks, n_threads, kv_type)
    found: Sequence[Divergence | Perplexity]
    if base is None:
        found = [_perplexity(path, settings, progress, index, len(paths)) for index, path in enumerate(paths)]
    else:
        found = _divergences(paths, base, settings, progress)
    return [
        Comparison(
            path=fsdecode(path),
            contents=content,
            perplexity=result if isinstance(result, Perplexity) else result.model,
            divergence=result if isinstance(result, Divergence) else None,
            decode_speed=_decode_speed(path, settings) if speed else None,
        )
        for path, content, result in zip(paths, contents, found, strict=True)
    ]


def efficient_paths(rows: Sequence[Comparison]) -> set[str]:
    """The files than which no other one is smaller and better."""
    return {point.label for point in efficient(Point(row.path, row.contents.n_bytes, row.loss) for row in rows)}


def _contents(path: StrPath) -> Contents:
    with GGUFFile(path) as file:
        weights: Counter[str] = Counter()
        for tensor in file.tensors.values():
            weights[tensor.type.name] += tensor.n_weights
        n_weights = sum(weights.values())
        n_tensor_bytes = sum(tensor.n_bytes for tensor in file.tensors.values())
        types = {name: n / n_weights for name, n in weights.most_common()}
        return Contents(file.file_bytes, 8 * n_tensor_bytes / n_weights, types)


def _perplexity(path: StrPath, how: _Settings, progress: Progress | None, index: int, n_paths: int) -> Perplexity:
    def forward(done: int, total: int) -> None:
        if progress is not None:
            progress(index * total + done, n_paths * total)

    with load(path, n_ctx=how.n_ctx, n_threads=how.n_threads, kv_type=how.kv_type) as model:
        return perplexity(model, how.text, n_ctx=how.n_ctx, max_chunks=how.max_chunks, progress=forward)


def _divergences(
    paths: Sequence[StrPath], base: StrPath, how: _Settings, progress: Progress | None
) -> list[Divergence]:
    with ExitStack() as stack:
        models = [
            stack.enter_context(load(path, n_ctx=how.n_ctx, n_threads=how.n_threads, kv_type=how.kv_type))
            for path in paths
        ]
        other = stack.enter_context(open_base(base, n_ctx=how.n_ctx, n_threads=how.n_threads, kv_type=how.kv_type))
        return divergences(models, other, how.text, n_ctx=how.n_ctx, max_chunks=how.max_chunks, progress=progress)


def _decode_speed(path: StrPath, how: _Settings) -> float:
    n_tokens = min(_SPEED_TOKENS, how.n_ctx)
    with load(path, n_ctx=how.n_ctx, n_threads=how.n_threads, kv_type=how.kv_type) as model:
        (result,) = measure(model, [Trial("decode", n_tokens)])
    return result.tokens_per_second
