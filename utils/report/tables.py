"""Tables in aligned plain text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from utils.report.measures import (
    BY_SCORE,
    COLUMNS,
    META,
    TITLES,
    Block,
    blocks_of,
    numbers_of,
    parts_of,
    with_variants,
)

MISSING = "n/a"
CLASS_SCORES = {"class_iou": "IoU", "class_accuracy": "accuracy", "class_dice": "dice"}
SUBSET = "miou_"  # with it begins the name of a mean over some of the classes
SCORES = {
    "miou": "mIoU",
    "overall_accuracy": "overall accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_accuracy": "frequency-weighted accuracy",
    "mean_dice": "mean dice",
}


def caption_of_subset(name: str) -> str:
    """What a mean over some of the classes, ``miou_NAME``, is called."""
    return f"mIoU of {name.removeprefix(SUBSET)} classes"


def is_mean(name: str) -> bool:
    """Whether a score is a mean over classes, and not of one class."""
    return name in SCORES or name.startswith(SUBSET)


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


def number(value: float | None, *, signed: bool = False, digits: int = 2) -> str:
    """So many decimals, ``n/a`` for None."""
    if value is None:
        return MISSING
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:{'+' if signed else ''}.{digits}f}"


def bracketed(low: float | None, high: float | None, *, digits: int = 2) -> str:
    """An interval in brackets, ``n/a`` where there is none."""
    if low is None or high is None:
        return MISSING
    return f"[{number(low, digits=digits)}, {number(high, digits=digits)}]"


def results_table(results: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The scores of an evaluation as text: one row a class, then the means, all in percent.

    Args:
        results: what ``metrics.segmentation`` computes: ``total`` and, where there are several,
            ``dataset``, ``condition`` and ``member``, each part of which adds a column.
        class_names: the order of the rows.
    """
    groups = parts_of(results)
    total = groups.pop("all")
    by_class = [total[name] for name in CLASS_SCORES] + [g["class_iou"] for g in groups.values()]
    classes = format_table(
        [[name, *(scores[name] for scores in by_class)] for name in class_names],
        ["class, %", *CLASS_SCORES.values(), *(f"IoU {group}" for group in groups)],
    )
    parts = [total, *groups.values()]
    subsets = [name for name in total if name.startswith(SUBSET)]
    captions = SCORES | {name: caption_of_subset(name) for name in subsets}
    rows: list[list[object]] = [
        [caption, *(part[name] for part in parts)] for name, caption in captions.items()
    ]
    seen = (f"{part['classes_seen']} of {len(class_names)}" for part in parts)
    rows.append(["classes seen", *seen])
    rows.append(["labelled pixels", *(f"{part['pixels']:,}" for part in parts)])
    return f"{classes}\n\n{format_table(rows, ['mean, %', 'all', *groups])}"


def reliability_table(results: Mapping[str, Any]) -> str:
    """Calibration, misclassification and detection of the unknown as text, units in the headings.

    A row for the whole, each data set, condition, scene and member, with 95 % intervals where
    the result has them; of unknown objects one for each score, under its part where there are
    several; of image-level detection one for each data set that it is against.

    Args:
        results: what the metrics compute. Without any reliability in it the text is empty.
    """
    parts = parts_of(results, scenes=True)
    rows = {name: numbers for name, part in parts.items() if (numbers := numbers_of(part))}
    blocks = blocks_of(rows.values())
    tables = [_block_table(block, rows, parts) for block in blocks if block.prefix != META]
    tables += filter(None, (_score_table(kind, parts) for kind in BY_SCORE))
    tables += [_block_table(block, rows, parts) for block in blocks if block.prefix == META]
    for score, content in results.get("image_ood", {}).items():
        columns = COLUMNS["image_ood"]
        tables.append(
            format_table(
                [
                    [name, f"{found['images']:,}"]
                    + [number(found[column.key], digits=column.digits) for column in columns]
                    for name, found in content["against"].items()
                ],
                [
                    f"{TITLES['image_ood']}\nby {score}: {content['in_domain']} against",
                    *("images", *(column.heading for column in columns)),
                ],
            )
        )
    return "\n\n".join(tables)


def _block_table(
    block: Block, rows: Mapping[str, Mapping[str, float | None]], parts: Mapping[str, Any]
) -> str:
    """One table of numbers by part, a line below the whole."""
    lines = []
    for name, numbers in rows.items():
        intervals = parts[name].get("intervals", {})
        paths = [(f"{block.prefix}.{column.key}", column.digits) for column in block.columns]
        if any(path in numbers for path, _ in paths):
            lines.append([name, *(_with_interval(numbers, intervals, *path) for path in paths)])
    title = block.title.replace(" by ", "\nby ").replace(", ", ",\n")
    rules = {1} if len(lines) > 1 and lines[0][0] == "all" else ()
    return format_table(lines, [title, *(column.heading for column in block.columns)], rules)


def _score_table(kind: str, parts: Mapping[str, Any]) -> str:
    """One table of unknown objects with a row for each score; empty where nothing has any."""
    mine = {name: part for name, part in parts.items() if part.get(kind)}
    numbers = {name: numbers_of(part, counts=True) for name, part in mine.items()}
    known = {path.split(".", 2)[-1] for found in numbers.values() for path in found}
    columns = [column for column in with_variants(COLUMNS[kind]) if column.key in known]
    lines: list[list[str]] = []
    for name, part in mine.items():
        if len(mine) > 1:
            lines.append([name, *[""] * len(columns)])
        for score in part[kind]:
            paths = ((f"{kind}.{score}.{column.key}", column.digits) for column in columns)
            intervals = part.get("intervals", {})
            cells = (_with_interval(numbers[name], intervals, *path) for path in paths)
            lines.append([f"{'  ' * (len(mine) > 1)}{score}", *cells])
    title = TITLES[kind].replace(", ", ",\n")
    return format_table(lines, [title, *(c.heading for c in columns)]) if lines else ""


def _with_interval(
    numbers: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float | None]],
    path: str,
    digits: int,
) -> str:
    text = number(numbers.get(path), digits=digits)
    low, high = intervals.get(path) or (None, None)
    return text if low is None else f"{text} {bracketed(low, high, digits=digits)}"
