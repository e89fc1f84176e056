"""The tables of unknown objects in a report, and the pictures that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from utils.report.content import Report, Search, UnknownObjects
from utils.report.layout import Table, spread
from utils.report.measures import META, blocks_of, scores_in
from utils.report.reliability import unknown_figures
from utils.report.reliability_layout import (
    MOST_TESTS,
    UNMEASURED,
    Picture,
    block_table,
    cell,
    file_name,
)
from utils.statistics import Summary

UNKNOWN = "unknown"  # section of a page
MOST_COLUMNS = 12  # of one table for all test sets
MOST_NETWORKS = 4  # or scores, with pictures of their own on each test set
NUMBERS = {  # the paths around the score, and the headings
    ("ood", "fpr95"): "FPR95",
    ("ood", "aupr_out"): "AUPRC",
    ("ood", "auroc"): "AUROC",
    ("components", "f1"): "F1*",
    ("components", "siou"): "sIoU",
    ("components", "ppv"): "PPV",
}


def unknown_tables(
    unknown: UnknownObjects, *, intervals: bool = True, apart: bool = False, digits: int = 2
) -> list[Table]:
    """A row for each network and score, what it finds on every test set beside the mean IoU.

    Args:
        unknown: what was found.
        intervals: of single runs, in brackets beside the values.
        apart: a table for each test set even where one for all has few enough columns.
        digits: decimals.
    """
    table = _table(unknown, unknown.tests, intervals=intervals, digits=digits)
    if not apart and len(table.header) <= MOST_COLUMNS:
        return [table]
    return [_table(unknown, (test,), intervals=intervals, digits=digits) for test in unknown.tests]


def _table(unknown: UnknownObjects, tests: Sequence[str], *, intervals: bool, digits: int) -> Table:
    searches = [s for s in unknown.searches if any(test in s.tests for test in tests)]
    columns = [(test, *key) for test in tests for key in _measured(searches, test)]
    validations = list(dict.fromkeys(s.validation for s in searches if s.validation))
    title = "Unknown objects by score, %"
    if len(tests) == 1:
        title = f"Unknown objects by score on {tests[0]}, %"
    header = ["", "n", *(f"mIoU\n{validation}" for validation in validations)]
    for test, kind, key in columns:
        heading = NUMBERS[kind, key]
        header.append(f"{test}\n{heading}" if len(tests) > 1 else heading)
    rows: list[list[str]] = []
    for search in searches:
        rows.append([search.network, *[""] * (len(header) - 1)])
        count = max(len(summary.group.results) for summary in search.tests.values())
        miou = spread(search.miou, count, digits=digits)
        known = [miou if validation == search.validation else "" for validation in validations]
        for score in _scores(search, tests):
            cells = (
                cell(found, count, digits, intervals=intervals) if found else ""
                for found in (_found(search, *column, score) for column in columns)
            )
            rows.append([f"  {score}", str(count), *known, *cells])
    return Table(title, header, rows, marked=frozenset(search.network for search in searches))


def _measured(searches: Sequence[Search], test: str) -> list[tuple[str, str]]:
    """The numbers that any network has on a test set."""
    paths = {path for s in searches if test in s.tests for path in s.tests[test].numbers}
    known = {(kind, key) for kind, _, key in (p.split(".", 2) for p in paths if p.count(".") > 1)}
    return [number for number in NUMBERS if number in known]


def _scores(search: Search, tests: Sequence[str]) -> list[str]:
    """By what a network searched on any of some test sets."""
    mine = (search.tests[test] for test in tests if test in search.tests)
    return list(dict.fromkeys(score for summary in mine for score in scores_in(summary.numbers)))


def _found(search: Search, test: str, kind: str, key: str, score: str) -> Summary | None:
    """A number of a score on a test set, None where the network was not tested there."""
    if test not in search.tests:
        return None
    return search.tests[test].numbers.get(f"{kind}.{score}.{key}", UNMEASURED)


def false_alarm_tables(report: Report, *, intervals: bool = True) -> list[Table]:
    """What meta classification did about the false alarms of the entropy, if it was asked to."""
    return [
        block_table(block, report.summaries, intervals=intervals)
        for block in blocks_of(summary.numbers for summary in report.summaries)
        if block.prefix == META
    ]


def unknown_notes(report: Report) -> list[str]:
    """How to read the tables of unknown objects, none without any."""
    unknown = report.unknown
    if unknown is None:
        return []
    notes = [
        "FPR95 is better the lower, everything else the higher; unknown pixels are the positives of"
        " AUPRC and AUROC. ± is the deviation over seeds, brackets are 95 % intervals over the"
        " images of a single run."
    ]
    paths = [p for search in unknown.searches for s in search.tests.values() for p in s.numbers]
    if scores_in(paths, ("components",)):
        notes.append(
            "F1*, sIoU and PPV are of whole objects (8-connected components) at each score's own"
            " threshold, as SegmentMeIfYouCan defines them."
        )
    if any(search.validation for search in unknown.searches):
        notes.append("The mIoU is that of the same checkpoints where they know all classes.")
    if false_alarm_tables(report):
        notes.append(
            "Meta classification predicts of every segment of high entropy whether it is a false"
            " alarm, from other images, and removes those that it takes for one."
        )
    if len(unknown.tests) > MOST_TESTS:
        notes.append(
            f"Pictures are drawn of the first {MOST_TESTS} of {len(unknown.tests)} test sets."
        )
    return notes


def unknown_pictures(report: Report) -> Iterator[Picture]:
    """ROC and precision-recall curves and histograms of the first test sets.

    A figure is of one network with a line for each score, or of one score with a line for each
    network, whichever gives fewer figures.
    """
    unknown = report.unknown
    for test in unknown.tests[:MOST_TESTS] if unknown else ():
        assert unknown is not None
        searches = [search for search in unknown.searches if test in search.tests]
        ending = f"_{file_name(test)}" if len(unknown.tests) > 1 else ""
        for caption, named, score in _figures(searches, test):
            title = f"{caption}, {test}" if caption else test
            part = f"_{file_name(caption)}" if caption else ""
            for name, figure in unknown_figures(named, title, score):
                yield Picture(
                    f"{name}{part}{ending}",
                    f"Unknown objects of {test}",
                    f"{name.replace('_', ' ')}, {title}",
                    figure,
                    UNKNOWN,
                )


def _figures(searches: Sequence[Search], test: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Of each figure what its network is called, its lines and the score of them all, if any."""
    found: dict[str, dict[str, list[Any]]] = {}  # by network and score
    for search in searches:
        results = search.tests[test].group.results
        for result in results:
            for score, content in result.content.get("ood", {}).items():
                found.setdefault(search.network, {}).setdefault(score, []).append(content)
    scores = list(dict.fromkeys(score for mine in found.values() for score in mine))
    if len(found) <= len(scores):
        for network, mine in list(found.items())[:MOST_NETWORKS]:
            yield (network if len(found) > 1 else ""), mine, ""
    else:
        for score in scores[:MOST_NETWORKS]:
            yield "", {n: mine[score] for n, mine in found.items() if score in mine}, score
