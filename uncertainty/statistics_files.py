"""Statistics of scores on disk: tensors with a manifest, no pickled objects."""

from __future__ import annotations

import pickle
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from uncertainty.activations import BINS, HeadStatistics
from uncertainty.statistics import ClassMoments, ScoreStatistics
from utils.files import json_ready, open_atomically

FORMAT = "segdoubt score statistics 1"
ADVICE = "make them with --fit_score"


def save_statistics(
    path: str | Path, statistics: ScoreStatistics, manifest: dict[str, Any] | None = None
) -> None:
    """Write statistics, whole or not at all.

    Args:
        path: of the file.
        statistics: what to save.
        manifest: what they were made from and how, in values that JSON can hold; None for the
            statistics' own.

    Raises:
        WriteError: if the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "members": [asdict(moments) for moments in statistics.members],
        "joint": asdict(statistics.joint),
        "heads": [asdict(head) for head in statistics.heads],
        "manifest": json_ready(statistics.manifest if manifest is None else manifest),
    }
    with open_atomically(path) as file:
        torch.save(content, file)


def load_statistics(path: str | Path) -> ScoreStatistics:
    """The statistics of a file, on the CPU.

    Raises:
        ValueError: if the file is absent, truncated, damaged, something else than statistics, or
            made by another version; the message names it and says what would be right.
    """
    path = Path(path)
    content = _content(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        kind = f"its format is {found!r}, not {FORMAT!r}" if found else "it holds something else"
        raise ValueError(f"{path} holds no statistics of scores: {kind}; {ADVICE}")
    try:
        statistics = ScoreStatistics(
            members=tuple(ClassMoments(**moments) for moments in content["members"]),
            joint=ClassMoments(**content["joint"]),
            heads=tuple(HeadStatistics(**head) for head in content["heads"]),
            manifest=dict(content["manifest"]),
        )
        problem = _problem(statistics)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        problem = f"{type(error).__name__} {error}"
    if problem:
        raise ValueError(f"{path} holds damaged statistics of scores ({problem}); {ADVICE}")
    return statistics


def _content(path: Path) -> Any:
    """What a file of tensors and plain values holds; reading it cannot run code.

    Raises:
        ValueError: if there is no such file or it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"statistics of scores {path} do not exist; {ADVICE}")
    reason = "is truncated or holds no statistics of scores"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        reason = f"may not be read: {error.strerror}"
    except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, OSError, ValueError):
        reason = f"({path.stat().st_size} bytes) {reason}"
    raise ValueError(f"{path} {reason}; {ADVICE}")


def _problem(statistics: ScoreStatistics) -> str | None:
    """What is wrong with the values of a file, None where they can be used."""
    if not statistics.members:
        return "no maximum logits"
    sizes = statistics.joint.count.shape
    for moments in (*statistics.members, statistics.joint):
        if {getattr(moments, part.name).shape for part in fields(moments)} != {sizes}:
            return "members of different numbers of classes"
        if not moments.count.sum() > 0 or not moments.variance.isfinite().all():
            return "maximum logits of no pixel or not finite"
    if not all(map(_usable, statistics.heads)):
        return "activations of no pixel or not finite"
    return None


def _usable(head: HeadStatistics) -> bool:
    """Whether a head's histogram and means are what ``HeadStatistics`` says."""
    inside = (head.bins >= 0) & (head.bins < BINS) & (head.counts > 0)
    whole = head.bins.shape == head.counts.shape and len(head.bins) > 0 and bool(inside.all())
    return whole and bool(head.mean_features.isfinite().all())
