"""Tables in aligned plain text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

MISSING = "n/a"
CLASS_SCORES = {"class_iou": "IoU", "class_accuracy": "accuracy", "class_dice": "dice"}
SCORES = {
    "miou": "mIoU",
    "overall_accuracy": "overall accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_accuracy": "frequency-weighted accuracy",
    "mean_dice": "mean dice",
}


def format_table(
    rows: Iterable[Sequence[object]], header: Sequence[str], rules: Collection[int] = ()
) -> str:
    """A table in aligned plain text: the first column to the left, the others to the right.

    Fractional numbers get two decimals, None is ``n/a``. Headings may have several lines. A row
    with nothing beside its first cell is a heading for others, and may be wider than its column.

    Args:
        rows: cells of the rows.
        header: headings of the columns.
        rules: places of rows that have a line above them.
    """
    body = [[_cell(value) for value in row] for row in rows]
    headings = [heading.split("\n") for heading in header]
    height = max(map(len, headings))
    top = [
        list(line)
        for line in zip(*([""] * (height - len(lines)) + lines for lines in headings), strict=True)
    ]
    filled = [row for row in body if any(row[1:]) or len(row) == 1]
    widths = [max(map(len, column)) for column in zip(*top, *filled, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [*top, rule]
    for place, row in enumerate(body):
        lines += [rule, row] if place in rules else [row]
    return "\n".join(
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip()
        for row in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def results_table(results: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The scores of an evaluation as text: one row a class, then the means, all in percent.

    Args:
        results: what ``metrics.segmentation`` computes: ``total`` and, where there are several,
            ``dataset``, ``condition`` and ``member``, each part of which adds a column.
        class_names: the order of the rows.
    """
    total = results["total"]
    members = {
        name.removeprefix("deeplabv3plus_"): scores
        for name, scores in results.get("member", {}).items()
    }
    groups = {**results.get("dataset", {}), **results.get("condition", {}), **members}
    by_class = [total[name] for name in CLASS_SCORES] + [g["class_iou"] for g in groups.values()]
    classes = format_table(
        [[name, *(scores[name] for scores in by_class)] for name in class_names],
        ["class, %", *CLASS_SCORES.values(), *(f"IoU {group}" for group in groups)],
    )
    parts = [total, *groups.values()]
    rows: list[list[object]] = [
        [caption, *(part[name] for part in parts)] for name, caption in SCORES.items()
    ]
    seen = (f"{part['classes_seen']} of {len(class_names)}" for part in parts)
    rows.append(["classes seen", *seen])
    rows.append(["labelled pixels", *(f"{part['pixels']:,}" for part in parts)])
    return f"{classes}\n\n{format_table(rows, ['mean, %', 'all', *groups])}"
