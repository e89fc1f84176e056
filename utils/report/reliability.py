"""Pictures of reliability as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files import write_atomically
from utils.report.measures import parts_of
from utils.report.style import as_png

PNG_DPI = 160

Named = Mapping[str, Sequence[Mapping[str, Any]]]


def save_reliability_pictures(results: Mapping[str, Any], folder: Path, title: str) -> list[Path]:
    """Draw the reliability of one evaluation: the whole, its data sets, conditions and members.

    Writes ``reliability_diagram.png`` and, by score, ``risk_coverage_SCORE.png``,
    ``roc_pr_SCORE.png``, ``confidence_histogram_SCORE.png``, ``ood_roc_pr_SCORE.png`` and
    ``ood_histogram_SCORE.png``, as far as the results hold what they show.

    Args:
        results: what the metrics compute.
        folder: where the files go; made if it is missing.
        title: what was evaluated, the beginning of every title.

    Returns:
        The files written.

    Raises:
        WriteError: if a picture cannot be written.
    """
    named = {name: [part] for name, part in parts_of(results).items()}
    paths = []
    for name, figure in reliability_figures(named, title):
        path = folder / f"{name}.png"
        write_atomically(path, as_png(figure, PNG_DPI))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class _Search:
    """What a score is to find, and what its pictures are called."""

    kind: str
    event: str
    aupr: str
    pixels: tuple[str, str]
    found: str
    spread: str
    roc_pr: str
    histogram: str


SEARCHES = (
    _Search(
        "misclassification",
        "errors",
        "aupr_error",
        ("right", "wrong"),
        "Errors found",
        "Right and wrong pixels",
        "roc_pr",
        "confidence_histogram",
    ),
    _Search(
        "ood",
        "unknown pixels",
        "aupr_out",
        ("in", "out"),
        "Out-of-distribution pixels found",
        "Pixels in and out of distribution",
        "ood_roc_pr",
        "ood_histogram",
    ),
)


def reliability_figures(named: Named, title: str) -> Iterator[tuple[str, Any]]:
    """Every picture that parts of results allow, by its name.

    Args:
        named: parts of results by name, one of each run.
        title: what they have in common.
    """
    # Nothing else needs them, and Matplotlib is slow to import.
    from utils.report import reliability_curves as curves
    from utils.report import reliability_panels as panels

    chosen = _with(named, "calibration", "", "diagram")
    if chosen:
        yield "reliability_diagram", panels.reliability_figure(chosen, f"Calibration, {title}")
    for score in _scores(named, "misclassification"):
        chosen = _with(named, "misclassification", score, "curve")
        if chosen:
            heading = f"Risk and coverage by {score}, {title}"
            yield f"risk_coverage_{score}", curves.risk_coverage_figure(chosen, heading)
    for search in SEARCHES:
        for score in _scores(named, search.kind):
            chosen = _with(named, search.kind, score, "roc")
            if chosen:
                heading = f"{search.found} by {score}, {title}"
                figure = curves.roc_pr_figure(chosen, heading, search.event, search.aupr)
                yield f"{search.roc_pr}_{score}", figure
            chosen = _with(named, search.kind, score, "histogram")
            if chosen:
                heading = f"{search.spread} by {score}, {title}"
                figure = panels.histogram_figure(chosen, heading, search.pixels, score)
                yield f"{search.histogram}_{score}", figure


def _scores(named: Named, kind: str) -> list[str]:
    parts = (part for runs in named.values() for part in runs)
    return list(dict.fromkeys(score for part in parts for score in part.get(kind, {})))


def _with(named: Named, kind: str, score: str, needed: str) -> dict[str, list[Mapping[str, Any]]]:
    """What the runs have of a kind, and of a score if it has scores, where it can be drawn."""
    found = {}
    for name, runs in named.items():
        contents = [part.get(kind, {}) for part in runs]
        contents = [content.get(score, {}) if score else content for content in contents]
        drawable = [content for content in contents if _drawable(content.get(needed))]
        if drawable:
            found[name] = drawable
    return found


def _drawable(curve: Mapping[str, Sequence[float | None]] | None) -> bool:
    """Whether a curve or a histogram is there and not empty."""
    return bool(curve) and all(map(len, curve.values()))  # type: ignore[union-attr]
