"""The two tracks of SegmentMeIfYouCan: anomalies anywhere, obstacles on the road."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar

from datasets.anomalies import ANOMALY_SIZES, KNOWN, OBSTACLE_SIZES, UNKNOWN, AnomalyDataset
from datasets.base import Item
from datasets.files import by_key, image_files, pair
from utils.types import IGNORE_INDEX


class SMIYCAnomaly(AnomalyDataset):
    """SegmentMeIfYouCan's anomaly track (RoadAnomaly21): 10 validation, 100 test images.

    Labels hold 0 known, 1 unknown, 255 void. Those of the test images are not public: ``val`` has
    the images whose names begin with ``validation``, ``labelled`` all that have a label.
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
        images = self.require(self.root / "images")
        labels = self.require(self.root / "labels_masks")
        found = [
            by_key(image_files(images), images),
            by_key(image_files(labels), labels, "_labels_semantic"),
        ]
        if self.split == "val":
            found = [
                {name: path for name, path in each.items() if name.startswith("validation")}
                for each in found
            ]
        else:
            found[0] = {name: path for name, path in found[0].items() if name in found[1]}
        return [Item(key, image, label) for key, image, label in pair(*found)]


class SMIYCObstacle(SMIYCAnomaly):
    """SegmentMeIfYouCan's obstacle track (RoadObstacle21): 30 validation, 327 test images.

    Known is the road, what lies outside it is void. Otherwise it is as the anomaly track.
    """

    name = "smiyc_obstacle"
    component_sizes: ClassVar[tuple[int, int]] = OBSTACLE_SIZES
    layout = """\
  images/validation_1.webp ...
  labels_masks/validation_1_labels_semantic.png ..."""
