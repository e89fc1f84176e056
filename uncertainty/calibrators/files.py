"""Calibrators on disk: tensors, numbers and texts with a manifest, no pickled objects."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from uncertainty.calibrators.base import Calibrator
from uncertainty.calibrators.cluster import ClusterTemperature
from uncertainty.calibrators.local import LocalTemperature
from uncertainty.calibrators.temperature import Temperature
from uncertainty.calibrators.vector import Vector
from utils.files import json_ready, open_atomically

FORMAT = "segdoubt calibrator 1"
ADVICE = "make one with --fit_calibrator"
CLASSES: dict[str, type[Calibrator]] = {
    calibrator.kind: calibrator
    for calibrator in (Temperature, Vector, ClusterTemperature, LocalTemperature)
}


def save_calibrator(path: str | Path, calibrator: Calibrator, manifest: dict[str, Any]) -> None:
    """Write a calibrator, whole or not at all.

    Args:
        path: of the file.
        calibrator: what to save.
        manifest: what it was fitted on and how, in values that JSON can hold.

    Raises:
        WriteError: if the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "kind": calibrator.kind,
        "state": calibrator.state(),
        "manifest": json_ready(manifest),
    }
    with open_atomically(path) as file:
        torch.save(content, file)


def load_calibrator(path: str | Path) -> tuple[Calibrator, dict[str, Any]]:
    """The calibrator of a file, on the CPU, and its manifest.

    Raises:
        ValueError: if the file is absent, truncated, something else than a calibrator, or made by
            another version; the message names it and says what it is.
    """
    path = Path(path)
    content = read(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} is no calibrator: {described(content)}; {ADVICE}")
    kind = content.get("kind")
    if kind not in CLASSES:
        raise ValueError(
            f"{path} holds a calibrator of kind {kind!r}; there are {', '.join(CLASSES)}"
        )
    try:
        return CLASSES[kind].from_state(content["state"]), content["manifest"]
    except (KeyError, TypeError, RuntimeError, AssertionError, AttributeError) as error:
        raise ValueError(f"{path} holds a damaged {kind} calibrator ({error}); {ADVICE}") from error


def read(path: Path) -> Any:
    """The content of a file of tensors and plain values; it cannot run code.

    Raises:
        ValueError: if there is no such file or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"calibrator {path} does not exist; {ADVICE}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError):
        size = path.stat().st_size
        raise ValueError(f"{path} ({size} bytes) is truncated or no calibrator; {ADVICE}") from None


def described(content: Any) -> str:
    """What a file of another kind holds, in words."""
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    if (
        "format" in content
        and isinstance(content["format"], str)
        and "calibrator" in content["format"]
    ):
        return f"its format is {content['format']!r}, this version reads {FORMAT!r}"
    if "model_state" in content or any(torch.is_tensor(value) for value in content.values()):
        return "it is a checkpoint of a network"
    return "it holds other values"
