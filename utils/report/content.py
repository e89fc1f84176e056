"""What a report holds: groups in summary, comparisons, sections."""

from __future__ import annotations

from dataclasses import dataclass

from utils.report.groups import Group
from utils.statistics import Difference, Summary

SEEDS, IMAGES, NONE = "seeds", "images", "none"  # what an interval is over


@dataclass(frozen=True)
class GroupSummary:
    """A group's scores.

    Attributes:
        group: the rows.
        scores: by class name, then by name of a mean, in percent.
        paper: the published value by score, in percent.
        interval: what the intervals are over: ``seeds``, ``images`` or ``none``.
    """

    group: Group
    scores: dict[str, Summary]
    paper: dict[str, float]
    interval: str


@dataclass(frozen=True)
class Comparison:
    """A method against its baseline.

    Attributes:
        baseline: summary of the baseline.
        method: summary of the method.
        differences: method minus baseline by score, in percentage points.
        family: the classes over whose tests Holm's correction runs.
        interval: what the intervals of the differences are over.
    """

    baseline: GroupSummary
    method: GroupSummary
    differences: dict[str, Difference]
    family: tuple[str, ...]
    interval: str


@dataclass(frozen=True)
class Section:
    """A method or several with their baseline, or all groups of a test set that have none."""

    title: str
    classes: tuple[str, ...]
    summaries: list[GroupSummary]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Report:
    """All that a report shows, in the order of its pages."""

    title: str
    sections: list[Section]
    warnings: list[str]
    notes: list[str]

    @property
    def summaries(self) -> list[GroupSummary]:
        """The groups of all sections."""
        return [summary for section in self.sections for summary in section.summaries]
