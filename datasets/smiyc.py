"""The two tracks of SegmentMeIfYouCan: anomalies anywhere, obstacles on the road."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar

from datasets.anomalies import ANOMALY_SIZES, KNOWN, OBSTACLE_SIZES, UNKNOWN, AnomalyDataset
from datasets.base import Item
from datasets.files import pair
from utils.types import IGNORE_INDEX


class SMIYCAnomaly(AnomalyDataset):
    """SegmentMeIfYouCan's anomaly track (RoadAnomaly21): 10 validation, 100 test images.

    Labels hold 0 known, 1 unknown, 255 void. Those of the test images are not public: ``val`` has
    the images whose names begin with ``validation``, ``labelled`` all that have a label (if no
    labels are read, all).
    """

    name = "smiyc_anomaly"
    splits = ("val", "labelled")
    defaults: ClassVar[dict[str, Any]] = {**AnomalyDataset.defaults, "val_split": "val"}
    ood_values = MappingProxyType({0: KNOWN, 1: UNKNOWN, IGNORE_INDEX: IGNORE_INDEX})
    component_sizes: ClassVar[tuple[int, int]] = ANOMALY_SIZES
    layout = """\
  images/validation0000.jpg ...
  labels_masks/validation0000_labels_semantic.png ..."""

    def files(self) -> list[Item]:
        """The pairs of the split."""
        start = "validation" if self.split == "val" else ""
        images = self.images_in(self.root / "images", f"{start}*")
        folder = self.root / "labels_masks"
        labels = self.labels_in(folder, f"{start}*", "_labels_semantic")
        if labels is not None and self.split == "labelled":
            images = {name: path for name, path in images.items() if name in labels}
        return [Item(key, image, label) for key, image, label in pair(images, labels)]


class SMIYCObstacle(SMIYCAnomaly):
    """SegmentMeIfYouCan's obstacle track (RoadObstacle21): 30 validation, 327 test images.

    Known is the road, what lies outside it is void. Otherwise it is as the anomaly track.
    """

    name = "smiyc_obstacle"
    component_sizes: ClassVar[tuple[int, int]] = OBSTACLE_SIZES
    layout = """\
  images/validation_1.webp ...
  labels_masks/validation_1_labels_semantic.png ..."""
