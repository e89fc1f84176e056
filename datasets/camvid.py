"""CamVid in the layout, size and 11 classes of the SegNet papers."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from datasets.base import Item, SegDataset
from datasets.files import pair
from datasets.taxonomy import CAMVID, CAMVID_TRAIN_IDS


class _Part(NamedTuple):
    """Folders of the official splits, and the sequences kept from them (none named: all)."""

    folders: tuple[str, ...]
    sequences: tuple[str, ...] = ()


_DUSK = ("0001TP",)
_PARTS = {
    "train": _Part(("train",)),
    "val": _Part(("val",)),
    "test": _Part(("test",)),
    "trainval": _Part(("train", "val")),
    "train_day": _Part(("train",), ("0006R0", "0016E5")),
    "dusk_train": _Part(("train",), _DUSK),
    "dusk_test": _Part(("test",), _DUSK),
    "heldout_test": _Part(("test",), ("Seq05VD",)),
}


class CamVid(SegDataset):
    """Road scenes from Cambridge, 11 classes, 360x480 (rows x columns).

    The official train and test splits both hold the dusk sequence 0001TP, and val comes from a
    sequence that train holds too. ``train_day`` and ``dusk_train`` divide train by light;
    ``heldout_test`` (Seq05VD) is the part of test whose sequence training never sees, and
    ``dusk_test`` the rest. The scene of an item is its sequence.
    """

    name = "camvid"
    splits = tuple(_PARTS)
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (360, 480),
        "batch_size": 8,
        "val_batch_size": 8,
        "lr": 1e-3,
        "flip": 0.5,
        "val_interval": 300,
    }
    layout = """\
  train/       0001TP_006690.png ...   (.png or .jpg)
  trainannot/  0001TP_006690.png ...   (8-bit ids 0..10, void 11)
  val/ valannot/ test/ testannot/      (the same)"""
    classes = CAMVID
    train_ids = CAMVID_TRAIN_IDS

    def files(self) -> list[Item]:
        """The pairs of the split's folders and sequences."""
        part = _PARTS[self.split]
        items: list[Item] = []
        for name in part.folders:
            images = self.images_in(self.root / name)
            pairs = pair(images, self.labels_in(self.root / f"{name}annot"))
            items += [Item(key, image, label, key.split("_")[0]) for key, image, label in pairs]
        return [item for item in items if not part.sequences or item.scene in part.sequences]
