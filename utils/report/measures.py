"""The reliability numbers of a result: where they stand and what they are called.

A part of a result (the whole, a data set, a condition, a member) may hold ``calibration``,
``misclassification``, ``pavpu``, ``flagged``, ``ood`` and ``components``, the last five by score,
and ``meta_classification``; the whole also ``image_ood``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

BY_SCORE = ("ood", "components")  # of unknown objects: a table each, a row for each score
META = "meta_classification"
KINDS = ("calibration", "misclassification", "pavpu", "flagged", *BY_SCORE, META)
COUNTS = frozenset({"pixels", "ood_pixels", "images", "patches", "gt_components"})
ORIGINAL = "_original"  # ends the names of variants as published


class Column(NamedTuple):
    """A number worth a column: its name in the result, its heading with the unit, its decimals."""

    key: str
    heading: str
    digits: int = 2


@dataclass(frozen=True)
class Block:
    """Numbers that stand in one table.

    Attributes:
        title: what they tell, and of which score.
        prefix: of their dotted paths.
        columns: those that some result has.
    """

    title: str
    prefix: str
    columns: tuple[Column, ...]


COLUMNS = {
    "calibration": (
        Column("ece", "ECE\n%"),
        Column("ece_equal_mass", "ECE equal\nmass, %"),
        Column("ks_error", "KS\n%"),
        Column("nll", "NLL\nnats", 3),
        Column("brier", "Brier\nscore", 3),
    ),
    "misclassification": (
        Column("prr", "PRR\n%"),
        Column("auroc", "AUROC\n%"),
        Column("aurc", "AURC\n%"),
        Column("fpr95", "FPR95\n%"),
    ),
    "pavpu": (
        Column("accurate_given_certain", "accurate\nif certain, %"),
        Column("uncertain_given_inaccurate", "uncertain\nif inaccurate, %"),
        Column("pavpu", "PAvPU\n%"),
    ),
    "flagged": (
        Column("share", "flagged\n%"),
        Column("inside", "wrong if\nflagged, %"),
        Column("outside", "wrong\notherwise, %"),
        Column("times", "times\nas often", 1),
    ),
    "ood": (
        Column("auroc", "AUROC\n%"),
        Column("aupr_out", "AUPR\nout, %"),
        Column("aupr_in", "AUPR\nin, %"),
        Column("fpr95", "FPR95\n%"),
        Column("f1", "best F1\n%"),
        Column("aupr_original", "original\nAUPR\nout, %"),
    ),
    "components": (
        Column("f1", "F1*\n%"),
        Column("siou", "mean sIoU\n%"),
        Column("ppv", "mean PPV\n%"),
        Column("gt_components", "unknown\nobjects", 0),
        Column("tp.50", "found at\nsIoU 50 %", 0),
        Column("predicted_components", "predicted\nobjects", 0),
        Column("fp.50", "false at\nPPV 50 %", 0),
        Column("threshold", "threshold\nof the score", 4),
    ),
    META: (
        Column("segments", "segments", 0),
        Column("false_positives", "false\nalarms", 0),
        Column("false_positives_after", "after\nremoval", 0),
        Column("missed", "missed\nobjects", 0),
        Column("missed_after", "after\nremoval", 0),
        Column("auroc", "AUROC\n%"),
        Column("aupr", "AUPR\n%"),
        Column("accuracy", "accuracy\n%"),
    ),
    "image_ood": (
        Column("auroc", "AUROC\n%"),
        Column("aupr_out", "AUPR\nout, %"),
        Column("aupr_in", "AUPR\nin, %"),
        Column("fpr95", "FPR95\n%"),
    ),
}
TITLES = {
    "calibration": "Calibration",
    "misclassification": "Misclassification",
    "pavpu": "Accuracy and uncertainty of patches",
    "flagged": "Errors among the flagged pixels",
    "ood": "Out of distribution, pixels",
    "components": "Out of distribution, objects",
    META: "Meta classification of false alarms",
    "image_ood": "Out of distribution, images",
}
# Some have their numbers under their own name, the others one level deeper for each score.
TABLES = re.compile(
    rf"calibration|(?:misclassification|pavpu|flagged)\.[^.]+|{META}|image_ood\.[^.]+\..+"
)


def conditions_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """The parts by condition, without those that are all of their data set.

    Over several data sets conditions are named ``dataset/condition``.
    """
    conditions = results.get("condition", {})
    several = "dataset" in results
    counts = Counter(name.partition("/")[0] for name in conditions)
    return {
        f"{name}no condition" if name.endswith("/") or not name else name: part
        for name, part in conditions.items()
        if not several or counts[name.partition("/")[0]] > 1
    }


def parts_of(results: Mapping[str, Any], *, scenes: bool = False) -> dict[str, dict[str, Any]]:
    """The whole under ``all``, then data sets, conditions and members, each by its name.

    The whole is empty where nothing but images was told apart.

    Args:
        results: what the metrics compute.
        scenes: also the scenes, where the results have them.
    """
    members = {
        name.removeprefix("deeplabv3plus_"): part
        for name, part in results.get("member", {}).items()
    }
    return {
        "all": results.get("total", {}),
        **results.get("dataset", {}),
        **conditions_of(results),
        **(results.get("scene", {}) if scenes else {}),
        **members,
    }


def numbers_of(part: Mapping[str, Any], *, counts: bool = False) -> dict[str, float | None]:
    """The reliability numbers of a part by dotted path such as ``calibration.ece``.

    No curves; None for what is undefined.

    Args:
        part: of a result.
        counts: also how much there was, such as pixels.
    """
    found: dict[str, float | None] = {}
    for kind in KINDS:
        _collect(part.get(kind, {}), kind, found, frozenset() if counts else COUNTS)
    return found


def image_numbers_of(results: Mapping[str, Any]) -> dict[str, float | None]:
    """The image-level numbers by path, such as ``image_ood.msp.a against b.auroc``."""
    found: dict[str, float | None] = {}
    for score, content in results.get("image_ood", {}).items():
        for name, numbers in content["against"].items():
            path = f"image_ood.{score}.{content['in_domain']} against {name}"
            _collect(numbers, path, found, COUNTS)
    return found


def _collect(
    content: Mapping[str, Any], path: str, found: dict[str, float | None], left_out: Set[str]
) -> None:
    for name, value in content.items():
        if isinstance(value, Mapping):
            _collect(value, f"{path}.{name}", found, left_out)
        elif name not in left_out and (value is None or isinstance(value, int | float)):
            found[f"{path}.{name}"] = value


def blocks_of(rows: Iterable[Iterable[str]]) -> list[Block]:
    """The tables that numbers fill, in a fixed order; rare columns only where they are.

    What is of unknown objects and by score is left out: see ``BY_SCORE``.

    Args:
        rows: the dotted paths of every row's numbers.
    """
    paths = dict.fromkeys(path for row in rows for path in row)
    prefixes = dict.fromkeys(path.rpartition(".")[0] for path in paths)
    blocks = []
    for kind, usual in COLUMNS.items():
        for prefix in prefixes:
            if prefix.partition(".")[0] != kind or not TABLES.fullmatch(prefix):
                continue
            columns = tuple(c for c in with_variants(usual) if f"{prefix}.{c.key}" in paths)
            if columns:
                blocks.append(Block(_title(prefix), prefix, columns))
    return blocks


def with_variants(columns: Sequence[Column]) -> list[Column]:
    """The columns, then those of their variants as published."""
    variants = (
        column._replace(key=column.key + ORIGINAL, heading=f"original\n{column.heading}")
        for column in columns
    )
    return [*columns, *variants]


def scores_in(numbers: Iterable[str], kinds: Collection[str] = BY_SCORE) -> list[str]:
    """The scores that numbers of unknown objects are by, in their order.

    Args:
        numbers: dotted paths.
        kinds: of the numbers.
    """
    found = (path.split(".") for path in numbers)
    return list(dict.fromkeys(parts[1] for parts in found if parts[0] in kinds))


def of_unknown(path: str) -> bool:
    """Whether a number, by its dotted path, is of unknown objects."""
    return path.partition(".")[0] in (*BY_SCORE, META)


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known, None of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def first_of(named: Mapping[str, Any], most: int, title: str) -> tuple[dict[str, Any], str]:
    """As many named results as a figure can hold, and its title, which says if that is not all."""
    shown = dict(list(named.items())[:most])
    whole = len(named) <= most
    return shown, title if whole else f"{title} (the first {most} of {len(named)})"


def _title(prefix: str) -> str:
    kind, _, rest = prefix.partition(".")
    score, _, against = rest.partition(".")
    by = f" by {score}" if score else ""
    return f"{TITLES[kind]}{by}" + (f": {against}" if against else "")
