"""Clusters of images by their features: K-means and a Gaussian mixture, kept as tensors."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

KMEANS_BATCH = 2048  # images
RESTARTS = 5
MIXTURE_ITERATIONS = 10_000
COVARIANCE_FLOOR = 1.25  # added to the diagonal of each covariance
NEAREST = 1e-6  # added to distances, so that an image on a centre has a finite weight


class ImageClusters(ABC):
    """K clusters of images, each a region of the normalised features.

    Attributes:
        kind: the name of the clustering.
        centres: (K, D) float64.
    """

    kind: ClassVar[str]
    centres: Tensor

    def __len__(self) -> int:
        return len(self.centres)

    def weights(self, features: Tensor) -> Tensor:
        """How much images belong to each cluster.

        Args:
            features: (N, D), pooled over the space of each image, not normalised.

        Returns:
            (N, K) float64, at least 0, each row adding up to 1.

        Raises:
            ValueError: if D differs from that of the fit, or as ``normalised``.
        """
        length = self.centres.shape[1]
        if features.shape[1] != length:
            raise ValueError(
                f"the cluster calibrator was fitted on features of length {length}, the network's "
                f"have {features.shape[1]}; fit one on this network"
            )
        if self.centres.device != features.device:
            self.move(features.device)
        return self.memberships(normalised(features))

    @abstractmethod
    def memberships(self, points: Tensor) -> Tensor:
        """The weights (N, K) of normalised features (N, D), float64."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that ``from_state`` needs, and the kind."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The clusters whose ``state`` this is."""

    @classmethod
    @abstractmethod
    def fit(cls, points: Tensor, clusters: int, seed: int) -> Self:
        """Cluster normalised features (I, D)."""

    def move(self, device: torch.device) -> None:
        """Bring all tensors to a device."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))


class KMeansClusters(ImageClusters):
    """The nearest centre; weights 1 / (distance + 1e-6), normalised.

    Args:
        centres: (K, D) float64.
    """

    kind = "kmeans"

    def __init__(self, centres: Tensor) -> None:
        self.centres = centres

    @classmethod
    def fit(cls, points: Tensor, clusters: int, seed: int) -> Self:
        """Mini-batch K-means with five restarts, other settings scikit-learn's."""
        found = MiniBatchKMeans(
            clusters, batch_size=KMEANS_BATCH, n_init=RESTARTS, random_state=seed
        )
        with warnings.catch_warnings():
            # equal images are fewer points than clusters: the spare centres coincide
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.fit(points.cpu().numpy())
        return cls(torch.from_numpy(found.cluster_centers_).double())

    def memberships(self, points: Tensor) -> Tensor:
        """The weights (N, K) of normalised features (N, D), float64."""
        # differences rather than products, so that a feature on a centre has distance 0
        away = torch.stack([(points - centre).norm(dim=1) for centre in self.centres], 1)
        weights = 1 / (away + NEAREST)
        return weights / weights.sum(1, keepdim=True)

    def state(self) -> dict[str, Any]:
        """The centres."""
        return {"kind": self.kind, "centres": self.centres.cpu()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The clusters whose ``state`` this is."""
        return cls(state["centres"])


class MixtureClusters(ImageClusters):
    """A mixture of Gaussians with full covariances; the weights are its responsibilities.

    Args:
        shares: (K,) float64, prior probabilities of the components.
        centres: (K, D) float64.
        factors: (K, D, D) float64, upper triangular U with U U^T the inverse covariance.
    """

    kind = "gmm"

    def __init__(self, shares: Tensor, centres: Tensor, factors: Tensor) -> None:
        self.shares = shares
        self.centres = centres
        self.factors = factors

    @classmethod
    def fit(cls, points: Tensor, clusters: int, seed: int) -> Self:
        """Expectation maximisation with five restarts, covariances with 1.25 on the diagonal."""
        found = GaussianMixture(
            clusters,
            covariance_type="full",
            n_init=RESTARTS,
            max_iter=MIXTURE_ITERATIONS,
            reg_covar=COVARIANCE_FLOOR,
            random_state=seed,
        ).fit(points.cpu().numpy())
        arrays = (found.weights_, found.means_, found.precisions_cholesky_)
        return cls(*(torch.from_numpy(array).double() for array in arrays))

    def memberships(self, points: Tensor) -> Tensor:
        """The responsibilities (N, K) of normalised features (N, D), float64.

        log share_k + log det U_k - |(x - m_k) U_k|^2 / 2, softmax over the components.
        """
        scores = [
            share.log()
            + factor.diagonal().log().sum()
            - ((points - centre) @ factor).square().sum(1) / 2
            for share, centre, factor in zip(self.shares, self.centres, self.factors, strict=True)
        ]
        return torch.stack(scores, 1).softmax(1)

    def state(self) -> dict[str, Any]:
        """Shares, centres and factors."""
        tensors = {"shares": self.shares, "centres": self.centres, "factors": self.factors}
        return {"kind": self.kind, **{name: value.cpu() for name, value in tensors.items()}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The clusters whose ``state`` this is."""
        return cls(state["shares"], state["centres"], state["factors"])


CLUSTERINGS: dict[str, type[ImageClusters]] = {
    clustering.kind: clustering for clustering in (KMeansClusters, MixtureClusters)
}


def fit_images(features: Tensor, clusters: int, clustering: str, seed: int) -> ImageClusters:
    """Cluster images by their pooled features (I, D); the same seed gives the same clusters.

    Raises:
        ValueError: for an unknown clustering, for clusters fewer than 1 or more than images, and
            as ``normalised``.
    """
    if clustering not in CLUSTERINGS:
        raise ValueError(
            f"the clustering {clustering!r} is unknown; there are {', '.join(CLUSTERINGS)}"
        )
    if not 1 <= clusters <= len(features):
        raise ValueError(
            f"{clusters} clusters of {len(features)} images; there must be at least one cluster "
            "and at most one for each image"
        )
    return CLUSTERINGS[clustering].fit(normalised(features), clusters, seed)


def normalised(features: Tensor) -> Tensor:
    """Features (N, D) divided by the greatest entry of each image, float64.

    The published code pools by a sum, our networks by the mean; the quotient is the same.

    Raises:
        ValueError: if an image's greatest entry is not a finite number above 0, naming its index.
    """
    greatest = features.double().amax(1, keepdim=True)
    bad = ~((greatest > 0) & greatest.isfinite())
    if bad.any():
        index = int(bad[:, 0].nonzero()[0])
        raise ValueError(
            f"the greatest feature of image {index} is {float(greatest[index]):g}; dividing by it "
            "needs one above 0, as the last stage of a network that ends in a ReLU gives"
        )
    return features.double() / greatest
