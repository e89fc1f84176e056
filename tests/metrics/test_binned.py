import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn import metrics as sklearn

from metrics.binned import BINS, binned_counts, published_statistics


def pixels(count=50_000, seed=0, share=0.1):
    """Scores of which some are outside [0, 1], and truth with some pixels of neither kind."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(count, generator=generator) < share).to(torch.uint8)
    scores = 0.3 + 0.25 * torch.randn(count, generator=generator) + 0.3 * truth
    truth[torch.rand(count, generator=generator) < 0.1] = 255
    return scores, truth


def published(scores, truth):
    return published_statistics(binned_counts(scores, truth))


def expanded(counts, size):
    """The levels that the published code hands to scikit-learn, as often as it does."""
    often = (counts / counts.sum() * size).astype("uint32")
    return np.repeat(np.arange(1, BINS + 1) / 100, often)


def by_lists(known, unknown):
    """AUROC, FPR95 and AUPRC in percent from lists of numbers."""
    lists = expanded(known, 1e5), expanded(unknown, 1e5)
    truth, levels = np.repeat([0, 1], [len(each) for each in lists]), np.concatenate(lists)
    fpr, tpr, _ = sklearn.roc_curve(truth, levels)
    nearest = np.abs(tpr - 0.95).argmin()
    nearest -= tpr[nearest] == 1
    share = known.sum() / (known.sum() + unknown.sum())
    rows = [(known, share), (unknown, 1 - share)]
    weights = [(row / row.sum() * (1e7 * part)).astype("uint32") for row, part in rows]
    precision = sklearn.average_precision_score(
        np.repeat([0, 1], BINS),
        np.tile(np.arange(1, BINS + 1) / 100, 2),
        sample_weight=np.concatenate(weights),
    )
    return [100 * each for each in (sklearn.auc(fpr, tpr), fpr[nearest], precision)]


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_numpy(seed):
    scores, truth = pixels(seed=seed)
    scores[:200] = torch.arange(200) / 100  # the edges themselves
    counts = binned_counts(scores.view(100, 500), truth.view(100, 500)).numpy()
    for kind in (0, 1):
        mine = scores[truth == kind].numpy()
        expected, _ = np.histogram(mine, bins=BINS, range=(0, 1))
        assert counts[kind, :BINS].tolist() == expected.tolist()
        assert counts[kind].sum() == len(mine)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.5, 0.003])
def test_statistics_are_those_of_the_expanded_lists(seed, share):
    counts = binned_counts(*pixels(seed=seed, share=share))
    result = published_statistics(counts)
    names = ("auroc_original", "fpr95_original", "aupr_original")
    known, unknown = counts[:, :BINS].numpy()
    assert [result[name] for name in names] == pytest.approx(by_lists(known, unknown), abs=1e-9)


def test_straight_parts_of_the_curve_have_no_corners():
    counts = torch.zeros(2, BINS + 1, dtype=torch.int64)
    counts[:, [10, 20, 30, 40, 50]] = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    # TPR 0.25, 0.5, 0.75 and 1 at equal steps; only the first and the last are corners
    result = published_statistics(counts)
    assert result["fpr95_original"] == pytest.approx(by_lists(*counts[:, :BINS].numpy())[1])
    assert result["fpr95_original"] == pytest.approx(20)


def test_rare_bins_vanish():
    counts = torch.zeros(2, BINS + 1, dtype=torch.int64)
    counts[0, 10], counts[1, 80] = 1_000_000, 1_000_000
    clean = published_statistics(counts)
    counts[0, 90], counts[1, 5] = 9, 9  # less than one in 1e5
    assert published_statistics(counts)["auroc_original"] == clean["auroc_original"] == 100


def test_scores_outside_are_counted():
    scores = torch.tensor([-0.1, 0.0, 1.0, 1.1, 0.5, float("nan"), float("inf"), -3.0])
    truth = torch.tensor([0, 0, 1, 1, 255, 1, 0, 255], dtype=torch.uint8)
    assert published(scores, truth)["pixels_outside"] == {"in": 2, "out": 2}


def test_lost_pixels_change_the_published_numbers():
    generator = torch.Generator().manual_seed(1)
    known = 0.1 + 0.25 * torch.randn(400_000, generator=generator)
    unknown = 0.7 + 0.3 * torch.randn(400_000, generator=generator)
    scores = torch.cat([known, unknown])
    truth = torch.tensor([0, 1], dtype=torch.uint8).repeat_interleave(400_000)
    binned = published(scores, truth)
    exact = 100 * (known >= unknown.quantile(0.05)).double().mean().item()
    assert exact == pytest.approx(100 * norm(0.1, 0.25).sf(norm(0.7, 0.3).ppf(0.05)), abs=0.5)
    # of the distributions cut to [0, 1]; the level is that of a bin, a hundredth wide
    tails = [norm(mean, sd) for mean, sd in ((0.1, 0.25), (0.7, 0.3))]
    kept = [tail.cdf(1) - tail.cdf(0) for tail in tails]
    level = tails[1].ppf(tails[1].cdf(0) + 0.05 * kept[1])
    expected = 100 * (tails[0].cdf(1) - tails[0].cdf(level)) / kept[0]
    assert binned["fpr95_original"] == pytest.approx(expected, abs=2)
    assert binned["fpr95_original"] > exact + 10
    assert binned["pixels_outside"]["in"] == int(((known < 0) | (known > 1)).sum())


@pytest.mark.parametrize("truth", [0, 1, 255])
def test_without_pixels_of_both_kinds_nothing_is_defined(truth):
    scores = torch.rand(100, generator=torch.Generator().manual_seed(0))
    result = published(scores, torch.full((100,), truth, dtype=torch.uint8))
    assert result.pop("pixels_outside") == {"in": 0, "out": 0}
    assert set(result.values()) == {None}


def test_one_level_for_all():
    counts = torch.zeros(2, BINS + 1, dtype=torch.int64)
    counts[:, 3] = 7
    result = published_statistics(counts)
    assert result["auroc_original"] == 50
    assert result["fpr95_original"] == 0  # the corner before the one with all
