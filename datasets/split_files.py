"""Where the files of a split lie, and what is said where they are not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from datasets.files import by_key, image_files, listing
from datasets.items import did_you_mean


class SplitFiles:
    """The files of one split of a data set.

    Attributes:
        name: of the data set.
        splits: those it knows.
        layout: a small tree of the folders it expects, for error messages.
        root: the folder that holds the data.
        split: the one whose files these are.
        reads_labels: whether label files are listed and opened.
    """

    name: str
    splits: tuple[str, ...] = ("train", "val", "test")
    layout: ClassVar[str] = ""
    root: Path
    split: str
    reads_labels: bool

    def images_in(self, folder: Path, pattern: str = "*", suffix: str = "") -> dict[str, Path]:
        """The images of a folder by the part of their names that their labels share.

        Args:
            folder: must exist.
            pattern: of the names below it.
            suffix: end of the stem that is not shared; other files are left out.

        Raises:
            ValueError: if the folder is missing or two files share a name.
        """
        return by_key(image_files(self.require(folder), pattern), folder, suffix)

    def labels_in(
        self, folder: Path, pattern: str = "*", suffix: str = ""
    ) -> dict[str, Path] | None:
        """The labels of a folder, as ``images_in``; None, whatever is there, if none is read."""
        return self.images_in(folder, pattern, suffix) if self.reads_labels else None

    def check_split(self, known: Iterable[str]) -> None:
        """Refuse a split that is not known.

        Raises:
            ValueError: naming the nearest split and all of them.
        """
        known = tuple(known)
        if self.split not in known:
            raise ValueError(
                f"{self.name} has no split {self.split!r}{did_you_mean(self.split, known)}; "
                f"its splits are {', '.join(known)}"
            )

    def require(self, path: Path) -> Path:
        """The file or folder, if it exists.

        Raises:
            ValueError: with what was looked for, what was found and the expected layout.
        """
        if path.exists():
            return path
        parent = path
        while not parent.is_dir():
            parent = parent.parent
        raise ValueError(
            f"{self.name}, split {self.split!r}: {path} does not exist; {listing(parent)}.\n"
            f"Expected below --data_root {self.root}:\n{self.layout}"
        )
