"""Parts of data sets by one text each, ``DATASET[,key=value...]``, and all of them as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import DATASETS, build_dataset
from datasets.augmentation import Augmentation
from datasets.base import SegDataset
from datasets.corruptions import build_corruption, parse_corruption
from datasets.items import did_you_mean
from datasets.joined import Joined
from datasets.transforms import Transform


@dataclass(frozen=True)
class Part:
    """Which images of which data set, and how they look; None where nothing was said.

    Attributes:
        dataset: a key of ``DATASETS``.
        split: one of its splits.
        condition: of data sets that have conditions.
        scene: keep only these scenes.
        root: the folder that holds the data.
        year: of voc.
        corruption: name and severity (1 to 5) of a common corruption.
        augmented: number of augmented versions of each image that take the image's place.

    Raises:
        ValueError: if there are both a corruption and augmented versions.
    """

    dataset: str
    split: str | None = None
    condition: str | None = None
    scene: tuple[str, ...] | None = None
    root: Path | None = None
    year: str | None = None
    corruption: tuple[str, int] | None = None
    augmented: int | None = None

    def __str__(self) -> str:
        given = [f"{key}={_text(getattr(self, key))}" for key in KEYS if getattr(self, key)]
        return ",".join([self.dataset, *given])

    def __post_init__(self) -> None:
        if self.corruption and self.augmented:
            raise ValueError("give corruption or augmented, not both")

    def completed(self, defaults: Part) -> Part:
        """With what ``defaults`` says of the same data set where this says nothing."""
        if self.dataset != defaults.dataset:
            return self
        missing = {key: getattr(defaults, key) for key in KEYS if getattr(self, key) is None}
        if self.corruption or self.augmented:  # each stands in the other's way
            missing = {key: value for key, value in missing.items() if key not in _LOOKS}
        return replace(self, **missing)


_LOOKS = ("corruption", "augmented")
KEYS = tuple(field.name for field in fields(Part) if field.name != "dataset")


def parse_part(text: str) -> Part:
    """A part from ``DATASET[,key=value...]``.

    The keys are those of ``Part``; scenes are joined by +, a corruption is ``NAME:SEVERITY``.

    Raises:
        ValueError: for an unknown data set or key, a key without a value or given twice, or a
            value that makes no sense, with the text and what would be right.
    """
    name, *settings = (piece.strip() for piece in text.split(","))
    values: dict[str, Any] = {}
    try:
        _refuse_unknown("data set", name, DATASETS)
        for setting in settings:
            key, sign, value = setting.partition("=")
            _refuse_unknown("key", key, KEYS)
            if not sign or not value:
                raise ValueError(f"{key} has no value; write {key}=VALUE")
            if key in values:
                raise ValueError(f"{key} is given twice; leave one of them out")
            values[key] = _PARSERS.get(key, str)(value)
        return Part(name, **values)
    except ValueError as error:
        raise ValueError(f"part {text!r}: {error}") from None


def build_parts(
    parts: Sequence[Part],
    *,
    defaults: Part,
    transform: Transform | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    ood_ids: Mapping[str, Iterable[int]] | None = None,
) -> SegDataset:
    """The images of all parts as one data set.

    Args:
        parts: at least one.
        defaults: the main data set; what a part of the same data set does not say is taken from
            it. A part of another data set takes that one's validation split and all conditions.
        transform: applied to every sample.
        seed: of corruptions, augmentations and random transforms.
        cache: folder for decoded, resized arrays.
        ood_ids: raw label ids that count as out of distribution, by data set.

    Raises:
        ValueError: if a part is given twice, lacks its folder or cannot be built, if two parts
            have other classes, or for ``ood_ids`` of a data set without a part.
    """
    complete = [part.completed(defaults) for part in parts]
    for place, part in enumerate(complete):
        if part in complete[:place]:
            raise ValueError(f"the part {part} is given twice; each is evaluated once")
    ood_ids = ood_ids or {}
    if unused := sorted(ood_ids.keys() - {part.dataset for part in complete}):
        raise ValueError(
            f"there are out-of-distribution ids for {unused[0]}, but no part is of this data set"
        )
    built: list[SegDataset] = []
    for part in complete:
        build = partial(
            _build, part, transform=transform, seed=seed, cache=cache,
            ood_ids=ood_ids.get(part.dataset, ()),
        )  # fmt: skip
        built += _looks(part, build, seed)
    return built[0] if len(built) == 1 else Joined(built)


def _build(part: Part, **common: Any) -> SegDataset:
    """The data set of a part."""
    kind = DATASETS[part.dataset]
    if kind.needs_root and part.root is None:
        raise ValueError(
            f"part {str(part)!r}: where is {part.dataset}? Add the folder that holds it, "
            f"{part},root=FOLDER"
        )
    options = {key: getattr(part, key) for key in ("condition", "year")}
    return build_dataset(
        part.dataset,
        part.root,
        part.split or kind.defaults.get("val_split", "val"),
        scenes=part.scene,
        **{key: value for key, value in options.items() if value is not None},
        **common,
    )


def _looks(part: Part, build: Callable[..., SegDataset], seed: int) -> list[SegDataset]:
    """The data set of a part in every look that is asked for."""
    if part.corruption is not None:
        return [build(appearance=build_corruption(*part.corruption, seed))]
    if not part.augmented:
        return [build()]
    versions: list[SegDataset] = []
    for version in range(part.augmented):
        dataset = build(appearance=Augmentation(version, seed))
        dataset.items = [item._replace(id=f"{item.id}_aug{version}") for item in dataset.items]
        versions.append(dataset)
    return versions


def _refuse_unknown(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(
            f"no {what} is called {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )


def _parse_scenes(text: str) -> tuple[str, ...]:
    scenes = tuple(text.split("+"))
    if "" in scenes or len(set(scenes)) < len(scenes):
        raise ValueError(f"scene={text} has an empty or repeated name; write scene=a+b")
    return scenes


def _parse_versions(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"augmented={text} is no number of versions; write augmented=3")
    return int(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "scene": _parse_scenes,
    "root": Path,
    "corruption": parse_corruption,
    "augmented": _parse_versions,
}


def _text(value: Any) -> str:
    """A value of a part as it is typed."""
    if not isinstance(value, tuple):
        return str(value)
    return f"{value[0]}:{value[1]}" if isinstance(value[-1], int) else "+".join(value)
