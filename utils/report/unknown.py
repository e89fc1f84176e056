"""Which networks searched for unknown objects, where, and how well they segment."""

from __future__ import annotations

from collections.abc import Sequence

from utils.report.content import GroupSummary, Search, UnknownObjects
from utils.report.groups import Group, differing_flags
from utils.report.measures import scores_in
from utils.report.robustness import groups_by_model
from utils.statistics import summarise


def unknown_objects(summaries: Sequence[GroupSummary]) -> UnknownObjects | None:
    """The searches for unknown objects of all networks on all test sets.

    Members of ensembles and conditions are left out, and several data sets together, of which
    each counts.

    Args:
        summaries: of all groups.

    Returns:
        None if no result has any.
    """
    chosen = [s for s in summaries if s.group.of_one_dataset and scores_in(s.numbers)]
    by_group = {summary.group.label: summary for summary in chosen}
    searches = []
    for label, groups in groups_by_model([summary.group for summary in chosen]).items():
        checkpoints = {row.sha256 for group in groups.values() for row in group.results}
        first = next(iter(groups.values()))
        validation = _validation(summaries, checkpoints, first)
        values = [
            miou
            for row in (validation.results if validation else ())
            if row.sha256 in checkpoints and (miou := row.scores["miou"]) is not None
        ]
        searches.append(
            Search(
                label,
                {test: by_group[group.label] for test, group in groups.items()},
                validation.facts.tested_on if validation else "",
                summarise(values),
            )
        )
    tests = dict.fromkeys(test for search in searches for test in search.tests)
    return UnknownObjects(tuple(tests), searches) if searches else None


def _validation(
    summaries: Sequence[GroupSummary], checkpoints: set[str], search: Group
) -> Group | None:
    """The group that says how well the checkpoints of a search segment, None if there is none.

    It is one on the data set of the training if there is one, then one without unknown objects,
    then the one that was tested most alike.
    """
    trained_on = search.facts.trained_on.partition(" ")[0]

    def preference(summary: GroupSummary) -> tuple[bool, bool, int]:
        first = summary.group.results[0]
        flags = differing_flags([first, search.results[0]])
        return first.dataset != trained_on, bool(scores_in(summary.numbers)), len(flags)

    candidates = [
        summary
        for summary in summaries
        if summary.scores
        and summary.group.of_one_dataset
        and any(row.sha256 in checkpoints for row in summary.group.results)
    ]
    best = min(candidates, key=preference, default=None)
    return best.group if best else None
