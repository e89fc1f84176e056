"""What calibration adds up over the pixels, on the device of the logits and without waiting."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.calibration_errors import ConfidenceBins
from utils.class_map import BLOCK_PIXELS, row_blocks
from utils.softmax import TopClass

TABLE_CELLS = 1 << 20  # on a GPU, over which the pixels of few bins are spread
Array = NDArray[Any]


def own_nll(logits: Tensor, own: Tensor, top: TopClass) -> Tensor:
    """-log p of the class of each pixel's label, also where p underflows.

    Computed as (z_top - z_own) - log p_top, where p_top is at least 1 / C.

    Args:
        logits: (N, C, H, W).
        own: (N, 1, H, W), int64, the class of the label.
        top: the most likely classes and their probabilities.

    Returns:
        (N, H, W), float32, in nats; not finite where the logits are not.
    """
    logits = logits.detach()
    lead = logits.gather(1, top.classes[:, None].long()).float() - logits.gather(1, own).float()
    return lead.squeeze(1) - top.confidence.log()


def confidence_sums(
    confidence: Tensor, right: Tensor, kept: Tensor, bins: ConfidenceBins
) -> dict[str, Tensor]:
    """Wrong and right pixels of each bin (2, B), int64, and their confidences (B,), float64.

    Args:
        confidence: (N, H, W), float32 in [0, 1], anything where not kept.
        right: (N, H, W), bool, whether the prediction is the label.
        kept: (N, H, W), bool, the pixels that count.
        bins: of the confidence.
    """
    cells = 2 * bins.size + 1
    if confidence.device.type == "cpu":
        codes = torch.empty(confidence.shape, dtype=torch.int64)
        # in the cache the work takes a fifth of the time
        maps = (codes, confidence, right, kept)
        blocks = (values.reshape(-1).split(BLOCK_PIXELS) for values in maps)
        for block, values, hits, counted in zip(*blocks, strict=True):
            block.copy_(_paired_codes(values, hits, counted, bins))
    else:
        codes = _paired_codes(confidence, right, kept, bins)
    summed = tally(codes, cells, confidence)[:-1].view(2, -1)
    return {"counts": tally(codes, cells)[:-1].view(2, -1), "confidence": summed.sum(0)}


def _paired_codes(confidence: Tensor, right: Tensor, kept: Tensor, bins: ConfidenceBins) -> Tensor:
    """The bin of wrong pixels, the bin + B of right ones and 2 B of those that do not count."""
    return torch.where(kept, bins.codes(confidence) + bins.size * right, 2 * bins.size)


def probability_sums(likely: Tensor, own: Tensor, kept: Tensor, number: int) -> dict[str, Tensor]:
    """What the class-wise errors and the Brier score need.

    Args:
        likely: (N, C, H, W), float32, probabilities; to be read only.
        own: (N, 1, H, W), int64, the class of each label.
        kept: (N, H, W), bool.
        number: of bins of equal width, M; bin 0 of M + 1 holds the probability 0.

    Returns:
        ``hits`` (C, M + 1), int64, pixels of each class by its probability; ``probability``
        (C, M + 1), float64, the sum of each class's probabilities; ``brier``, float64, the sum
        over pixels and classes of the squared differences.
    """
    classes, wanted = likely.shape[1], number + 1
    mine = likely.gather(1, own)
    codes = own * wanted + equal_width_codes(mine, number)
    hits = tally(torch.where(kept[:, None], codes, classes * wanted), classes * wanted + 1)
    by_bin = _bins_on_cpu if likely.device.type == "cpu" else _bins_on_device
    probability, squares = by_bin(likely, kept, number)
    return {
        "hits": hits[:-1].view(classes, wanted),
        "probability": probability,
        "brier": total(squares - 2 * mine.squeeze(1) + 1, kept),
    }


def equal_width_codes(values: Tensor, number: int) -> Tensor:
    """ceil(M x) of float32 values, int64: j + 1 for x in (j / M, (j + 1) / M] and 0 for 0."""
    return (values.double() * number).ceil_().long()  # exact, in float32 it is not


def total(values: Tensor, kept: Tensor) -> Tensor:
    """Sum of the kept values, float64."""
    return torch.where(kept, values, 0).sum(dtype=torch.float64)


def tally(codes: Tensor, cells: int, weights: Tensor | None = None) -> Tensor:
    """Count codes or sum their weights, without waiting for the device.

    Args:
        codes: (..., W), int64, from 0 to cells - 1.
        cells: of the result.
        weights: as large as the codes, summed in float64.

    Returns:
        (cells,), int64 counts or float64 sums.
    """
    if codes.device.type == "cpu":
        flat = None if weights is None else weights.double().flatten()
        return torch.bincount(codes.flatten(), flat, minlength=cells)
    return _tally_in_copies(
        codes, cells, torch.ones_like(codes) if weights is None else weights.double()
    )


def _tally_in_copies(codes: Tensor, cells: int, added: Tensor) -> Tensor:
    """The same on a GPU, where pixels that add to one cell wait for each other.

    Neighbouring pixels are given different copies of the cells, which are then added up.
    """
    width = codes.shape[-1]
    copies = max(1, min(width, TABLE_CELLS // cells))
    offsets = torch.arange(width, device=codes.device) % copies * cells
    table = added.new_zeros(copies * cells)
    table.scatter_add_(0, (codes + offsets).flatten(), added.flatten())
    return table.view(copies, cells).sum(0)


def _bins_on_device(likely: Tensor, kept: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Sums of the probabilities by class and bin, and the sums of their squares by pixel."""
    classes, wanted = likely.shape[1], number + 1
    first = torch.arange(0, classes * wanted, wanted, device=likely.device)[:, None, None]
    sums = likely.new_zeros(classes * wanted, dtype=torch.float64)
    for image, known in zip(likely, kept, strict=True):  # all at once would take too much memory
        values = torch.where(known, image, 0)
        sums += tally(equal_width_codes(values, number) + first, classes * wanted, values)
    return sums.view(classes, wanted), likely.square().sum(1)


def _bins_on_cpu(likely: Tensor, kept: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The same, block by block; most probabilities lie in the first bin and are only summed."""
    sums = np.zeros((likely.shape[1], number + 1))
    squares = torch.empty(kept.shape)
    for block in row_blocks(likely):
        place = block.image, block.rows
        sums += _block_sums(block.scores, kept[place].numpy(), number, squares[place].numpy())
    return torch.from_numpy(sums), squares


def _block_sums(planes: Array, kept: Array, number: int, squares: Array) -> Array:
    """Sums of the probabilities (C, h, W) of a block by class and bin; fills in the squares."""
    sums = np.zeros((len(planes), number + 1))
    edge = _float32_below(number)
    complete = kept.all()
    values, square, beyond = np.empty_like(squares), np.empty_like(squares), np.empty_like(kept)
    squares.fill(0)
    for plane, row in zip(planes, sums, strict=True):
        np.copyto(values, plane)
        if not complete:
            np.copyto(values, 0, where=~kept)
        np.multiply(values, values, out=square)
        np.add(squares, square, out=squares)
        np.greater(values, edge, out=beyond)
        high = values.ravel()[np.flatnonzero(beyond)].astype(np.float64)
        codes = np.ceil(high * number).astype(np.intp)
        row += np.bincount(codes, high, minlength=number + 1)
        row[1] = values.sum(dtype=np.float64) - row.sum()
    return sums


def _float32_below(number: int) -> np.float32:
    """The greatest float32 number that is at most 1 / M."""
    edge = np.float32(1 / number)
    return edge if float(edge) * number <= 1 else np.nextafter(edge, np.float32(0))
