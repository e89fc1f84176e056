"""What a report holds: groups in summary, comparisons, sections."""

from __future__ import annotations

from dataclasses import dataclass

from utils.report.groups import Group
from utils.report.tables import SCORES, SUBSET, caption_of_subset
from utils.statistics import Difference, Summary

SEEDS, IMAGES, NONE = "seeds", "images", "none"  # what an interval is over
MINORITY = "minority_mean"  # the name of the mean IoU of the tested classes
CAPTIONS = {  # of the means, short ones
    MINORITY: "minority mIoU",
    **SCORES,
    "frequency_weighted_accuracy": "FreqW accuracy",
}


@dataclass(frozen=True)
class GroupSummary:
    """A group's scores.

    Attributes:
        group: the rows.
        scores: by class name, then by name of a mean, in percent.
        paper: the published value by score, in percent.
        interval: what the intervals are over: ``seeds``, ``images`` or ``none``.
        numbers: of the reliability, by dotted path; their intervals are over seeds or, of a single
            run, over images as its result file has them.
    """

    group: Group
    scores: dict[str, Summary]
    paper: dict[str, float]
    interval: str
    numbers: dict[str, Summary]


@dataclass(frozen=True)
class RobustnessPoint:
    """The errors of a model on one test set.

    Attributes:
        model: its label, without the test set.
        test: the test set in words.
        summary: of the group behind it.
        miou: in percent.
        ece: in percent.
        miou_error: 100 - mIoU divided by the smallest on the source; nothing known where undefined.
        ece_error: the ECE divided by the smallest on the source.
    """

    model: str
    test: str
    summary: GroupSummary
    miou: Summary
    ece: Summary
    miou_error: Summary
    ece_error: Summary


@dataclass(frozen=True)
class Robustness:
    """Errors relative to the best on a source, of every model on every test set.

    Attributes:
        source: the test set whose best error is 1.
        reason: why it is the source, a sentence.
        tests: the source, then the others.
        points: by model, then by test.
        warnings: what makes the comparison unsure.
    """

    source: str
    reason: str
    tests: tuple[str, ...]
    points: list[RobustnessPoint]
    warnings: list[str]

    @property
    def models(self) -> list[str]:
        """The labels of the models, in order."""
        return list(dict.fromkeys(point.model for point in self.points))


@dataclass(frozen=True)
class Search:
    """A network, or several seeds of one, that searched for unknown objects.

    Attributes:
        network: its label, without the test set.
        tests: what it found, by test set.
        validation: the test set of the mean IoU, empty if none of the results has one.
        miou: of the same checkpoints there, in percent.
    """

    network: str
    tests: dict[str, GroupSummary]
    validation: str
    miou: Summary


@dataclass(frozen=True)
class UnknownObjects:
    """How well networks find unknown objects on every test set that has some.

    Attributes:
        tests: the test sets, in words.
        searches: one for each network.
    """

    tests: tuple[str, ...]
    searches: list[Search]


@dataclass(frozen=True)
class Comparison:
    """A method against its baseline.

    Attributes:
        baseline: summary of the baseline.
        method: summary of the method.
        differences: method minus baseline by score, in percentage points.
        interval: what the intervals of the differences are over.
    """

    baseline: GroupSummary
    method: GroupSummary
    differences: dict[str, Difference]
    interval: str


@dataclass(frozen=True)
class Section:
    """A method or several with their baseline, or all groups of a test set that have none.

    Attributes:
        title: what its groups have in common.
        classes: all that were scored.
        family: the classes over whose tests Holm's correction runs.
        summaries: its groups.
        comparisons: its methods, each against its baseline.
    """

    title: str
    classes: tuple[str, ...]
    family: tuple[str, ...]
    summaries: list[GroupSummary]
    comparisons: list[Comparison]

    @property
    def shown(self) -> list[GroupSummary]:
        """The groups that are shown class by class."""
        return [summary for summary in self.summaries if summary.group.detailed]

    @property
    def others(self) -> tuple[str, ...]:
        """The classes that are not tested."""
        return tuple(name for name in self.classes if name not in self.family)

    @property
    def means(self) -> dict[str, str]:
        """Captions of the means that all groups have, by name."""
        known = [
            name
            for name in self.summaries[0].scores
            if all(name in summary.scores for summary in self.summaries)
        ]
        named = {name: caption for name, caption in CAPTIONS.items() if name in known}
        return named | {name: caption_of_subset(name) for name in known if name.startswith(SUBSET)}


@dataclass(frozen=True)
class Report:
    """All that a report shows, in the order of its pages.

    Attributes:
        data: what was trained on what and tested on what, one line for each test.
        sections: groups that belong together.
        warnings: what makes numbers less sure than they look.
        notes: what the numbers mean.
        unsegmented: groups of tests that know no classes, only unknown objects.
        robustness: errors relative to the best on a source; None where no model has several tests.
        unknown: what was found of unknown objects; None where nothing was searched for any.
    """

    data: list[str]
    sections: list[Section]
    warnings: list[str]
    notes: list[str]
    unsegmented: list[GroupSummary]
    robustness: Robustness | None = None
    unknown: UnknownObjects | None = None

    @property
    def segmented(self) -> list[GroupSummary]:
        """The groups of all sections."""
        return [summary for section in self.sections for summary in section.summaries]

    @property
    def summaries(self) -> list[GroupSummary]:
        """All groups."""
        return [*self.segmented, *self.unsegmented]
