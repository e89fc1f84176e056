"""What to change when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

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
