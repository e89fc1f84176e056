"""SIGTERM and Ctrl-C as requests that are answered between two steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch

from utils.distributed import any_process, world_size
from utils.log import logger


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a request that the loop answers after its step."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals their former handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def request(self, number: int, _: FrameType | None) -> None:
        """Note the signal; a second one ends the program at once."""
        self.signal = signal.Signals(number)
        self.restore()
        logger.info("%s: saving after this step; once more ends at once", self.signal.name)

    def agreed(self, step: int, interval: int, device: torch.device) -> bool:
        """Whether to stop now; processes agree on it at every printed step."""
        if world_size() == 1:
            return self.signal is not None
        return step % interval == 0 and any_process(self.signal is not None, device)
