"""Result files as rows of a report: the whole, every member of an ensemble, every condition."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from utils.report.tables import SCORES
from utils.statistics import ImageCounts, iou_percent

PUBLISHED_NAME = re.compile(
    r"(?P<model>.+)_(?P<dataset>[^_]+)_os(?P<output_stride>8|16)"
    r"(?:_seed(?P<seed>\d+))?(?:_(?P<loss_type>.+))?"
)
KIND = re.compile(r"^(best|latest)_")
LOSS_SAYS_ALL = ("supervised", "ensemble")  # methods that need no name beside the loss


@dataclass(frozen=True)
class Facts:
    """What people call a row by, and what decides which rows belong together.

    Attributes:
        model: with the models of its members.
        part: the member's name, empty for the whole.
        method: the loss, after the method where that says more.
        trained_on: data set, split unless it is train, condition.
        tested_on: data set, split, condition.
        kind: ``best`` or ``latest`` checkpoint, or empty.
    """

    model: str
    part: str
    method: str
    trained_on: str
    tested_on: str
    kind: str


@dataclass(frozen=True)
class Result:
    """One row: scores of one trained model or one member of it, on a test set or one condition.

    Attributes:
        path: of the file.
        facts: what it is.
        condition: of several in one test set, empty for the whole test set.
        test_images: in the test set, None if that is not recorded.
        flags: whatever else could tell two rows apart, by flag.
        seed: of the training; several joined for a deep ensemble; None if it is not recorded.
        sha256: of the checkpoints.
        step: of the checkpoint, None for several.
        commit: of the program that tested.
        fingerprint: of the test set.
        pixels: labelled pixels scored.
        classes: names in the order of the train ids.
        scores: percent by class name, and by name of a mean (``miou`` ...); None if undefined.
        family: the classes whose mean is one of the scores, empty for none.
    """

    path: Path
    facts: Facts
    condition: str
    test_images: int | None
    flags: Mapping[str, Any]
    seed: str | None
    sha256: str
    step: int | None
    commit: str | None
    fingerprint: str
    pixels: int
    classes: tuple[str, ...]
    scores: Mapping[str, float | None]
    family: tuple[str, ...] = ()

    @cached_property
    def images(self) -> ImageCounts | None:
        """Counts of every image from the file beside the result, None if there is none.

        Raises:
            ValueError: if that file is damaged or belongs to another result.
        """
        path = self.path.with_name(f"{self.path.stem}.images.npz")
        if self.facts.part or self.condition or not path.is_file():
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
    """The rows of one result file: the model, then its members, then its conditions.

    Args:
        path: as ``--test_only`` wrote it.
        ignored: flags that change no score, or stand in the facts.
        training: flags that change no score of a test, only that of a training.

    Raises:
        ValueError: naming the file, if it cannot be read or is no result of a segmentation.
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
            f"{path} is not a result of --test_only with the metric segmentation: {what}"
        ) from None


def _rows(
    path: Path, content: dict[str, Any], ignored: frozenset[str], training: frozenset[str]
) -> Iterator[Result]:
    checkpoint, tested, opts = content["checkpoint"], content["dataset"], content["opts"]
    checkpoints = checkpoint.get("members") or [checkpoint]
    trained = [training_flags(entry, opts) for entry in checkpoints]
    seeds = [flags.get("random_seed") for flags in trained]
    flags = {
        f"test {name}": value
        for name, value in significant(opts, ignored | training | {"num_models"}).items()
    }
    members = [significant(entry, ignored) for entry in trained]
    for name in sorted({name for member in members for name in member}):
        values = [member.get(name) for member in members]
        flags[name] = values[0] if len(set(map(str, values))) == 1 else values
    classes = tuple(content["classes"])
    results = content["results"]
    parts = [
        ("", "", results["total"]),
        *((member, "", scores) for member, scores in results.get("member", {}).items()),
        *(("", condition, scores) for condition, scores in results.get("condition", {}).items()),
    ]
    for part, condition, scores in parts:
        yield Result(
            path,
            Facts(
                model=model_of(opts, trained),
                part=part,
                method=_joined(map(method_of, trained)),
                trained_on=_joined(map(trained_on, trained)),
                tested_on=_words(
                    tested["name"], tested["split"], condition or tested.get("condition")
                ),
                kind=_joined(kind_of(entry) for entry in checkpoints),
            ),
            condition,
            tested.get("images") if not condition else None,
            flags,
            None if None in seeds else "+".join(map(str, seeds)),
            " ".join(entry["sha256"] for entry in checkpoints),
            checkpoint.get("step"),
            content.get("commit"),
            tested["fingerprint"],
            scores["pixels"],
            classes,
            {
                **{name: scores["class_iou"][name] for name in classes},
                **{name: scores[name] for name in SCORES},
            },
        )


def significant(flags: Mapping[str, Any], ignored: frozenset[str] | set[str]) -> dict[str, Any]:
    """The flags that matter and are set; an older file lacks flags that came later."""
    return {
        name: value
        for name, value in flags.items()
        if name not in ignored and value not in (None, False, [])
    }


def training_flags(checkpoint: Mapping[str, Any], opts: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of the training; of a checkpoint that has none what its name tells."""
    if checkpoint.get("opts"):
        return dict(checkpoint["opts"])
    stem = KIND.sub("", Path(checkpoint["path"]).stem)
    match = PUBLISHED_NAME.fullmatch(stem)
    if match is None:
        return {"model": opts.get("model"), "name": stem}
    found: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value}
    seed = found.pop("seed", None)
    return {**found, "random_seed": int(seed)} if seed else found


def model_of(opts: Mapping[str, Any], trained: list[dict[str, Any]]) -> str:
    """The model's name, followed by those of its members."""
    name = str(opts.get("model") or trained[0].get("model") or "unknown model")
    members = [flags.get("model") for flags in trained] if len(trained) > 1 else []
    if name == "ensemble":
        flags = trained[0]
        members = flags.get("member") or [flags.get("backbone")] * (flags.get("num_models") or 1)
    elif opts.get("backbone"):
        members = [opts["backbone"]]
    counts = Counter(shorten(str(member)) for member in members)
    texts = [f"{count} x {model}" if count > 1 else model for model, count in counts.items()]
    return f"{name} of {' + '.join(texts)}" if texts else name


def shorten(model: str) -> str:
    """A model's name without what most of them start with."""
    return model.removeprefix("deeplabv3plus_")


def method_of(flags: Mapping[str, Any]) -> str:
    """The loss, after the method where the loss alone does not describe the training."""
    method, loss = flags.get("method"), flags.get("loss_type")
    own = method if method not in (None, *LOSS_SAYS_ALL) else None
    return _words(own, loss) or "loss not recorded"


def trained_on(flags: Mapping[str, Any]) -> str:
    """The training's data set, its split unless that is train, its condition."""
    split = flags.get("train_split")
    return (
        _words(flags.get("dataset"), None if split == "train" else split, flags.get("condition"))
        or "unknown data"
    )


def kind_of(checkpoint: Mapping[str, Any]) -> str:
    """Whether a checkpoint is the best or the latest of its run, by its name."""
    match = KIND.match(Path(checkpoint["path"]).name)
    return match[1] if match else ""


def _joined(names: Iterable[str]) -> str:
    """Different names once each."""
    return " + ".join(dict.fromkeys(names))


def _words(*words: str | None) -> str:
    return " ".join(filter(None, words))
