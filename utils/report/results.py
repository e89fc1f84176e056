"""Result files as rows of a report: the whole, its members, its data sets, its conditions."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.report.facts import (
    Facts,
    calibrated_by,
    describe_test,
    joined,
    kind_of,
    method_of,
    model_of,
    significant,
    trained_on,
    training_flags,
)
from utils.report.measures import BY_SCORE, conditions_of, image_numbers_of, numbers_of
from utils.report.tables import SCORES, SUBSET
from utils.statistics import ImageCounts, iou_percent


@dataclass(frozen=True)
class Result:
    """One row: scores of a trained model or a member of it, on a test set or a part of one.

    Attributes:
        path: of the file.
        facts: what it is.
        subset: the data set or condition in a test set that has several; empty for the whole.
        dataset: the data set of the images; of a joined test set all of them, ``a+b``.
        test_images: in the test set, None if that is not recorded.
        flags: whatever else could tell two rows apart, by flag.
        seed: of the training; several joined for a deep ensemble; None if it is not recorded.
        sha256: of the checkpoints.
        step: of the checkpoint, None for several.
        commit: of the program that tested.
        fingerprint: of the test set.
        pixels: labelled pixels scored, known and unknown ones where no classes are; None if they
            are not recorded.
        classes: names in the order of the train ids.
        scores: percent by class name, and by name of a mean (``miou`` ...); None if undefined;
            empty for a test of unknown objects alone.
        numbers: of the reliability, by dotted path, see ``utils.report.measures``.
        content: what the file holds of this row, for pictures and intervals.
        joined: whether the test set is several data sets together.
        family: the classes whose mean is one of the scores, empty for none.
    """

    path: Path
    facts: Facts
    subset: str
    dataset: str
    test_images: int | None
    flags: Mapping[str, Any]
    seed: str | None
    sha256: str
    step: int | None
    commit: str | None
    fingerprint: str
    pixels: int | None
    classes: tuple[str, ...]
    scores: Mapping[str, float | None]
    numbers: Mapping[str, float | None]
    content: Mapping[str, Any]
    joined: bool
    family: tuple[str, ...] = ()

    @cached_property
    def images(self) -> ImageCounts | None:
        """Counts of every image from the file beside the result, None if there is none.

        Raises:
            ValueError: if that file is damaged or belongs to another result.
        """
        path = self.path.with_name(f"{self.path.stem}.images.npz")
        if self.facts.part or self.subset or not self.scores or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                counts = ImageCounts(
                    tuple(map(str, file["ids"])),
                    tuple(map(str, file["classes"])),
                    *(file[name] for name in ("hits", "in_label", "in_prediction")),
                )
        except Exception as error:  # NumPy and zipfile raise what they please on damaged files
            raise ValueError(f"{path} is damaged ({error}): delete it, or test again") from None
        total = [np.asarray(part.sum(0), np.float64) for part in counts[2:]]
        miou = self.scores["miou"]
        if counts.classes != self.classes or (
            miou is not None and not np.isclose(iou_percent(*total)[-1], miou, rtol=0, atol=1e-6)
        ):
            raise ValueError(
                f"{path} does not belong to {self.path.name}: delete it, or test again"
            )
        return counts


def find_results(patterns: Iterable[str]) -> list[Path]:
    """The files that names, folders (their ``*.json``) and globs stand for, each once.

    Raises:
        ValueError: naming what matches nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(path.glob("*.json"))
        elif path.is_file():
            matches = [path]
        else:
            names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no root
            matches = sorted(map(Path, names))
            matches = [match for match in matches if match.suffix == ".json"]
        if not matches:
            what = "holds no result (*.json)" if path.is_dir() else "matches no result file"
            raise ValueError(f"--report {pattern} {what}: --test_only writes results/NAME.json")
        found |= {match.resolve(): match for match in matches}
    return list(found.values())


def read_results(path: Path, ignored: frozenset[str], training: frozenset[str]) -> list[Result]:
    """The rows of one result file: the model, its members, its data sets, its conditions.

    Args:
        path: as ``--test_only`` wrote it.
        ignored: flags that change no score, or stand in the facts.
        training: flags that change no score of a test, only that of a training.

    Raises:
        ValueError: naming the file, if it cannot be read or is neither the result of a
            segmentation nor of a search for unknown objects.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    try:
        return list(_rows(path, content, ignored, training))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{path} is not a result of --test_only with the metric segmentation, ood or"
            f" components: {what}"
        ) from None


class _Row(NamedTuple):
    """Where a row of a file stands in it."""

    scores: Mapping[str, Any]
    member: str = ""
    dataset: str = ""  # of several
    condition: str = ""  # of several

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return not (self.member or self.dataset or self.condition)


def _rows(
    path: Path, content: dict[str, Any], ignored: frozenset[str], training: frozenset[str]
) -> Iterator[Result]:
    checkpoint, opts, results = content["checkpoint"], content["opts"], content["results"]
    checkpoints = checkpoint.get("members") or [checkpoint]
    trained = [training_flags(entry, opts) for entry in checkpoints]
    seeds = [flags.get("random_seed") for flags in trained]
    classes = tuple(content["classes"])
    for row in _places(results):
        segmented = "class_iou" in row.scores
        if not segmented and not any(kind in row.scores for kind in BY_SCORE):
            if row.whole:
                raise KeyError("class_iou")
            continue
        test = describe_test(content["dataset"], row.dataset, row.condition)
        yield Result(
            path,
            Facts(
                model=model_of(opts, trained),
                part=row.member,
                method=joined(map(method_of, trained)),
                trained_on=joined(map(trained_on, trained)),
                tested_on=test.text,
                kind=joined(kind_of(entry) for entry in checkpoints),
            ),
            "/".join(filter(None, (row.dataset, row.condition))),
            test.dataset,
            test.images,
            _flags(content, trained, ignored, training),
            None if None in seeds else "+".join(map(str, seeds)),
            " ".join(entry["sha256"] for entry in checkpoints),
            checkpoint.get("step"),
            content.get("commit"),
            test.fingerprint,
            row.scores["pixels"] if segmented else _pixels_searched(row.scores),
            classes,
            _segmentation_of(row.scores, classes) if segmented else {},
            numbers_of(row.scores) | (image_numbers_of(results) if row.whole else {}),
            row.scores,
            joined="dataset" in results and not row.dataset,
        )


def _segmentation_of(scores: Mapping[str, Any], classes: Iterable[str]) -> dict[str, float | None]:
    """IoU by class, then the means."""
    return {
        **{name: scores["class_iou"][name] for name in classes},
        **{name: scores[name] for name in SCORES},
        **{name: value for name, value in scores.items() if name.startswith(SUBSET)},
    }


def _pixels_searched(scores: Mapping[str, Any]) -> int | None:
    """The pixels that were searched for unknown objects, None if only objects were counted."""
    return next((int(found["pixels"]) for found in scores.get("ood", {}).values()), None)


def _places(results: Mapping[str, Any]) -> Iterator[_Row]:
    """The rows of a file, in order."""
    yield _Row(results["total"])
    for member, scores in results.get("member", {}).items():
        yield _Row(scores, member=member)
    several = results.get("dataset", {})
    for name, scores in several.items():
        yield _Row(scores, dataset=name)
    for name, scores in conditions_of(results).items():
        dataset, _, condition = name.partition("/") if several else ("", "", name)
        yield _Row(scores, dataset=dataset, condition=condition)


def _flags(
    content: Mapping[str, Any],
    trained: Iterable[dict[str, Any]],
    ignored: frozenset[str],
    training: frozenset[str],
) -> dict[str, Any]:
    """What could tell two rows apart: flags of the test, the calibrator, flags of the training."""
    tested = significant(content["opts"], ignored | training | {"num_models"})
    calibrator = content.get("calibrator")
    if calibrator:
        tested.pop("calibrator", None)  # the path of a file that every seed has of its own
    if "logits_dir" in tested:
        tested["logits_dir"] = _without_seed(tested["logits_dir"])
    if "eval_on" in tested:
        tested["eval_on"] = [_without_root(part) for part in tested["eval_on"]]
    flags = {f"test {name}": value for name, value in tested.items()}
    if calibrator:
        flags["calibrator"] = calibrated_by(calibrator)
    members = [significant(entry, ignored | {"calibrator"}) for entry in trained]
    for name in sorted({name for member in members for name in member}):
        values = [member.get(name) for member in members]
        flags[name] = values[0] if len(set(map(str, values))) == 1 else values
    return flags


def _without_root(part: str) -> str:
    """A part of ``--eval_on`` without the folder of its data."""
    return ",".join(word for word in part.split(",") if not word.startswith("root="))


def _without_seed(folder: str) -> str:
    """A folder's path up to the seed that its name ends with."""
    return re.sub(r"_seed\d+/?$", "", folder)
