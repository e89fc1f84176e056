"""A temperature for each cluster of images (cluster temperature scaling)."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor

from uncertainty.calibrators.base import Calibrator, divided
from uncertainty.calibrators.clustering import CLUSTERINGS, ImageClusters, fit_images
from uncertainty.calibrators.pixels import check_pixels
from uncertainty.calibrators.search import TemperatureFit, TemperatureGrid, search_temperature
from uncertainty.calibrators.temperature import fit_temperature_by_nll
from utils.softmax import most_likely
from utils.types import FEATURES, Prediction

Assignment = Literal["hard", "soft"]
ASSIGNMENTS = ("hard", "soft")
OBJECTIVES = ("ece", "nll")


class ClusterTemperature(Calibrator):
    """Divides the logits of an image by the temperature of its cluster.

    With hard assignment the image gets the temperature of the likeliest cluster, with soft
    assignment T = sum_k w_k T_k with the image's weights w_k. A table with a column for each class
    holds temperatures for (cluster, predicted class): all logits of a pixel are divided by that of
    its predicted class, so that the prediction cannot change.

    Args:
        clusters: K clusters of images.
        temperatures: (K, 1) float64, or (K, C) for a temperature of each predicted class; above 0.
        assignment: "hard" or "soft".
        num_classes: C.
    """

    kind = "cluster"
    needs = frozenset({FEATURES})

    def __init__(
        self, clusters: ImageClusters, temperatures: Tensor, assignment: str, num_classes: int
    ) -> None:
        expected = ((len(clusters), 1), (len(clusters), num_classes))
        assert temperatures.shape in expected, "a row for each cluster"
        check_choice("assignment", assignment, ASSIGNMENTS)
        self.clusters = clusters
        self.temperatures = temperatures
        self.assignment = assignment
        self.num_classes = num_classes

    def calibrate(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Divide the logits.

        Raises:
            ValueError: if the features have another length than those of the fit, or an image's
                greatest feature is not above 0.
        """
        logits = prediction.logits
        assert prediction.features is not None, "refused before: features are in needs"
        self.temperatures = self.temperatures.to(logits.device)
        table = self.temperatures_of(prediction.features)
        if table.shape[1] == 1:
            return divided(prediction, table[:, :, None, None])
        classes = most_likely(logits).flatten(1).long()
        maps = table.gather(1, classes).view(len(logits), 1, *logits.shape[2:])
        return divided(prediction, maps)

    def temperatures_of(self, features: Tensor) -> Tensor:
        """The temperatures of images, (N, 1) or (N, C), from their pooled features (N, D)."""
        weights = self.clusters.weights(features)
        if self.assignment == "hard":
            return self.temperatures[weights.argmax(1)]
        return (weights[:, :, None] * self.temperatures).sum(1)

    def state(self) -> dict[str, Any]:
        """Clusters, temperatures and how images are assigned."""
        return {
            "clusters": self.clusters.state(),
            "temperatures": self.temperatures.cpu(),
            "assignment": self.assignment,
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The calibrator whose ``state`` this is."""
        saved = state["clusters"]
        clusters = CLUSTERINGS[saved["kind"]].from_state(saved)
        return cls(clusters, state["temperatures"], state["assignment"], state["num_classes"])


def fit_clusters(  # noqa: PLR0913 - the published settings, each by its name
    logits: Tensor,
    labels: Tensor,
    image_of_pixel: Tensor,
    features: Tensor,
    *,
    clusters: int,
    clustering: str = "kmeans",
    assignment: str = "hard",
    seed: int = 111,
    grid: TemperatureGrid | None = None,
    objective: str = "ece",
    per_class: bool = False,
) -> ClusterTemperature:
    """Cluster the images by their features and fit a temperature to the pixels of each cluster.

    Args:
        logits: (n, C), finite.
        labels: (n,), void 255.
        image_of_pixel: (n,) integers, the row of ``features`` that each pixel belongs to.
        features: (I, D), the spatial mean or sum of the last stage for each image.
        clusters: K; -1 is a cluster for each image.
        clustering: "kmeans" or "gmm", a Gaussian mixture.
        assignment: "hard" or "soft", used when the calibrator is applied; the fit is always hard.
        seed: of the clustering.
        grid: temperatures of objective "ece"; None is 0.50, 0.51, ..., 9.99.
        objective: "ece" for the grid, "nll" for maximum likelihood.
        per_class: fit one temperature to each predicted class of a cluster, 1 for those that are
            never predicted.

    Raises:
        ValueError: for another clustering, assignment or objective; for more clusters than images;
            for pixels of images that have no features; for logits that are not finite and labels
            that are no classes.
    """
    check_choice("assignment", assignment, ASSIGNMENTS)
    check_choice("objective", objective, OBJECTIVES)
    check_pixels(logits, labels)
    check_images(image_of_pixel, labels, features)
    images = len(features)
    found = fit_images(features, images if clusters == -1 else clusters, clustering, seed)
    cluster_of_pixel = found.weights(features).argmax(1).to(logits.device)[image_of_pixel.long()]
    groups = logits.argmax(1) if per_class else torch.zeros_like(cluster_of_pixel)
    table = torch.ones(len(found), logits.shape[1] if per_class else 1, dtype=torch.float64)
    for cluster in range(len(found)):
        for group in groups[cluster_of_pixel == cluster].unique().tolist():
            mine = (cluster_of_pixel == cluster) & (groups == group)
            fit = fit_temperature(logits[mine], labels[mine], objective, grid)
            table[cluster, group] = fit.temperature
    return ClusterTemperature(found, table, assignment, logits.shape[1])


def fit_temperature(
    logits: Tensor, labels: Tensor, objective: str, grid: TemperatureGrid | None
) -> TemperatureFit:
    """One temperature by the objective of that name."""
    if objective == "nll":
        return fit_temperature_by_nll(logits, labels)
    return search_temperature(logits, labels, grid)


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of the known ones."""
    if value not in known:
        raise ValueError(f"the {what} {value!r} is unknown; there are {', '.join(known)}")


def check_images(image_of_pixel: Tensor, labels: Tensor, features: Tensor) -> None:
    """Refuse pixels that do not say which image they belong to."""
    if image_of_pixel.shape != labels.shape:
        raise ValueError(
            f"{tuple(labels.shape)} labels, but the image is given for "
            f"{tuple(image_of_pixel.shape)} pixels; it must be given for each"
        )
    outside = (image_of_pixel < 0) | (image_of_pixel >= len(features))
    if outside.any():
        raise ValueError(
            f"pixels belong to image {int(image_of_pixel[outside][0])}, but there are features "
            f"of {len(features)} images"
        )
