"""A function over all items in threads: decoding and resizing release the interpreter's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from utils.log import progress

Result = TypeVar("Result")


def threaded(
    function: Callable[[int], Result],
    count: int,
    title: str,
    *,
    workers: int | None = None,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Yield ``function(0)`` to ``function(count - 1)`` in order, with a progress bar.

    Only a few results are held at a time, however slow the consumer is.

    Args:
        function: of an index.
        count: of indices.
        title: of the progress bar.
        workers: how many threads; None for one per core that this process may use.
        initializer: called once in every thread.
    """
    num_threads = workers or usable_cores()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads, initializer=initializer) as pool:
        try:
            for index in progress(range(count), desc=title):
                while len(pending) < 2 * num_threads and index + len(pending) < count:
                    pending.append(pool.submit(function, index + len(pending)))
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def usable_cores() -> int:
    """How many cores this process may use; all of the machine where no system call tells it."""
    if hasattr(os, "sched_getaffinity"):  # macOS and Windows have none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
