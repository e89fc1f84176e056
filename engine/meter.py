"""What training logs, summed on the device between two prints."""

from __future__ import annotations

import time
from collections import deque
from functools import reduce

import torch
from torch import Tensor

from utils.distributed import all_gather_object, all_reduce_sum, any_process, world_size
from utils.types import StepOutput

EXTREMES = {"min": torch.minimum, "max": torch.maximum}


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite."""


class Meter:
    """Sums of what was logged since the last print, on the device, and the first bad step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.seen: deque[tuple[int, list[str]]] = deque()
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.sums: dict[str, Tensor] = {}
        self.extremes: dict[str, Tensor] = {}  # names that end with _min or _max
        self.steps = 0
        self.began = time.perf_counter()
        self.seen.clear()

    def add(self, step: int, out: StepOutput, ids: list[str]) -> None:
        """Take in a step without waiting for the device."""
        total = torch.stack([loss.detach().float() for loss in out.losses.values()]).sum()
        bad = ~torch.isfinite(total) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        logs = {"loss": total} | out.logs
        if len(out.losses) > 1:
            logs |= {f"loss_{name}": loss.detach() for name, loss in out.losses.items()}
        for name, value in logs.items():
            if ending := EXTREMES.get(name.rpartition("_")[2]):
                self.extremes[name] = ending(self.extremes.get(name, value), value)
            else:
                self.sums[name] = self.sums.get(name, 0) + value.float()
        self.steps += 1
        self.seen.append((step, ids))

    def means(self) -> dict[str, float]:
        """Means (of ``_min`` and ``_max`` the extremes) over steps and processes.

        Raises:
            NonFiniteLossError: where a loss was not finite.
        """
        if any_process(bool(self.first_bad >= 0), self.device):
            first = int(self.first_bad)
            ids = next((ids for step, ids in self.seen if step == first), [])
            where = f"at step {first} on images {', '.join(ids)}" if ids else "on another process"
            raise NonFiniteLossError(f"the loss is not finite {where}")
        names = list(self.sums)
        values = all_reduce_sum(torch.stack([self.sums[name] for name in names]))
        mean = values.cpu() / (self.steps * world_size())
        return dict(zip(names, mean.tolist(), strict=True)) | self._joint_extremes()

    def _joint_extremes(self) -> dict[str, float]:
        """The extremes over all processes."""
        if not self.extremes:
            return {}
        mine = {name: value.item() for name, value in self.extremes.items()}
        every = all_gather_object(mine)
        return {
            name: {"min": min, "max": max}[name.rpartition("_")[2]](each[name] for each in every)
            for name in mine
        }


def joint_logs(logs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over micro-batches of what each logs; extremes of what ends with _min or _max."""
    if len(logs) == 1:
        return logs[0]
    joint = {}
    for name in logs[-1]:
        values = [one[name] for one in logs if name in one]
        if ending := EXTREMES.get(name.rpartition("_")[2]):
            joint[name] = reduce(ending, values)
        else:
            joint[name] = torch.stack(values).float().mean()
    return joint
