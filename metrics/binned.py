"""The pixel metrics of the published evaluation of AbeT: histograms of 100 bins on [0, 1].

They are those of the code of "Entropy Maximization and Meta Classification for Out-of-Distribution
Detection" (Chan et al. 2021), on which AbeT builds, computed from the counts alone instead of
from lists of that many numbers. Pixels whose score is outside [0, 1] are lost there; here they
are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.histogram import LARGEST_CODES, NEITHER
from metrics.ranking import Ranking, auroc, average_precision, percent

BINS = 100
BALANCED = 1e5  # pixels of each kind behind AUROC and FPR
NATURAL = 1e7  # pixels of both kinds together behind the area under precision and recall
LEVELS = np.arange(1, BINS + 1) / BINS  # the score that each bin stands for

Counts = NDArray[np.int64]


def binned_counts(scores: Tensor, truth: Tensor) -> Tensor:
    """How many pixels of each truth lie in each bin, without waiting for the device.

    Bins are closed below and open above, the last is closed, too.

    Args:
        scores: floating point, any shape, in the published scale.
        truth: uint8, the same shape; only 0 and 1 count.

    Returns:
        (2, BINS + 1), int64, row 0 for truth 0 and row 1 for truth 1; the last column counts the
        scores outside [0, 1], also those that are not finite.
    """
    assert scores.shape == truth.shape, "every pixel has a score and a truth"
    columns, rows = BINS + 1, NEITHER + 1
    inner = torch.linspace(0, 1, columns, dtype=torch.float64, device=scores.device)[1:-1].float()
    counts = torch.zeros(rows * columns, dtype=torch.int64, device=scores.device)
    flat, kinds = scores.detach().float().flatten(), truth.flatten()
    # counts of histc are float32, exact up to 2^24
    for part, kind in zip(flat.split(LARGEST_CODES), kinds.split(LARGEST_CODES), strict=True):
        places = torch.bucketize(part, inner, right=True, out_int32=True)
        places = places.masked_fill_(~((part >= 0) & (part <= 1)), BINS)
        codes = places.add_(kind.clamp(max=NEITHER).int(), alpha=columns).float()
        counts += torch.histc(codes, rows * columns, 0, rows * columns).long()
    return counts.view(rows, columns)[:NEITHER].clone()


def published_statistics(counts: Tensor) -> dict[str, Any]:
    """The published numbers in percent, None where there are no pixels of one kind.

    ``auroc_original`` and ``fpr95_original`` follow from 1e5 pixels of each kind,
    ``aupr_original`` from 1e7 in their natural ratio; the counts of the bins are scaled to them
    and truncated, so that rare ones vanish. The FPR is that of the corner of the ROC curve whose
    TPR is nearest to 95 %, also from below; if all unknown pixels are found there, of the corner
    before it. ``pixels_outside`` is how many known (``in``) and unknown (``out``) pixels have a
    score outside [0, 1] and are left out.

    Args:
        counts: (2, BINS + 1), sums of ``binned_counts``.
    """
    array = counts.cpu().numpy().astype(np.int64, copy=False)
    known, unknown = array[:, :BINS]
    balanced = _rescaled(known, BALANCED), _rescaled(unknown, BALANCED)
    share = known.sum() / max((known + unknown).sum(), 1)
    natural = _rescaled(known, NATURAL * share), _rescaled(unknown, NATURAL * (1 - share))
    return {
        "auroc_original": percent(auroc(_ranking(*balanced))),
        "fpr95_original": percent(_fpr95(_ranking(*balanced))),
        "aupr_original": percent(average_precision(_ranking(*natural))),
        "pixels_outside": {"in": int(array[0, BINS]), "out": int(array[1, BINS])},
    }


def _rescaled(counts: Counts, size: float) -> Counts:
    """Counts scaled to about ``size`` pixels in all, truncated; the order of operations matters."""
    return (counts / max(counts.sum(), 1) * size).astype(np.int64)


def _ranking(known: Counts, unknown: Counts) -> Ranking:
    """The ranking by the bins that are not empty."""
    occupied = (known + unknown) > 0
    return Ranking(LEVELS[occupied], known[occupied], unknown[occupied], exact=True)


def _fpr95(ranked: Ranking) -> float | None:
    """The FPR at the corner of the ROC curve whose TPR is nearest to 0.95, the first of equals."""
    if not ranked.defined:
        return None
    found, alarms = np.cumsum(ranked.positives[::-1]), np.cumsum(ranked.negatives[::-1])
    if len(found) > 2:  # scikit-learn's roc_curve leaves out points of equal steps
        bends = (np.diff(found, 2) != 0) | (np.diff(alarms, 2) != 0)
        corners = np.concatenate(([True], bends, [True]))
        found, alarms = found[corners], alarms[corners]
    found, alarms = np.append(0, found), np.append(0, alarms)
    nearest = int(np.abs(found / found[-1] - 0.95).argmin())
    if found[nearest] == found[-1]:
        nearest -= 1
    return float(alarms[nearest] / alarms[-1])
