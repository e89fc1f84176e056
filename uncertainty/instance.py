"""Instance uncertainty: the mean entropy of each connected region of one predicted class."""

from __future__ import annotations

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uncertainty.entropy import softmax_entropy

ROUNDS_PER_CHECK = 4  # of merging, before the device is waited for


def instance_uncertainty(logits: Tensor) -> Tensor:
    """Instance mask U: the mean entropy of the predicted instance that holds the pixel.

    U(x) = mean of H over the 8-connected component of pixels of one predicted class that holds x,
    H the entropy of softmax(logits) (Almeida et al. 2024, "Instance-wise Uncertainty for Class
    Imbalance in Semantic Segmentation"); ``softmax_entropy`` says how H differs from the
    published form.

    Args:
        logits: (N, C, H, W), any floating type, at most 256 classes; computed in float32.

    Returns:
        (N, H, W), float32, in nats from 0 to log C, on the device of the logits and outside the
        graph.
    """
    return instance_mean(*softmax_entropy(logits))


def instance_mean(classes: Tensor, values: Tensor) -> Tensor:
    """Mean of values over each 8-connected component of equal class, added up in float64.

    Every image of the batch has its own components. On a GPU nothing leaves the device; the host
    waits for it a few times to learn whether all components are found.

    Args:
        classes: (N, H, W), any integer type, values from 0 to 65,534.
        values: (N, H, W), on the same device.

    Returns:
        (N, H, W), float32, on that device and outside the graph.

    Raises:
        ValueError: if classes and values differ in size.
    """
    if classes.shape != values.shape or classes.ndim != 3:
        sizes = f"classes {tuple(classes.shape)} and values {tuple(values.shape)}"
        raise ValueError(f"{sizes} must both be (N, H, W)")
    values = values.detach().float()
    if not values.numel():
        return values
    if values.device.type != "cpu":
        return means_by_merging(classes, values)
    means = torch.empty(values.shape)
    for image_classes, image_values, image_means in zip(classes, values, means, strict=True):
        component_means(image_classes.numpy(), image_values.numpy(), image_means)
    return means


def component_means(classes: NDArray[np.integer], values: NDArray[np.float32], out: Tensor) -> None:
    """Write the mean of each component of one image (H, W) into ``out``, float32.

    Sums are taken over the runs of equal component first: adding pixel by pixel to one place,
    as bincount does, makes each addition wait for the one before.
    """
    shifted = np.add(classes, 1, dtype=np.uint16, casting="unsafe")  # 0 would be background
    components = cc3d.connected_components(shifted, connectivity=8, out_dtype=np.uint32).ravel()
    changes = np.flatnonzero(components[1:] != components[:-1]) + 1
    starts = np.concatenate(([0], changes))
    owners = components[starts]
    sums = np.bincount(owners, np.add.reduceat(values.ravel(), starts, dtype=np.float64))
    sizes = np.bincount(owners, np.diff(starts, append=components.size))
    sizes[0] = 1  # components count from 1
    means = torch.from_numpy((sums / sizes).astype(np.float32))
    torch.index_select(means, 0, torch.from_numpy(components.view(np.int32)), out=out.view(-1))


def means_by_merging(classes: Tensor, values: Tensor) -> Tensor:
    """``instance_mean`` by operations of torch alone, on any device.

    Every row is cut into runs of equal class, runs that touch are merged to one component, and
    sums go from pixels to runs to components, so that few additions meet in one place.
    """
    starts = torch.ones_like(classes, dtype=torch.bool)
    starts[..., 1:] = classes[..., 1:] != classes[..., :-1]
    runs = starts.flatten().cumsum(0).sub_(1)
    components = merge_runs(runs.numel(), *touching_runs(classes, starts, runs))
    pixels = values.flatten().double()
    sums, sizes = torch.zeros_like(pixels), torch.zeros_like(pixels)
    for total, addends in ((sums, pixels), (sizes, torch.ones_like(pixels))):
        in_runs = torch.zeros_like(pixels).index_add_(0, runs, addends)
        total.index_add_(0, components, in_runs)
    return (sums / sizes)[components[runs]].float().view_as(values)


def touching_runs(classes: Tensor, starts: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of runs of one class that touch, by an edge or a corner, in rows that follow.

    Args:
        classes: (N, H, W).
        starts: (N, H, W), bool, whether a run begins at the pixel.
        runs: (N * H * W,), the number of each pixel's run.

    Returns:
        The upper and the lower run of each pair, (E,), int64; a pair may occur more than once.
    """
    runs = runs.view_as(classes)
    upper, lower = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
    left, right = (..., slice(None, -1)), (..., slice(1, None))
    begins = starts[upper], starts[lower]
    same = classes[upper] == classes[lower]
    # Within two runs that overlap one pair is enough: where one of them begins.
    pairs = [(same & (begins[0] | begins[1]), runs[upper], runs[lower])]
    # Over a corner only where no shared edge joins the two: both neighbours are of another class.
    both_begin = (begins[0] & begins[1])[right]
    for above, below in ((left, right), (right, left)):
        touching = (classes[upper][above] == classes[lower][below]) & both_begin
        pairs.append((touching, runs[upper][above], runs[lower][below]))
    chosen = torch.cat([mask.flatten() for mask, _, _ in pairs]).nonzero().squeeze(1)
    above_runs = torch.cat([above.flatten() for _, above, _ in pairs])[chosen]
    return above_runs, torch.cat([below.flatten() for _, _, below in pairs])[chosen]


def merge_runs(count: int, upper: Tensor, lower: Tensor) -> Tensor:
    """Connected components of a graph by hooking and pointer jumping.

    In each round the greater of the two labels of every pair points to the smaller one, then all
    labels take a short cut (Shiloach and Vishkin 1982). Labels only ever fall, within their
    component, so that a round in which all pairs agree is the last one.

    Args:
        count: number of nodes.
        upper: (E,), int64, one end of each pair.
        lower: (E,), int64, the other end.

    Returns:
        (count,), int64, the same node of its component for each node.
    """
    labels = torch.arange(count, device=upper.device)
    while True:
        for _ in range(ROUNDS_PER_CHECK):
            one, other = labels[upper], labels[lower]
            labels.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
            labels = labels[labels]
            labels = labels[labels]
        if torch.equal(labels[upper], labels[lower]):
            return labels
