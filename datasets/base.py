"""The contract of a data set: files listed by name, labels mapped once, samples seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from datasets.additions import label_from, of_size
from datasets.appearance import Appearance, as_seen, joint_fingerprint
from datasets.cache import ArrayCache
from datasets.damage import DamagedLabels, damaged_fingerprint
from datasets.files import image_size, read_ids, read_image
from datasets.fingerprints import files_fingerprint
from datasets.items import (
    Item,
    SampleKey,
    choose_scenes,
    refuse_other_size,
    refuse_repeated_ids,
)
from datasets.labels import LabelMap
from datasets.samples import Sample
from datasets.split_files import SplitFiles
from datasets.taxonomy import SegClass, names_of, palette_of, same_ids
from datasets.transforms import Transform


class SegDataset(SplitFiles, Dataset[Sample]):
    """Images with a train id for every pixel.

    A subclass names its splits and classes, lists its files and says which raw ids stand for
    which train id; nothing is decoded before an item is asked for.

    Attributes:
        name: as typed after ``--dataset``.
        needs_root: whether it reads files.
        usual_ood_ids: raw ids that papers take for unknown objects.
        component_sizes: fewest pixels of a predicted and of a true object in the metric components.
        unannotated: classes that its scenes have and its labels never show.
        background: train id of what is no object; None where every class is one.
        defaults: flag values that suit it, by flag name.
        classes: name and colour, in the order of the train ids.
        train_ids: raw id in a label file -> train id or 255 for void.
        read_ids: the ids (H, W) uint8 in a label file.
        originals: the items as they are listed.
        items: the same as results name them, with the appearance in their condition.

    Args:
        root: the folder that holds the data; None for generated data.
        split: one of ``splits``.
        transform: applied to every sample; None leaves it as it is.
        seed: of the random transforms.
        cache: folder for decoded, resized arrays (see ``datasets.cache``); None decodes each time.
        weight: the weight map of an item as it is listed, (H, W) float32, at the label's native
            size or that after the transform's resize.
        tags: which classes the image of an item shows, (C,) float32 in {0, 1}: ``image_labels``.
        scenes: keep the items of these scenes only; None: all.
        ood_ids: raw ids out of distribution: samples have "ood", 1 there, 0 for classes, else 255.
        appearance: changes each image after cache and resize, before the random transforms.
        labelled: False lists and opens no label file: items have none, labels are void.
        label_source: train ids (H, W) uint8 of an item as it is listed, at the image's native
            size, which take the place of the label files; they are not needed then.
        classes: those of ``label_source``, or of nothing if there are no labels at all.
        damage: changes the labels of the files on purpose, before the transform.

    Raises:
        ValueError: for an unknown split or scene, missing folders, images and labels that do not
            pair, or out-of-distribution ids that stand for a class or are no label ids.
    """

    needs_root: ClassVar[bool] = True
    usual_ood_ids: ClassVar[tuple[int, ...]] = ()
    component_sizes: ClassVar[tuple[int, int]] = (0, 0)
    unannotated: ClassVar[frozenset[str]] = frozenset()
    background: ClassVar[int | None] = None
    defaults: ClassVar[dict[str, Any]] = {}
    classes: tuple[SegClass, ...] = ()
    train_ids: Mapping[int, int] = {}
    read_ids: Callable[[Path], NDArray[np.uint8]] = staticmethod(read_ids)

    def __init__(  # noqa: PLR0913 - keywords that every data set takes
        self,
        root: Path | str | None,
        split: str,
        *,
        transform: Transform | None = None,
        seed: int = 0,
        cache: Path | str | None = None,
        weight: Callable[[Item], Tensor] | None = None,
        tags: Callable[[Item], Tensor] | None = None,
        scenes: Iterable[str] | None = None,
        ood_ids: Iterable[int] = (),
        appearance: Appearance | None = None,
        labelled: bool = True,
        label_source: Callable[[Item], Tensor] | None = None,
        classes: tuple[SegClass, ...] | None = None,
        damage: DamagedLabels | None = None,
    ) -> None:
        self.root = Path(root or ".")
        self.split = split
        self.transform = transform or Transform()
        self.seed = seed
        self.cache_dir = Path(cache) if cache is not None else None
        self.weight = weight
        self.tags = tags
        self.scenes = None if scenes is None else tuple(scenes)
        self.ood_ids = tuple(ood_ids)
        self.appearance = appearance
        self.label_source = label_source
        self.reads_labels = labelled and label_source is None
        assert classes is None or not self.reads_labels
        assert damage is None or self.reads_labels, "only labels of files are damaged"
        self.damage = damage
        self._cached: ArrayCache | None = None
        self.check_split(self.splits)
        self.originals = self.files()
        if not self.reads_labels:
            self.classes = self.classes if classes is None else classes
            self.train_ids = same_ids(self.classes)
        if self.scenes is not None:
            where = f"split {split!r} of {self.name}"
            self.originals = choose_scenes(self.originals, self.scenes, where)
        if not self.originals:
            raise ValueError(f"split {split!r} of {self.name} in {self.root} has no images")
        refuse_repeated_ids(self.originals)
        self.items = [as_seen(item, appearance) for item in self.originals]
        self._ood_table = self.ood_table() if self.reads_labels else None

    def files(self) -> list[Item]:
        """The items of the split, in a fixed order; nothing is decoded.

        Raises:
            ValueError: if a folder is missing or an image and a label do not pair.
        """
        raise TypeError(f"{type(self).__name__} does not list its files")

    @property
    def num_classes(self) -> int:
        """Number of classes; void is none of them."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the order of the train ids."""
        return names_of(self.classes)

    @property
    def palette(self) -> Tensor:
        """The colour of each class, (C, 3) uint8, in the order of the train ids."""
        return palette_of(self.classes)

    @cached_property
    def label_map(self) -> LabelMap:
        """The map from the ids in label files to train ids."""
        return LabelMap(self.train_ids, self.class_names, self.name)

    def __len__(self) -> int:
        """Number of images in the split."""
        return len(self.items)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and train ids (H, W) uint8 of one item, at native size.

        Raises:
            ValueError: if a file is unreadable, their sizes differ or a label value is no class.
        """
        item = self.items[index]
        assert item.image is not None
        image = torch.from_numpy(read_image(item.image)).permute(2, 0, 1)
        if not self.reads_labels:
            return image, self.other_label(index)
        assert item.label is not None
        label = self.encode_label(self.read_raw_label(index), item.label)
        refuse_other_size(item, tuple(label.shape), tuple(image.shape[1:]))
        return image, label

    def read_raw_label(self, index: int) -> Tensor:
        """The ids (H, W) uint8 as the label file holds them, or what stands in its place.

        Raises:
            ValueError: if the file is unreadable.
        """
        if not self.reads_labels:
            return self.other_label(index)
        path = self.items[index].label
        assert path is not None
        return torch.from_numpy(self.read_ids(path))

    def other_label(self, index: int) -> Tensor:
        """Train ids (H, W) uint8 where no label file is read: of ``label_source``, or void.

        Raises:
            ValueError: if the label has another size than the image.
        """
        return label_from(self.label_source, self.originals[index], self.native_size(index))

    def encode_label(self, raw: Tensor, path: Path) -> Tensor:
        """Map raw ids (H, W) uint8 to train ids.

        Raises:
            ValueError: if a value is outside ``train_ids``, naming the file and the values.
        """
        return self.label_map.encode(raw, path)

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to the ids that the data set's evaluation server expects."""
        return train_ids

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of an item after the transform's resize, without decoding it."""
        return self.transform.size or self.native_size(index)

    def native_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an item as ``read`` gives it, without decoding it."""
        item = self.items[index]
        assert item.image is not None
        return image_size(item.image)

    def origins(self) -> frozenset[str]:
        """``dataset/id`` of every image, the same in every split and whatever it looks like."""
        return frozenset(f"{self.name}/{item.id}" for item in self.originals)

    def fingerprint(self) -> str:
        """SHA-256 over what the samples follow from: files, damage to labels and appearance."""
        content = damaged_fingerprint(self.content_fingerprint(), self.damage)
        return joint_fingerprint(content, self.appearance)

    def content_fingerprint(self) -> str:
        """SHA-256 over the split and the relative path and size of every file."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return files_fingerprint(f"{self.name} {self.split}", self._paths(), self.root)

    def content_key(self) -> str:
        """16 hex digits that change with the files, their dates, the label map and the damage."""
        fingerprint = damaged_fingerprint(self.content_fingerprint(), self.damage)
        content: list[Any] = [fingerprint, sorted(self.train_ids.items())]
        content += [path.stat().st_mtime_ns for path in self._paths()]
        content += ["images alone"] * (not self.reads_labels)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def _paths(self) -> Iterable[Path]:
        return (path for item in self.originals for path in item[1:3] if path is not None)

    def prepare(self) -> None:
        """Build or open the cache, if there is one; loaders call it before workers start."""
        if self.cache_dir is None or self._cached is not None:
            return
        name = f"{self.name}_{self.split}_{self.transform.stage}_{self.content_key()}"
        self._cached = ArrayCache.open(self.cache_dir, name, len(self), self._resized)

    def _resized(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and train ids, damaged if they are to be, after the transform's resize."""
        image, label = self.read(index)
        label = self.damaged(label, index)
        return self.transform.resize_image(image), self.transform.resize_map(label)

    def damaged(self, label: Tensor, index: int) -> Tensor:
        """Train ids (H, W) uint8 of an item after the damage that is to be done, if any."""
        if self.damage is None:
            return label
        return self.damage(label, self.originals[index].id, self.background)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The transformed sample; the random transforms depend on the seed and the key alone.

        Raises:
            ValueError: as ``read`` does, and if a weight map has another size than its label.
        """
        key = SampleKey.of(key, len(self))
        index = key.index
        item = self.items[index]
        self.prepare()
        image, label = self._resized(index) if self._cached is None else self._cached[index]
        if self._cached is not None and not self.reads_labels:  # it keeps the image alone
            label = self.transform.resize_map(self.other_label(index))
        if self.appearance is not None:
            image = self.appearance(image, self.originals[index].id)
        sample = Sample(
            image=tv_tensors.Image(image),
            label=tv_tensors.Mask(label),
            id=item.id,
            dataset=self.name,
            scene=item.scene,
            condition=item.condition,
        )
        if self.weight is not None:
            weight = self.transform.resize_map(self.weight(self.originals[index]).float())
            sample["weight"] = tv_tensors.Mask(of_size(weight, label, item))
        if self.tags is not None:
            sample["image_labels"] = self.tags(self.originals[index])
        if self._ood_table is not None:
            sample["ood"] = tv_tensors.Mask(self._ood_of(index, self._ood_table))
        return self.transform.randomise(sample, key.generator(self.seed), key.centre)

    def ood_table(self) -> NDArray[np.uint8] | None:
        """(256,) uint8: 1 for ids out of distribution, 0 for ids of classes, else 255; or None."""
        return self.label_map.ood_table(self.ood_ids) if self.ood_ids else None

    def _ood_of(self, index: int, table: NDArray[np.uint8]) -> Tensor:
        ood = torch.from_numpy(cv2.LUT(self.read_raw_label(index).numpy(), table))
        return self.transform.resize_map(ood)
