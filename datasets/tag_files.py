"""Which classes each image shows, as users and tools write it down: CSV, JSON and VOC's XML."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from datasets.files import IMAGE_SUFFIXES, listing
from datasets.items import did_you_mean

_ID_HEADINGS = frozenset({"id", "image", "image_id", "imageid", "name", "file", "filename"})
_NUMBERS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}
_FORMAT = (
    "a row of a .csv file is an id and the names of its classes or their 0/1 vector; a .json file"
    " is an object that maps each id to a list of either"
)


class ClassNames:
    """Finds the classes that a file names, and turns 0/1 vectors into those of all classes.

    Args:
        names: of all classes, in the order of the train ids.
        background: the train id that every image shows; None where there is none.
        dataset: its name, for messages.
    """

    def __init__(self, names: Sequence[str], background: int | None, dataset: str) -> None:
        self.names = tuple(names)
        self.background = background
        self.foreground = [index for index in range(len(names)) if index != background]
        self._dataset = dataset
        self._by_name = {_plain(name): index for index, name in enumerate(names)}
        self._by_name |= {name: index for index, name in enumerate(names)}

    def knows(self, name: str) -> bool:
        """Whether a class has this name, but for spaces, hyphens and capital letters."""
        return name in self._by_name or _plain(name) in self._by_name

    def find(self, name: str, where: str) -> int:
        """The train id of a name.

        Raises:
            ValueError: if no class is called so, naming the nearest and all of them.
        """
        if not self.knows(name):
            raise ValueError(
                f"{where} names the class {name!r}, which {self._dataset} does not have"
                f"{did_you_mean(name, self.names)}; its classes are {', '.join(self.names)}"
            )
        return self._by_name.get(name, self._by_name.get(_plain(name), 0))

    def of_names(self, names: Sequence[str], where: str) -> NDArray[np.bool_]:
        """(C,) bool, true for the named classes and the background.

        Raises:
            ValueError: if there is no such class.
        """
        return self._of_ids([self.find(name, where) for name in names])

    def of_vector(
        self, vector: Sequence[float], where: str, columns: Sequence[int] | None = None
    ) -> NDArray[np.bool_]:
        """(C,) bool, true where a vector is 1 and for the background.

        Args:
            vector: 0 or 1 for every column.
            where: the file and id, for messages.
            columns: train ids; None for all classes but the background in their order.

        Raises:
            ValueError: if it has another length or other values.
        """
        columns = self.foreground if columns is None else columns
        if len(vector) != len(columns):
            but = "" if self.background is None else f" but {self.names[self.background]}"
            raise ValueError(
                f"{where} has a vector of {len(vector)} entries; {self._dataset} has"
                f" {len(self.names)} classes, so {len(columns)} are expected, one for each{but}"
            )
        if not set(vector) <= {0, 1}:
            raise ValueError(f"{where} has a vector with other values than 0 and 1: {vector}")
        return self._of_ids([index for index, one in zip(columns, vector, strict=True) if one])

    def _of_ids(self, ids: Sequence[int]) -> NDArray[np.bool_]:
        present = np.zeros(len(self.names), np.bool_)
        present[[*ids]] = True
        if self.background is not None:
            present[self.background] = True
        return present


def read_tag_file(path: Path, classes: ClassNames) -> dict[str, NDArray[np.bool_]]:
    """The classes (C,) of every image that a .csv or .json file lists, by its id.

    Files are in UTF-8, with a byte-order mark or without.

    Raises:
        ValueError: if the file is missing, of another kind or encoding, or an entry makes no
            sense, naming the file and the entry.
    """
    readers = {".csv": _csv_entries, ".json": _json_entries}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"--image_tags {path} is neither masks nor xml nor a .csv or .json file: {_FORMAT}"
        )
    if not path.is_file():
        raise ValueError(f"--image_tags {path} {_no_file(path)}")
    found: dict[str, NDArray[np.bool_]] = {}
    for image_id, present in readers[path.suffix.lower()](path, classes):
        key = _without_suffix(image_id)
        if key in found:
            raise ValueError(f"{path} lists {key} twice; an id has one entry")
        found[key] = present
    return found


def read_annotation(path: Path, classes: ClassNames) -> NDArray[np.bool_]:
    """The classes (C,) of the objects in one of VOC's XML files, difficult ones, too.

    Raises:
        ValueError: if it is missing or damaged, or names an unknown class.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path} {_no_file(path)}")
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of encodings, too
        raise ValueError(f"{path} is no XML file: {error}") from error
    names = [each.findtext("name", default="").strip() for each in objects]
    return classes.of_names(names, str(path))


def _json_entries(path: Path, classes: ClassNames) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    text = _text_of(path)
    try:
        content = json.loads(text, object_pairs_hook=_without_twins)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}: {_FORMAT}")
    for image_id, entry in content.items():
        where = f"{path}: {image_id}"
        if not isinstance(entry, list):
            raise ValueError(f"{where} has the entry {entry!r}: {_FORMAT}")
        if entry and all(isinstance(value, int | float) for value in entry):
            yield image_id, classes.of_vector(entry, where)
        else:
            yield image_id, classes.of_names(_as_names(entry, where), where)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file; Python would keep the last of two entries of one key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in content if keys.count(key) > 1)
        raise ValueError(f"it lists {twin} twice; an id has one entry")
    return content


def _as_names(entry: Sequence[Any], where: str) -> Sequence[str]:
    if not all(isinstance(name, str) for name in entry):
        raise ValueError(f"{where} has the entry {entry!r}: {_FORMAT}")
    return entry


def _csv_entries(path: Path, classes: ClassNames) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    columns: Sequence[int] | None = None
    named = ""  # an entry of names, beside which there can be no vectors
    for number, row in enumerate(filter(None, _rows_of(path)), start=1):
        image_id, *cells = (cell.strip() for cell in row)
        if number == 1 and image_id.lower() in _ID_HEADINGS:
            if any(map(classes.knows, cells)):
                columns = [classes.find(cell, f"the heading of {path}") for cell in cells]
            continue
        where = f"{path}: {image_id}"
        if cells and all(cell in _NUMBERS for cell in cells):
            if named:
                raise ValueError(
                    f"{where} has a vector of 0 and 1, and {named} names of classes: if these"
                    " are a heading, begin it with id"
                )
            vector = [_NUMBERS[cell] for cell in cells]
            yield image_id, classes.of_vector(vector, where, columns)
        else:
            names = [name.strip() for cell in cells for name in cell.split(";")]
            names = [*filter(None, names)]
            named = named or (image_id if names else "")
            yield image_id, classes.of_names(names, where)


def _rows_of(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file.

    Raises:
        ValueError: if it is none, or in another encoding.
    """
    try:
        yield from csv.reader(io.StringIO(_text_of(path), newline=""))
    except csv.Error as error:
        raise ValueError(f"{path} is not valid CSV, perhaps a quote is open: {error}") from error


def _text_of(path: Path) -> str:
    """What a file in UTF-8 holds, its ends of lines as they are.

    Raises:
        ValueError: if it is in another encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}):"
            " save it in that encoding"
        ) from error


def _no_file(path: Path) -> str:
    """Why a path is not one of a file."""
    if path.is_dir():
        return f"is a folder, where a file is expected; {listing(path)}"
    return f"does not exist; {listing(path.parent)}"


def _without_suffix(image_id: str) -> str:
    path = Path(image_id)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else image_id


def _plain(name: str) -> str:
    """A name without what different sources write differently."""
    return re.sub(r"[\s_-]", "", name.lower())
