"""Where a run comes from: flags, command line, commit, versions and device."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from utils.files import write_json

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "numpy")


def git_state(folder: Path = PROJECT) -> tuple[str | None, bool | None]:
    """The commit checked out in a folder and whether files differ from it.

    Both are None where the folder is not the top of a git checkout.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():
        return None, None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe_device(device: torch.device) -> str:
    """The device's name for people: the GPU's, or the number of threads on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def write_opts(folder: str | Path, opts: Mapping[str, Any], *, device: torch.device) -> Path:
    """Write ``opts.json``: what would have to be the same for the run to come out the same.

    The command line is that of this process.

    Args:
        folder: the run's folder.
        opts: every flag by name.
        device: where the run computes.

    Returns:
        The file's path.
    """
    commit, dirty = git_state()
    path = Path(folder) / "opts.json"
    versions = {name: metadata.version(name) for name in PACKAGES}
    write_json(
        path,
        {
            "opts": dict(opts),
            "command": shlex.join(["python", *sys.argv]),
            "commit": commit,
            "dirty": dirty,
            "versions": {"python": platform.python_version(), **versions},
            "device": describe_device(device),
        },
    )
    return path
