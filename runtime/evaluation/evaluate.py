"""How well a model predicts a text: perplexity, and divergence from a base model.

The procedure is that of llama.cpp's ``perplexity`` tool, so that numbers can be compared: the text is cut into chunks
of `n_ctx` tokens, each evaluated on its own with BOS (where the model wants one) in place of its first token, and only
the second half of each chunk is scored, so that every prediction has at least ``n_ctx / 2`` tokens of context.

Memory is bounded whatever the text, the chunks and the vocabulary are: a few rows of logits are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iqrun.evaluation.saved_logits import SavedLogits, is_saved_logits
from iqrun.scores import Divergence, Ids, Logits, Losses, Pairs, Perplexity, log_softmax

if TYPE_CHECKING:
    from iqrun.engine.session import KVType, Session
    from iqrun.model import Model

Progress: TypeAlias = Callable[[int, int], None]
# (index of a chunk, first place, end) -> logits at these scored places, (places, n_vocab); asked for in order
_Predictor: TypeAlias = Callable[[int, int, int], Logits]

_STEP_VALUES = 1 << 23  # logits computed at a time: 32 MiB
_BLOCK_VALUES = 1 << 20  # logits looked at at a time: what is computed from them is several times larger


def perplexity(
    model: Model, text: str, *, n_ctx: int = 512, max_chunks: int | None = None, progress: Progress | None = None
) -> Perplexity:
    """Measures how well `model` predicts `text`.

    Args:
        model: the model.
        text: at least ``2 * n_ctx`` tokens.
        n_ctx: tokens per chunk.
        max_chunks: stop after so many chunks.
        progress: called with (chunks done, chunks in all).

    Raises:
        IqrunError: the model computed NaN.
        ValueError: the text is too short, or `n_ctx` too small.
    """
    chunks = text_chunks(model, text, n_ctx, max_chunks)
    losses = Losses()
    with model.session(n_ctx=n_ctx) as session:
        predict = _predictor(session, chunks)
        for done, chunk in enumerate(chunks):
            for first, end in _steps(n_ctx, model.n_vocab):
                for rows, logits in _blocks(predict(done, first, end)):
                    losses.add(log_softmax(logits), _targets(chunk, first, end)[rows])
            if progress is not None:
                progress(done + 1, len(chunks))
    return losses.result(len(chunks))


def divergence(
    model: Model,
    base: Model | SavedLogits,
    text: str,
    *,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> Divergence:
    """Measures how far the predictions of `model` are from those of `base`, usually its unquantized original.

    Args:
        model: the model to judge.
        base: a model with the same vocabulary, or what such a model predicted, read from a file.
        text: as in `perplexity`.
        n_ctx: as in `perplexity`.
        max_chunks: as in `perplexity`.
        progress: as in `perplexity`.

    Raises:
        IqrunError: a model computed NaN, or the file of logits is damaged.
        ValueError: the vocabularies or the texts differ, the text is too short, or `n_ctx` too small.
    """
    return divergences([model], base, text, n_ctx=n_ctx, max_chunks=max_chunks, progress=progress)[0]


def divergences(
    models: Sequence[Model],
    base: Model | SavedLogits,
    text: str,
    *,
    n_ctx: int = 512,
    max_chunks: int | None = None,
    progress: Progress | None = None,
) -> list[Divergence]:
    """`divergence` of several models from one base, side by side, so that the base runs once.

    Args:
        models: at least one model; see `divergence` for the rest.
        base: as in `divergence`.
        text: as in `perplexity`.
        n_ctx: as in `perplexity`.
        max_chunks: as in `perplexity`.
        progress: as in `perplexity`.
    """
    chunks = text_chunks(models[0], text, n_ctx, max_chunks)
    pairs = [Pairs() for _ in models]
    with ExitStack() as stack:
        predict_base = _base(base, models[0], chunks, text, max_chunks, stack)
        for model in models[1:]:
            _check_vocabulary(model, models[0], chunks, text, max_chunks)
        predictors = [_predictor(stack.enter_context(model.session(n_ctx=n_ctx)), chunks) for model in models]
        for done, chunk in enumerate(chunks):
            for first, end in _steps(n_ctx, models[0].n_vocab):
                log_p = log_softmax(predict_base(done, first, end))
                targets = _targets(chunk, first, end)
                for predict, pair in zip(predictors, pairs, strict=True):
                    for rows, logits in _blocks(predict(done, first, end)):
                        pair.add(log_softmax(logits), log_p[rows], targets[rows])
            if progress is not None:
                progress(done + 1, len(chunks))
    return [pair.result(len(chunks)) for pair in pairs]


@contextmanager
def open_base(
    path: str | PathLike[str], *, n_ctx: int, n_threads: int | None = None, kv_type: KVType = "f16"
) -> Iterator[Model | SavedLogits]:
    """The base of a divergence, from its file: a model, or llama.cpp's saved logits.

    Raises:
        IqrunError: it is neither, or damaged.
        OSError: it cannot be read.
    """
    from iqrun.model import load

    if is_saved_logits(path):
        yield SavedLogits(path)
        return
    with load(path, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type) as model:
        yield model


def text_chunks(
    model: Model, text: str, n_ctx: int, max_chunks: int | None = None, *, min_chunks: int = 2
) -> list[Ids]:
    """The text's tokens in chunks of `n_ctx`, each beginning with BOS where the model wants one.

    Raises:
        ValueError: there are fewer than `min_chunks`, or an argument is out of range.
    """
    if max_chunks is not None and max_chunks < 1:
        raise ValueError(f"max_chunks is {max_chunks}, but must be at least 1")
    if n_ctx < 4:
        raise ValueError(f"n_ctx is {n_ctx}, but a chunk needs at least 4 tokens")
    ids = np.asarray(model.tokenizer.encode(text, add_special=True), dtype=np.int64)
    n_chunks = len(ids) // n_ctx
    if n_chunks < min_chunks:
        need = "a chunk" if min_chunks == 1 else "two chunks"
        raise ValueError(f"the text has {len(ids)} tokens, but {need} of {n_ctx} are needed: use a longer text")
    chunks = ids[: n_chunks * n_ctx].reshape(n_chunks, n_ctx).copy()
    if model.tokenizer.add_bos and model.tokenizer.bos_id is not None:
        chunks[:, 0] = model.tokenizer.bos_id
    return list(chunks[:max_chunks])


def _base(
    base: Model | SavedLogits,
    model: Model,
    chunks: list[Ids],
    text: str,
    max_chunks: int | None,
    stack: ExitStack,
) -> _Predictor:
    """The predictor of the base, a model or a file."""
    if isinstance(base, SavedLogits):
        base.check_text(chunks, model.n_vocab)
        return base.rows
    _check_vocabulary(base, model, chunks, text, max_chunks)
    return _predictor(stack.enter_context(base.session(n_ctx=len(chunks[0]))), chunks)


def _check_vocabulary(model: Model, first: Model, chunks: list[Ids], text: str, max_chunks: int | None) -> None:
    """Refuses a model that does not cut the text into the same tokens as the first one."""
    own = text_chunks(model, text, len(chunks[0]), max_chunks) if model.n_vocab == first.n_vocab else []
    if len(own) != len(chunks) or not all(np.array_equal(a, b) for a, b in zip(own, chunks, strict=True)):
        raise ValueError(
            f"{model.path} and {first.path} do not have the same vocabulary: they cannot be compared token by token"
        )


def _predictor(session: Session, chunks: list[Ids]) -> _Predictor:
    def predict(index: int, first: int, end: int) -> Logits:
        chunk, half = chunks[index], len(chunks[index]) // 2
        if first == 0:
            session.truncate(0)
        ids = chunk[half + first if first else 0 : half + end]
        want = np.zeros(len(ids), np.bool_)
        want[first - end :] = True
        return session.evaluate(ids, want=want)

    return predict


def _steps(n_ctx: int, n_vocab: int) -> Iterator[tuple[int, int]]:
    """The scored places of a chunk, in ranges whose logits are not too large; the last token predicts nothing."""
    n_places = n_ctx - 1 - n_ctx // 2
    n_rows = max(1, _STEP_VALUES // n_vocab)
    for first in range(0, n_places, n_rows):
        yield first, min(first + n_rows, n_places)


def _targets(chunk: Ids, first: int, end: int) -> Ids:
    """The tokens that came at scored places."""
    half = len(chunk) // 2
    return chunk[half + first + 1 : half + end + 1]


def _blocks(logits: Logits) -> Iterator[tuple[slice, Logits]]:
    """A few rows at a time, and which."""
    n_rows = max(1, _BLOCK_VALUES // logits.shape[1])
    for first in range(0, len(logits), n_rows):
        rows = slice(first, first + n_rows)
        yield rows, logits[rows]
