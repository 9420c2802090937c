"""Iterators of iqrun in asyncio programs: the work is done in a thread, the event loop stays free.

from iqrun.generation import aio

async for piece in aio.iterate(chat.send("Hello")):
    ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from iqrun.generation.cancellation import CancelToken

T = TypeVar("T")

_CANCEL_SECONDS = 0.02  # a step may have been about to begin when it was cancelled: it is told again

_END: Any = object()


async def iterate(items: Iterator[T], *, cancel: CancelToken | None = None) -> AsyncGenerator[T, None]:
    """Yields what an iterator of iqrun gives (`Model.stream`, `Chat.send` ...), without blocking the event loop.

    If the task is cancelled, or the generator closed (``aclose``), the iterator is closed too, after the running step.

    Args:
        items: the iterator; nobody else may use it meanwhile.
        cancel: what `items` was given as `cancel`; with it also a long prompt is left at once.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="iqrun") as thread:
        try:
            while (item := await _in_thread(thread, partial(next, items, _END), cancel)) is not _END:
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                thread.submit(close).result()


async def run(function: Callable[[], T], *, cancel: CancelToken | None = None) -> T:
    """The result of a function that runs in a thread; if the task is cancelled, so is `cancel`."""
    with ThreadPoolExecutor(1, thread_name_prefix="iqrun") as thread:
        return await _in_thread(thread, function, cancel)


async def _in_thread(thread: ThreadPoolExecutor, function: Callable[[], T], cancel: CancelToken | None) -> T:
    """The result of one call. A cancelled task leaves when the call has ended: nobody may use its objects before."""
    future = asyncio.get_running_loop().run_in_executor(thread, function)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            if cancel is not None:
                cancel.cancel()
            await asyncio.wait([future], timeout=_CANCEL_SECONDS)
        if not future.cancelled():
            future.exception()  # has been seen: asyncio shall not log it
        raise
