"""SYNTHIA: streets of a drawn city, the 19 classes but for terrain, truck and train."""

from __future__ import annotations

from typing import ClassVar

from datasets.files import read_first_channel
from datasets.gta5 import GTA5
from datasets.taxonomy_adaptation import SYNTHIA_ABSENT, SYNTHIA_TRAIN_IDS


class SYNTHIA(GTA5):
    """SYNTHIA-RAND-CITYSCAPES, 9400 images, 760x1280.

    Class ids are in the first channel of 16-bit PNG labels. No image shows terrain, truck or
    train: results are averaged over the 16 other classes, or 13 (see ``SYNTHIA_16`` and
    ``SYNTHIA_13``). The splits are made as those of ``gta5``.
    """

    name = "synthia"
    unannotated: ClassVar[frozenset[str]] = SYNTHIA_ABSENT
    layout = """\
  RGB/0000000.png ...
  GT/LABELS/0000000.png ...   (16-bit PNG, class id in the first channel)"""
    train_ids = SYNTHIA_TRAIN_IDS
    read_ids = staticmethod(read_first_channel)
    image_folder: ClassVar[str] = "RGB"
    label_folder: ClassVar[str] = "GT/LABELS"
