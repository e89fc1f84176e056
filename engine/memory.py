"""How much memory training takes, and what to change when it runs out."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Size = tuple[int, int, int]  # (N, H, W)

ADVICE = {
    "train": (
        "try a smaller --batch_size with --accumulate, a smaller --crop_size, --amp bf16 or "
        "--activation_checkpointing"
    ),
    "evaluate": (
        "try a smaller --val_batch_size, --sliding_window, a smaller --infer_size or "
        "--eval_amp bf16"
    ),
}
# How allocators that have no error class of their own begin.
SIGNS = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "ALLOC_FAILED")


class MemoryShortageError(ValueError):
    """Memory ran out; the message names the flags that lower the need."""


@contextmanager
def memory_advice(kind: Literal["train", "evaluate"]) -> Iterator[None]:
    """Turn an out-of-memory error of the block, on any device, into one with advice.

    Raises:
        MemoryShortageError: naming the flags to change and the allocator's own words.
    """
    try:
        yield
    except MemoryShortageError:
        raise
    except (RuntimeError, MemoryError) as error:
        words = str(error).strip() or type(error).__name__
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(sign in words for sign in SIGNS):
            raise
        doing = "training" if kind == "train" else "evaluation"
        raise MemoryShortageError(
            f"out of memory in {doing}: {ADVICE[kind]} (the allocator said: "
            f"{words.splitlines()[0]})"
        ) from error


def training_gigabytes(network: nn.Module, images: Size, *, half: bool) -> float:
    """Estimate what a training step holds: weights, gradients, Adam's moments, activations.

    The network is run once without data (on the meta device), and everything that its backward
    pass would keep is added up; workspaces and the loader's images come on top.

    Args:
        network: not changed.
        images: (N, H, W) of one micro-batch.
        half: whether autocast halves the activations.

    Returns:
        Gigabytes (1e9 bytes).
    """
    shadow = copy.deepcopy(network).to("meta").train()
    parameters = {tensor.untyped_storage()._cdata for tensor in shadow.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = shadow(torch.empty(images[0], 3, *images[1:], device="meta")).logits
    activations = sum(
        tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in parameters
    )
    loss = 3 * logits.numel() * 4  # logits, their log-softmax and its gradient, in float32
    weights = 4 * 4 * sum(parameter.numel() for parameter in network.parameters())
    return (weights + loss + activations / (2 if half else 1)) / 1e9


def free_gigabytes(device: torch.device) -> float:
    """Free memory of a GPU, or what the machine can still give on the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e9
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
