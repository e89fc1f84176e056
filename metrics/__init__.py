"""Metrics by name: consumers of the evaluation pass that keep sums of fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metrics.base import StreamingMetric
from metrics.segmentation import SegmentationMetrics

# Each builder takes the class names by train id.
METRICS: dict[str, Callable[[Sequence[str]], StreamingMetric]] = {
    "segmentation": SegmentationMetrics,
}
