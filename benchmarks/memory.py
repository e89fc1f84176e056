"""What a computation takes at its peak: resident memory of a new process, or memory of a GPU."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).resolve().parents[1]
MEGABYTE = 1e6
# Blocks above 64 KiB go back to the system at once, so that what is kept counts, not how it is cut.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def in_new_process(function: Callable[..., float], *given: Any, returning: bool = False) -> float:
    """What a function gives back when a new process calls it.

    Args:
        function: one at the top of its module.
        given: its arguments, such as Python's literals write them.
        returning: whether blocks above 64 KiB go back to the system at once.

    Raises:
        RuntimeError: with what the process wrote, if it fails.
    """
    program = (
        f"from {function.__module__} import {function.__name__} as measured;"
        f" print(measured(*{given!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=os.environ | (RETURNING if returning else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory failed:\n{done.stderr}")
    return float(done.stdout)


def line_of(file: str, name: str) -> int:
    """A number of bytes from one of the system's files."""
    return int(Path(file).read_text().split(f"{name}:")[1].split()[0]) * 1024


def peak_of_this_process() -> float:
    """The most resident memory that this process has had, in MB.

    Not getrusage's: its peak is also that of the process that started this one.
    """
    return line_of("/proc/self/status", "VmHWM") / MEGABYTE


def growth(call: Callable[[], Any], device: torch.device) -> float:
    """MB by which memory during a call passes at its peak what was held before it.

    On a GPU what torch allocates there, on the CPU the resident memory of this process.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - held) / MEGABYTE
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    held = line_of("/proc/self/status", "VmRSS")
    call()
    return peak_of_this_process() - held / MEGABYTE


def free_memory(device: torch.device) -> float:
    """Bytes that nobody uses on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return line_of("/proc/meminfo", "MemAvailable")
