"""Which part of a call takes the time, read while the whole call runs as usual."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import wraps
from itertools import cycle, pairwise
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.online_ensemble import Mark, cost, mark
from benchmarks.timing import Samples

REST = "rest"
Seam = tuple[Any, str, tuple[str, ...]]  # owner and name of a function, its parts call by call


class Trace:
    """When each part of a call began; whatever is in no part is ``REST``.

    A part that begins within another one interrupts it, so that the parts add up to the whole.
    Nothing waits for a GPU: there the marks are events in its queue.

    Attributes:
        part: the one that is running.
        calls: of every call the moments at which a part began or went on, and its end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.part = REST
        self.calls: list[list[tuple[str, Mark]]] = []

    def __call__(self, function: Callable[[], Any], seams: Iterable[Seam]) -> None:
        """Call a function while those of the seams are replaced by timed ones."""
        with ExitStack() as replaced:
            for owner, name, parts in seams:
                timed = self.timed(getattr(owner, name), parts)
                replaced.enter_context(patch.object(owner, name, timed))
            self.calls.append([])
            self.enter(REST)
            function()
            self.enter(REST)

    def enter(self, part: str) -> None:
        """From now on the time is this part's."""
        self.part = part
        self.calls[-1].append((part, mark(self.device)))

    def timed(self, function: Callable[..., Any], parts: Iterable[str]) -> Callable[..., Any]:
        """The function, whose calls are the given parts in turn."""
        names = cycle(parts)

        @wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            outer = self.part
            self.enter(next(names))
            result = function(*given, **named)
            self.enter(outer)
            return result

        return call

    def samples(self, parts: Iterable[str], last: int) -> dict[str, Samples]:
        """Seconds of every part in each of the last calls, 0 where it was not entered."""
        found = {part: Samples() for part in parts}
        for moments in self.calls[-last:]:
            for samples in found.values():
                samples.cost.append(0.0)
                samples.wall.append(0.0)
            for (part, began), (_, ended) in pairwise(moments):
                found[part].cost[-1] += cost(began, ended)
                found[part].wall[-1] += ended.wall - began.wall
        return found
