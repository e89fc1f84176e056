"""Entropy of softmax distributions, in nats, without maps of all classes in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uncertainty.logit_maps import LOWEST
from utils.class_map import class_map, fill_classes, row_blocks


class EntropyMap(NamedTuple):
    """What one pass over logits gives."""

    classes: Tensor  # (N, H, W), uint8, the most likely class
    entropy: Tensor  # (N, H, W), float32, in nats


def softmax_entropy(logits: Tensor) -> EntropyMap:
    """Most likely class and entropy of softmax(logits), computed in float32.

    H = log S - (1/S) sum_c e_c d_c with d_c = z_c - max z, e_c = exp(d_c), S = sum_c e_c. This is
    -sum_c p_c log p_c; the published -sum_c p_c log(p_c + 1e-10) is less by at most C * 1e-10
    (log(1 + x) <= x), far below float32's resolution at log C.

    Args:
        logits: (N, C, H, W), any floating type, at most 256 classes; -inf is a probability of 0.

    Returns:
        On the device of the logits and outside the graph; the entropy lies in [0, log C].
    """
    logits = logits.detach()
    if logits.device.type != "cpu":
        entropy = torch.special.entr(logits.float().softmax(1)).sum(1)
        return EntropyMap(class_map(logits), entropy)
    found = empty_maps(logits)
    classes, entropy = (maps.numpy() for maps in found)
    for block in row_blocks(logits):
        place = block.image, block.rows
        highest = fill_classes(block.scores, classes[place])
        entropy[place] = block_entropy(block.scores, highest)
    return found


@torch.no_grad()
def mean_softmax_entropy(member_logits: Sequence[Tensor]) -> EntropyMap:
    """Most likely class and entropy of the mean of the members' softmaxes, computed in float32.

    ``softmax_entropy`` of the log of that mean, without the maps of all members and classes.

    Args:
        member_logits: of one or more members, each (N, C, H, W) as ``softmax_entropy`` takes them.

    Returns:
        On the device of the logits and outside the graph; the entropy lies in [0, log C].
    """
    if member_logits[0].device.type != "cpu":
        mean = mean_softmax(member_logits)
        return EntropyMap(class_map(mean), torch.special.entr(mean).sum(1))
    found = empty_maps(member_logits[0])
    for blocks in zip(*map(row_blocks, member_logits), strict=True):
        place = blocks[0].image, blocks[0].rows
        mean = mean_softmax([torch.from_numpy(block.scores) for block in blocks])
        fill_classes(mean.numpy(), found.classes[place].numpy())
        found.entropy[place] = torch.special.entr(mean).sum(0)
    return found


def mean_softmax(member_logits: Sequence[Tensor]) -> Tensor:
    """Mean of softmax(logits) over the members, float32, given logits (..., C, H, W) of each."""
    first, *others = member_logits
    mean = first.softmax(-3, dtype=torch.float32)
    for logits in others:
        mean += logits.softmax(-3, dtype=torch.float32)
    return mean.div_(len(member_logits))


def empty_maps(logits: Tensor) -> EntropyMap:
    """Maps to be filled for logits (N, C, H, W) on the CPU."""
    size = logits.shape[:1] + logits.shape[2:]
    return EntropyMap(torch.empty(size, dtype=torch.uint8), torch.empty(size))


def block_entropy(logits: NDArray[np.float32], highest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy (h, W) of softmax(logits), given logits (C, h, W) and their maximum (h, W)."""
    total, weighted = np.zeros_like(highest), np.zeros_like(highest)
    difference, power = np.empty_like(highest), np.empty_like(highest)
    for class_logits in logits:
        np.subtract(class_logits, highest, out=difference)
        np.maximum(difference, LOWEST, out=difference)
        cv2.exp(difference, dst=power)
        np.add(total, power, out=total)
        np.multiply(power, difference, out=difference)
        np.add(weighted, difference, out=weighted)
    np.divide(weighted, total, out=weighted)
    return np.maximum(np.log(total, out=total) - weighted, 0)
