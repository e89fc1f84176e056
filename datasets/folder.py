"""A user's own data: images, labels and a list of classes, without any code."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.base import Item, SegDataset
from datasets.files import IMAGE_SUFFIXES, pair
from datasets.taxonomy import SegClass, voc_colour
from utils.types import IGNORE_INDEX

_SETTINGS = ("classes", "void", "image_suffix", "label_suffix")
_CLASS_KEYS = ("name", "colour", "ids")


class Folder(SegDataset):
    """Images and labels of the same relative name, with the classes in ``classes.json``.

    A split is a folder in ``images`` and ``labels``, or a list ``SPLIT.txt`` of names, one a
    line; the split ``all`` holds every pair. ``classes.json`` is a list of classes, or an object
    with ``classes`` and, if wanted, ``void`` (ids to ignore; 255), ``image_suffix`` and
    ``label_suffix`` (ends of the names that image and label do not share). A class is a name, or
    an object with ``name`` and, if wanted, ``colour`` (red, green, blue) and ``ids`` (values in
    the label files; its place in the list, from 0). The scene of an item is the folder it is in.
    """

    name = "folder"
    splits = ("train", "val", "test", "all")
    layout = """\
  classes.json   ["background", "road", "car"]   or
                 [{"name": "road", "colour": [128, 64, 128], "ids": [7, 8]}, ...]
  images/train/a.jpg ...   labels/train/a.png ...   (8-bit grey or palette PNG: an id per pixel)
  images/val/b.jpg ...     labels/val/b.png ...
  or all images in images/, all labels in labels/, and the names of each split in train.txt,
  val.txt; the split "all" needs no list"""

    def files(self) -> list[Item]:
        """The pairs of the split."""
        settings = read_settings(self.require(self.root / "classes.json"))
        self.classes, self.train_ids = settings.classes, settings.train_ids
        below = Path(self.split if self.split in subfolders(self.root / "images") else "")
        images = self.images_in(self.root / "images" / below, "**/*", settings.image_suffix)
        labels = self.labels_in(self.root / "labels" / below, "**/*", settings.label_suffix)
        if not below.name and self.split != "all":
            found = [images, images if labels is None else labels]
            names = read_list(self.root / f"{self.split}.txt", found)
            images, kept = ({name: each[name] for name in names if name in each} for each in found)
            labels = None if labels is None else kept
        return [
            Item(key, image, label, "/".join(key.split("/")[:-1]))
            for key, image, label in pair(images, labels)
        ]

    def check_split(self, known: Iterable[str]) -> None:
        """Refuse a split that is neither a folder nor a list nor ``all``."""
        images = self.require(self.root / "images")
        lists = [path.stem for path in sorted(self.root.glob("*.txt"))]
        super().check_split([*subfolders(images), *lists, "all"])


class Settings(NamedTuple):
    """What ``classes.json`` says."""

    classes: tuple[SegClass, ...]
    train_ids: dict[int, int]
    image_suffix: str
    label_suffix: str


def read_settings(path: Path) -> Settings:
    """Read ``classes.json``.

    Raises:
        ValueError: if it is not JSON or an entry makes no sense, saying which.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    try:
        return parse_settings(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_settings(content: Any) -> Settings:
    """The settings in a parsed ``classes.json``.

    Raises:
        ValueError: if an entry makes no sense, saying which.
    """
    settings = {"classes": content} if isinstance(content, list) else content
    if not isinstance(settings, dict) or not isinstance(settings.get("classes"), list):
        raise ValueError('must be a list of classes, or an object with the list "classes"')
    refuse_unknown(settings, _SETTINGS, "the object")
    entries = [parse_class(index, entry) for index, entry in enumerate(settings["classes"])]
    names = [entry.name for entry, _ in entries]
    if not 2 <= len(names) <= 254:
        raise ValueError(f"{len(names)} classes; there must be 2 to 254")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two classes are called {repeated!r}")
    train_ids: dict[int, int] = {}
    void = parse_ids(settings.get("void", [IGNORE_INDEX]), '"void"')
    for train, ids in [*enumerate(ids for _, ids in entries), (IGNORE_INDEX, void)]:
        for raw in ids:
            if raw in train_ids:
                raise ValueError(f"the id {raw} is given twice; each id has one class, or is void")
            train_ids[raw] = train
    suffixes = [settings.get(key, "") for key in ("image_suffix", "label_suffix")]
    if not all(isinstance(suffix, str) for suffix in suffixes):
        raise ValueError('"image_suffix" and "label_suffix" are texts such as "_mask"')
    return Settings(tuple(entry for entry, _ in entries), train_ids, *suffixes)


def parse_class(index: int, entry: Any) -> tuple[SegClass, list[int]]:
    """The class and the ids of one entry of the list.

    Raises:
        ValueError: if it is neither a name nor an object with a name.
    """
    where = f"class {index}"
    entry = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise ValueError(f'{where} must be a name or an object with a "name", not {entry!r}')
    refuse_unknown(entry, _CLASS_KEYS, where)
    colour = entry.get("colour", voc_colour(index + 1))
    if not is_colour(colour):
        raise ValueError(f"{where}: the colour must be three numbers from 0 to 255, not {colour!r}")
    ids = parse_ids(entry.get("ids", [index]), f'{where}: "ids"')
    if not ids:
        raise ValueError(f'{where} has no ids; leave "ids" out for {index}')
    return SegClass(entry["name"], (colour[0], colour[1], colour[2])), ids


def parse_ids(value: Any, where: str) -> list[int]:
    """A number or a list of numbers from 0 to 255 as a list.

    Raises:
        ValueError: for anything else.
    """
    ids = value if isinstance(value, list) else [value]
    if not all(is_byte(number) for number in ids):
        raise ValueError(f"{where} must be whole numbers from 0 to 255, not {value!r}")
    return ids


def is_colour(value: Any) -> bool:
    """Whether this is red, green and blue in 0..255."""
    return isinstance(value, Sequence) and len(value) == 3 and all(map(is_byte, value))


def is_byte(value: Any) -> bool:
    """Whether this is a whole number in 0..255."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def refuse_unknown(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Refuse a misspelt key, naming the nearest known one."""
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, list(known), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"{where} has the unknown key {key!r}; {hint}")


def subfolders(folder: Path) -> list[str]:
    """The names of the folders directly in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def read_list(path: Path, keyed: Sequence[Mapping[str, Path]]) -> list[str]:
    """The names in a list file, without image suffixes; empty lines are skipped.

    Raises:
        ValueError: if a name is neither among the images nor among the labels.
    """
    names = []
    for line in filter(None, map(str.strip, path.read_text().splitlines())):
        name = (
            line
            if Path(line).suffix.lower() not in IMAGE_SUFFIXES
            else str(Path(line).with_suffix(""))
        )
        if not any(name in found for found in keyed):
            raise ValueError(f"{path} lists {line}, but no image and no label has this name")
        names.append(name)
    return names
