"""One process or many under torchrun: the same calls, no-ops where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def launched_by_torchrun() -> bool:
    """Whether torchrun set this process's place in a group."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def planned_world_size() -> int:
    """Number of processes torchrun started; known before the group is joined."""
    return int(os.environ["WORLD_SIZE"]) if launched_by_torchrun() else 1


def local_rank() -> int:
    """This process's place on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's place among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes in the group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and talks to the user."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's group (NCCL between GPUs, Gloo between CPUs) and leave it at the end."""
    if not launched_by_torchrun():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Add a tensor up over the processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """Tensors of one shape from all processes, joined along the first axis in order of rank."""
    if not dist.is_initialized():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def ratio_over_processes(numerator: Tensor, denominator: Tensor) -> Tensor:
    """A quotient of sums over all processes, as each process's share of a mean over them.

    Data parallelism averages gradients over the processes: that of what this returns is the
    gradient of (sum of the numerators) / (sum of the denominators). 0 where nothing was counted.

    Args:
        numerator: this process's sum, a scalar with gradient.
        denominator: this process's sum, a scalar, at least 0.
    """
    total = all_reduce_sum(denominator.detach().clone())
    return numerator * world_size() / torch.where(total > 0, total, torch.ones_like(total))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any process."""
    if not dist.is_initialized():
        return flag
    return bool(all_reduce_sum(torch.tensor(int(flag), device=device)).item())


def all_gather_object(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The first process's value, on every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Wait for every process."""
    if dist.is_initialized():
        dist.barrier()
