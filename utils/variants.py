"""Scores by the forward pass that they read."""

from __future__ import annotations

from collections.abc import Iterable

from utils.types import Score


def by_variant(scores: Iterable[Score]) -> list[list[Score]]:
    """Scores grouped by their forward variant, in the order of the first of each."""
    groups: dict[str | None, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.variant.name if score.variant else None, []).append(score)
    return list(groups.values())
