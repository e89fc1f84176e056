"""Pascal VOC segmentation, 2007 to 2012 and with SBD's extra labels, 21 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torchvision.datasets import VOCSegmentation

from datasets.base import Item, SegDataset
from datasets.files import locked
from datasets.id_lists import read_id_list
from datasets.taxonomy import VOC as VOC_CLASSES
from datasets.taxonomy import VOC_TRAIN_IDS

YEARS = ("2007", "2008", "2009", "2010", "2011", "2012", "2012_aug")
_LISTS_2012_AUG = ("train_aug.txt", "trainaug.txt")


class VOC(SegDataset):
    """Pascal VOC segmentation, images of about 500x375 pixels.

    ``2012_aug`` trains on the 10,582 images of ``trainaug.txt`` with the labels in
    ``SegmentationClassAug``, which need not be there where labels are not read or come from
    elsewhere; its other splits are those of 2012.

    Args:
        root: holds ``VOCdevkit/VOC<year>``, or is one of these two folders.
        split: train, val, trainval, or test where its labels are public (2007).
        year: 2007 to 2012, or 2012_aug.
        download: fetch the official archive of the year into ``root`` first.
        common: what every data set takes (see ``SegDataset``).

    Raises:
        ValueError: for an unknown year, missing or unlisted files, or a failed download.
    """

    name = "voc"
    background = 0
    splits = ("train", "val", "trainval", "test")
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (513, 513), "train_transform": "scale_crop"}
    layout = """\
  VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg ...
  VOCdevkit/VOC2012/SegmentationClass/2007_000032.png ...
  VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt, val.txt, trainval.txt
  2012_aug also: VOCdevkit/VOC2012/SegmentationClassAug/*.png and trainaug.txt or train_aug.txt
  (in the root or in ImageSets/Segmentation)
  --image_tags xml also: VOCdevkit/VOC2012/Annotations/2007_000032.xml ..."""
    classes = VOC_CLASSES
    train_ids = VOC_TRAIN_IDS

    def __init__(
        self,
        root: Path | str | None,
        split: str,
        *,
        year: str = "2012",
        download: bool = False,
        **common: Any,
    ) -> None:
        if year not in YEARS:
            raise ValueError(f"voc has no year {year!r}; its years are {', '.join(YEARS)}")
        self.year = year
        if download:
            fetch(Path(root or "."), year, split)
        super().__init__(root, split, **common)

    def files(self) -> list[Item]:
        """The images that the split's list names, with their labels."""
        folder = self._folder()
        augmented = self.year == "2012_aug" and self.split == "train"
        list_file = self._augmented_list(folder) if augmented else self._list(folder)
        images = folder / "JPEGImages"
        labels = folder / ("SegmentationClassAug" if augmented else "SegmentationClass")
        return listed_items(
            list_file,
            (self.images_in(images), images),
            (self.labels_in(labels), labels),
        )

    def _folder(self) -> Path:
        year = self.year.removesuffix("_aug")
        return find_folder(self.root, year) or self.require(self.root / "VOCdevkit" / f"VOC{year}")

    def _list(self, folder: Path) -> Path:
        return self.require(folder / "ImageSets" / "Segmentation" / f"{self.split}.txt")

    def _augmented_list(self, folder: Path) -> Path:
        lists = folder / "ImageSets" / "Segmentation"
        places = [each / name for each in (self.root, lists) for name in _LISTS_2012_AUG]
        return next((place for place in places if place.is_file()), None) or self.require(places[0])


def listed_items(
    list_file: Path,
    images: tuple[Mapping[str, Path], Path],
    labels: tuple[Mapping[str, Path] | None, Path],
) -> list[Item]:
    """The items whose ids a list names, in its order.

    Args:
        list_file: an id a line.
        images: by id, and the folder they are in.
        labels: the same of the labels; None instead of them if none is read.

    Raises:
        ValueError: if the list is no list of ids, or one of them has no image or no label.
    """
    items = []
    for name in read_id_list(list_file):
        for kind, (paths, folder) in (("image", images), ("label", labels)):
            if paths is not None and name not in paths:
                raise ValueError(f"{list_file} lists {name}, but {folder} has no such {kind}")
        items.append(Item(name, images[0][name], None if labels[0] is None else labels[0][name]))
    return items


def find_folder(root: Path, year: str) -> Path | None:
    """The folder of a year in or at the root."""
    name = f"VOC{year}"
    places = [
        root / "VOCdevkit" / name,
        root / "TrainVal" / "VOCdevkit" / name,  # as the archive of 2011 unpacks
        root / name,
        *([root] if root.name == name else []),
    ]
    return next((place for place in places if place.is_dir()), None)


def fetch(root: Path, year: str, split: str) -> None:
    """Fetch and unpack the official archive of a year, unless it is there.

    Raises:
        ValueError: if there is no such archive or it cannot be fetched.
    """
    if year == "2012_aug":
        raise ValueError(
            "the labels of 2012_aug (SegmentationClassAug) have no official archive: drop"
            " --download, fetch 2012 with --year 2012 --download, and add the labels by hand"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".voc_{year}.lock"):
            if find_folder(root, year) is None:
                VOCSegmentation(str(root), year, split, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the archive of VOC {year} cannot be fetched into {root} ({error}); fetch it by hand"
            f" and unpack it there, so that {root}/VOCdevkit/VOC{year} exists"
        ) from error
