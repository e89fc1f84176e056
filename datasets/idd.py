"""India Driving Dataset: Indian roads, the 19 classes but for terrain and train."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from datasets.cityscapes import Cityscapes
from datasets.items import NamedSplit
from datasets.taxonomy import IDD_LEVEL3_TRAIN_IDS
from utils.types import IGNORE_INDEX

_OFFICIAL = ("train", "val")
_TEST_SCENES = (
    *("265", "431", "175", "528", "39", "137", "538", "499", "7", "376", "37", "209", "306"),
    *("413", "380", "374", "472", "523", "446", "121", "171", "488", "278", "411", "312", "453"),
    *("110", "285", "46", "158", "426", "544", "230", "41", "520", "322", "95"),
)
_NAMED = {"relis_cal": NamedSplit("val"), "relis_test": NamedSplit("train", _TEST_SCENES)}


class IDD(Cityscapes):
    """India Driving Dataset (parts I and II), 720x1280 and 1080x1920 (rows x columns).

    It has the layout of Cityscapes.
    Labels hold level-3 ids, as the data set's own tools write them. Terrain and train have none
    of their own, and kinds of things that no class fits are void. The scene of an item is its
    drive. ``relis_cal`` is val, ``relis_test`` 37 scenes of train. The labels of the official
    test split are not public.
    """

    name = "idd"
    splits = (*_OFFICIAL, *_NAMED)
    usual_ood_ids = (8, 16, 17, 23)  # autorickshaw, guard rail, billboard, bridge and tunnel
    unannotated: ClassVar[frozenset[str]] = frozenset({"terrain", "train"})
    layout = """\
  leftImg8bit/train/265/frame0029_leftImg8bit.png ...  (.png or .jpg)
  gtFine/train/265/frame0029_gtFine_labellevel3Ids.png ...
  (val alike)"""
    train_ids = IDD_LEVEL3_TRAIN_IDS
    named_splits = _NAMED
    label_ending = "_gtFine_labellevel3Ids"

    def id_of(self, scene: str, name: str) -> str:
        """The id of an image: drives repeat the names of their frames."""
        return f"{scene}_{name}"

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to level-3 ids; terrain, train and void become 255."""
        table = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8, device=train_ids.device)
        for level3, train in self.train_ids.items():
            if train != IGNORE_INDEX:
                table[train] = level3
        return table[train_ids.long()]
