"""Pictures of reliability as PNG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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
    ``roc_pr_SCORE.png`` and ``confidence_histogram_SCORE.png``; of unknown objects
    ``ood_roc_pr.png`` and ``ood_histogram.png`` with all scores on the whole and, where it has
    parts, ``ood_roc_pr_SCORE.png`` and ``ood_histogram_SCORE.png`` with these; as far as the
    results hold what they show.

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
    figures = (reliability_figures(named, title), _unknown_pictures(named, title))
    for name, figure in chain(*figures):
        path = folder / f"{name}.png"
        write_atomically(path, as_png(figure, PNG_DPI))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class _Target:
    """What a score is to find, and what its pictures are called."""

    event: str
    aupr: str
    pixels: tuple[str, str]
    direction: str
    found: str
    spread: str
    roc_pr: str
    histogram: str


ERRORS = _Target(
    "errors",
    "aupr_error",
    ("right", "wrong"),
    "higher is less certain",
    "Errors found",
    "Right and wrong pixels",
    "roc_pr",
    "confidence_histogram",
)
UNKNOWN = _Target(
    "unknown pixels",
    "aupr_out",
    ("in", "out"),
    "higher is more unknown",
    "Out-of-distribution pixels found",
    "Pixels in and out of distribution",
    "ood_roc_pr",
    "ood_histogram",
)


def reliability_figures(named: Named, title: str) -> Iterator[tuple[str, Any]]:
    """Every picture that parts of results allow, by its name, but those of unknown objects.

    Args:
        named: parts of results by name, one of each run.
        title: what they have in common.
    """
    # Nothing else needs them, and Matplotlib is slow to import.
    from utils.report import reliability_curves as curves
    from utils.report import reliability_panels as panels

    calibrations = {name: _contents(runs, "calibration") for name, runs in named.items()}
    chosen = _drawn(calibrations, "diagram")
    if chosen:
        yield "reliability_diagram", panels.reliability_figure(chosen, f"Calibration, {title}")
    errors = _by_score(named, "misclassification")
    for score, mine in errors.items():
        chosen = _drawn(mine, "curve")
        if chosen:
            heading = f"Risk and coverage by {score}, {title}"
            yield f"risk_coverage_{score}", curves.risk_coverage_figure(chosen, heading)
    for score, mine in errors.items():
        yield from _target_figures(ERRORS, mine, title, score)


def unknown_figures(named: Named, title: str, score: str = "") -> Iterator[tuple[str, Any]]:
    """The curves and the histograms of unknown objects, as far as there are any, by their names.

    Args:
        named: ``ood`` by one score of each run, by the name of a line.
        title: what they have in common.
        score: by which they all are; empty where the names of the lines say it.
    """
    yield from _target_figures(UNKNOWN, named, title, score)


def _unknown_pictures(named: Named, title: str) -> Iterator[tuple[str, Any]]:
    """All scores on the whole and, where the whole has parts, these by each score."""
    scores = _by_score(named, "ood")
    whole = {score: parts["all"] for score, parts in scores.items() if "all" in parts}
    yield from unknown_figures(whole, title)
    for score, parts in scores.items():
        if len(parts) > 1:
            yield from unknown_figures(parts, title, score)


def _target_figures(
    target: _Target, named: Named, title: str, score: str
) -> Iterator[tuple[str, Any]]:
    from utils.report import reliability_curves as curves
    from utils.report import reliability_panels as panels

    by, ending = (f" by {score}", f"_{score}") if score else ("", "")
    chosen = _drawn(named, "roc")
    if chosen:
        heading = f"{target.found}{by}, {title}"
        figure = curves.roc_pr_figure(chosen, heading, target.event, target.aupr)
        yield f"{target.roc_pr}{ending}", figure
    chosen = _drawn(named, "histogram")
    if chosen:
        heading = f"{target.spread}{by}, {title}"
        axis = f"{score or 'score'}, {target.direction}"
        figure = panels.histogram_figure(chosen, heading, target.pixels, axis)
        yield f"{target.histogram}{ending}", figure


def _by_score(named: Named, kind: str) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """What the runs have of a kind, by score and name; only names that have some."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for name, runs in named.items():
        for content in _contents(runs, kind):
            for score, own in content.items():
                found.setdefault(score, {}).setdefault(name, []).append(own)
    return found


def _contents(runs: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [run.get(kind, {}) for run in runs]


def _drawn(named: Named, needed: str) -> dict[str, list[Mapping[str, Any]]]:
    """The names with the runs that have a curve or a histogram, where any has."""
    found = {
        name: [content for content in contents if _drawable(content.get(needed))]
        for name, contents in named.items()
    }
    return {name: drawable for name, drawable in found.items() if drawable}


def _drawable(curve: Mapping[str, Sequence[float | None]] | None) -> bool:
    """Whether a curve or a histogram is there and not empty."""
    return bool(curve) and all(map(len, curve.values()))  # type: ignore[union-attr]
