"""A function over all items in threads: decoding and resizing release the interpreter's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from utils.log import progress

Result = TypeVar("Result")


def threaded(function: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """Yield ``function(0)`` to ``function(count - 1)`` in order, with a progress bar.

    One thread per core that this process may use; only a few results are held at a time,
    however slow the consumer is.
    """
    num_threads = len(os.sched_getaffinity(0))
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for index in progress(range(count), desc=title):
                while len(pending) < 2 * num_threads and index + len(pending) < count:
                    pending.append(pool.submit(function, index + len(pending)))
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
