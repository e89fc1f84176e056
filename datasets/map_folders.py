"""Folders of maps that training reads: one file or several an image, and a manifest.

Uncertainty masks and pseudo labels are kinds of map. A kind says how its files end and are
inspected, and which flags name and make it; all that follows from that is here and, for the
writing, in ``engine.map_making``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from datasets.base import SegDataset
from datasets.items import Item, by, safe_name
from datasets.parallel import threaded
from datasets.png_files import DamagedMapError, Size
from datasets.taxonomy import SegClass

Content = TypeVar("Content")

MANIFEST = "manifest.json"
NATIVE = "native"  # the size in a manifest of maps that have their images' own sizes


@dataclass(frozen=True)
class MapFile:
    """One of the files that an image has in a folder of maps.

    Attributes:
        ending: what follows the image's id.
        inspect: from its path to (H, W), or a ``DamagedMapError``; checks every byte.
        is_ours: whether the file at a path begins as one of this program does.
    """

    ending: str
    inspect: Callable[[Path], Size]
    is_ours: Callable[[Path], bool]


@dataclass(frozen=True)
class MapKind:
    """What is to be known of a kind of map, to read and to make folders of it.

    Attributes:
        content: what it is, in the plural, for the manifest and for messages; its last word alone
            is used, too.
        files: of each image; the first is the map itself.
        other_files: that maps of this content have beside these if they are made otherwise; they
            are removed with the maps.
        folder_flag: names the folder.
        action_flag: makes it.
        native: whether maps have their images' own sizes whatever the transform's resize is.
        identity: entries of a manifest that have to be equal beside those of every kind.
        superseded: pattern of files in another form that are read where there is no manifest.
        format: number of the manifest's form.
    """

    content: str
    files: tuple[MapFile, ...]
    folder_flag: str
    action_flag: str
    other_files: tuple[MapFile, ...] = ()
    native: bool = False
    identity: tuple[str, ...] = ()
    superseded: str = ""
    format: int = 1

    @property
    def single(self) -> str:
        """One of it: ``uncertainty mask``."""
        return self.content.removesuffix("s")

    @property
    def short(self) -> str:
        """Many of it, in one word: ``masks``."""
        return self.content.split()[-1]


def map_path(directory: Path, item: Item, ending: str) -> Path:
    """Where a file of an item lies; the slashes of its id are folders."""
    return directory / f"{safe_name(item.id)}{ending}"


def read_manifest(directory: Path, kind: MapKind) -> dict[str, Any] | None:
    """What the maps in a folder were made of; None without a manifest.

    Raises:
        ValueError: if the file is damaged, of another kind or of another format.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and remake the {kind.short} with --overwrite"
        ) from None
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != kind.format
        or manifest.get("content") != kind.content
    ):
        raise ValueError(
            f"{path} is no manifest of {kind.content} in format {kind.format}: choose another"
            f" --{kind.folder_flag}"
        )
    return manifest


def classes_of(manifest: dict[str, Any], path: Path, kind: MapKind) -> tuple[SegClass, ...]:
    """The classes that a manifest names, in the order of their train ids.

    Args:
        manifest: of maps of classes.
        path: of the manifest, for messages.
        kind: of the maps.

    Raises:
        ValueError: if it names none.
    """
    try:
        return tuple(SegClass(one["name"], tuple(one["colour"])) for one in manifest["classes"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is damaged (no classes): delete it and remake the {kind.short} with"
            " --overwrite"
        ) from None


def origin(kind: MapKind, dataset: SegDataset) -> dict[str, Any]:
    """The entries of a manifest that say which images its maps are of, and at which size."""
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "size": size_of_maps(kind, dataset),
        "fingerprint": dataset.fingerprint(),
    }


def size_of_maps(kind: MapKind, dataset: SegDataset) -> list[int] | str:
    """[H, W] of a data set's maps, or ``native``.

    Images that are generated have the size at which they are drawn, for the transform.
    """
    size = dataset.transform.size
    if kind.native and dataset.originals[0].image is None:
        return list(dataset.native_size(0))
    return NATIVE if size is None or kind.native else list(size)


def words_of_data(dataset: SegDataset) -> list[str]:
    """The flags of a command that makes maps of a data set: which images, or how large."""
    words = ["--dataset", dataset.name, "--train_split", dataset.split]
    if dataset.needs_root:
        return [*words, "--data_root", str(dataset.root)]
    height, width = dataset.native_size(0)
    return [*words, "--crop_size", f"{height}x{width}"]


def size_of_map(kind: MapKind, dataset: SegDataset, index: int) -> Size:
    """(H, W) that the map of an item has to have."""
    return dataset.native_size(index) if kind.native else dataset.size(index)


class MapReader(ABC):
    """Reads a folder of maps and refuses those that do not belong to a data set.

    Args:
        directory: where the maps are.

    Attributes:
        kind: of the maps.
        manifest: what they were made of; None without one.

    Raises:
        ValueError: if the manifest is damaged or of another kind or format.
    """

    kind: ClassVar[MapKind]

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory, self.kind)

    @abstractmethod
    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's maps."""

    def path(self, item: Item) -> Path:
        """The file that holds the map of an item."""
        return map_path(self.directory, item, self.kind.files[0].ending)

    def inspect(self, item: Item) -> Size:
        """(H, W) of the map of an item.

        Raises:
            ValueError: if its file is missing or damaged, naming it.
        """
        return self.read(self.path(item), self.kind.files[0].inspect)

    def read(self, path: Path, function: Callable[[Path], Content]) -> Content:
        """What a function reads from a file.

        Args:
            path: of the file.
            function: of the path; raises ``DamagedMapError``.

        Raises:
            ValueError: if the file is missing or damaged, naming it.
        """
        if not path.is_file():
            raise ValueError(f"the {self.kind.single} {path} does not exist: {self.remedy()}")
        try:
            return function(path)
        except DamagedMapError as error:
            raise ValueError(
                f"the {self.kind.single} {path} is damaged, {error}: {self.remedy()}"
            ) from None

    def remedy(self) -> str:
        """How to complete the folder."""
        assert self.manifest is not None
        command = self.manifest["command"]
        return f"this makes those that are missing or damaged and keeps the others\n  {command}"

    def refuse_other_origin(self, dataset: SegDataset) -> None:
        """Refuse maps of other images, or of another size.

        Raises:
            ValueError: saying what differs and which command makes the right ones.
        """
        assert self.manifest is not None
        for name, value in origin(self.kind, dataset).items():
            there = self.manifest.get(name)
            if there == value:
                continue
            if name == "fingerprint":
                what = f"are stale: the files of {dataset.name} {dataset.split} have changed since"
            else:
                what = f"are of {name} {_text(there)}, training is on {_text(value)}"
            raise self.of_other_origin(what, dataset)

    def of_other_origin(self, what: str, dataset: SegDataset) -> ValueError:
        """What to raise for maps that do not belong to a data set."""
        return ValueError(
            f"the {self.kind.content} in {self.directory} {what}. Make them anew, with"
            f" --overwrite or in another --{self.kind.folder_flag}\n"
            f"  {self.making_command(dataset)}"
        )

    def refuse_missing(self, dataset: SegDataset) -> None:
        """Refuse a folder without the map of every item.

        Raises:
            ValueError: saying how many are missing, and naming the first.
        """
        missing = [item for item in dataset.items if not self.path(item).is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(dataset)} {self.kind.content} are missing from"
                f" {self.directory}, the first is {self.path(missing[0]).name} (of"
                f" {missing[0].id}): {self.remedy()}"
            )

    def refuse_damaged(self, dataset: SegDataset) -> None:
        """Refuse maps that are damaged or have not the size of what training sees.

        Raises:
            ValueError: naming the first such file.
        """

        def size(index: int) -> Size:
            """(H, W) of the map of an item."""
            return self.inspect(dataset.items[index])

        for index, found in enumerate(threaded(size, len(dataset), self.kind.short.capitalize())):
            wanted = size_of_map(self.kind, dataset, index)
            if found != wanted:
                raise ValueError(
                    f"{self.path(dataset.items[index])} has {by(found)} pixels, training sees"
                    f" {by(wanted)}: make {self.kind.short} of that size in another"
                    f" --{self.kind.folder_flag}\n  {self.making_command(dataset)}"
                )


def _text(value: Any) -> str:
    return by(value) if isinstance(value, list) else str(value)
