import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from metrics import ranking as ranks
from metrics.histogram import ScoreBins, rank_sums, resampled_rank_sums
from metrics.ranking import (
    CURVE_POINTS,
    auroc,
    auroc_error_bound,
    average_precision,
    average_precision_error_bound,
    bars,
    best_f1,
    f1_error_bound,
    flipped,
    fpr_at_tpr,
    fpr_error_bound,
    percent,
    percents,
    precision_recall_curve,
    ranking,
    ranking_of_values,
    roc_curve,
)

VOID = 255


def continuous(generator, truth):
    return torch.rand(len(truth), generator=generator) * 0.7 + 0.3 * truth.eq(1)


def skewed(generator, truth):
    return (continuous(generator, truth) * 4 - 8).sigmoid()


def tied(generator, truth):
    return continuous(generator, truth).mul(8).round() / 8


def saturated(generator, truth):
    return (continuous(generator, truth) * 3 - 1).clamp(0, 1)


def constant(generator, truth):
    return torch.full((len(truth),), 0.3)


def unbounded(generator, truth):
    return torch.randn(len(truth), generator=generator) * 5 + 4 * truth.eq(1)


def huge(generator, truth):
    return unbounded(generator, truth) * 1e9


BOUNDED = [continuous, skewed, tied, saturated, constant]
UNBOUNDED = [unbounded, huge]
TIED = [tied, saturated, constant]  # their bins look as if the scores in them may differ


def pixels(make, count=20_000, share=0.05, seed=0):
    """Scores and truth with a tenth of void."""
    generator = torch.Generator().manual_seed(seed)
    truth = (torch.rand(count, generator=generator) < share).to(torch.uint8)
    truth[torch.rand(count, generator=generator) < 0.1] = VOID
    return make(generator, truth), truth


def ranked(make, *, exact, seed=0):
    """A ranking of ours, and the pixels that count for the references."""
    scores, truth = pixels(make, seed=seed)
    bins = ScoreBins(None if make in UNBOUNDED else 1.0)
    sums = rank_sums("score", bins, scores, truth)
    if not exact:
        del sums["score.exact"]
    known = truth != VOID
    return ranking("score", bins, sums), scores[known].numpy(), truth[known].numpy()


def references(scores, truth):
    """AUROC, average precision, FPR at 95 % TPR and the best F1 of scikit-learn."""
    fpr, tpr, _ = sklearn.roc_curve(truth, scores, drop_intermediate=False)
    precision, recall, _ = sklearn.precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return (
        sklearn.roc_auc_score(truth, scores),
        sklearn.average_precision_score(truth, scores),
        fpr[tpr >= 0.95].min(),
        f1.max(),
    )


def ours(ranking):
    return auroc(ranking), average_precision(ranking), fpr_at_tpr(ranking), best_f1(ranking)[0]


def bounds(ranking):
    return (
        auroc_error_bound(ranking),
        average_precision_error_bound(ranking),
        fpr_error_bound(ranking),
        f1_error_bound(ranking),
    )


@pytest.mark.parametrize("make", BOUNDED + UNBOUNDED)
def test_exact_values_give_what_scikit_learn_gives(make):
    found, scores, truth = ranked(make, exact=True)
    assert found.exact
    assert ours(found) == pytest.approx(references(scores, truth), abs=1e-12)
    assert ours(flipped(found)) == pytest.approx(references(-scores, 1 - truth), abs=1e-12)
    assert bounds(found) == (0, 0, 0, 0)


@pytest.mark.parametrize("make", BOUNDED + UNBOUNDED)
@pytest.mark.parametrize("seed", range(3))
def test_a_histogram_is_within_its_bounds_of_scikit_learn(make, seed):
    found, scores, truth = ranked(make, exact=False, seed=seed)
    assert not found.exact
    for mine, binned, reference in (
        (found, bounds(found), references(scores, truth)),
        (flipped(found), bounds(flipped(found)), references(-scores, 1 - truth)),
    ):
        for value, bound, expected in zip(ours(mine), binned, reference, strict=True):
            assert abs(value - expected) <= bound + 1e-12
            assert 0 <= bound <= (1 if make in TIED else 0.01)


@pytest.mark.parametrize("make", [tied, constant])
def test_a_histogram_of_tied_scores_is_exact(make):
    found, scores, truth = ranked(make, exact=False)
    assert ours(found) == pytest.approx(references(scores, truth), abs=1e-12)


def test_bounded_scores_are_far_closer_than_needed():
    scores, truth = pixels(continuous, count=400_000)
    bins = ScoreBins(1.0)
    known = truth != VOID
    found = ranking("score", bins, rank_sums("score", bins, scores, truth))
    assert not found.exact
    area, precision, fpr, _ = references(scores[known].numpy(), truth[known].numpy())
    assert auroc(found) == pytest.approx(area, abs=3e-7)
    assert average_precision(found) == pytest.approx(precision, abs=3e-6)
    assert fpr_at_tpr(found) == pytest.approx(fpr, abs=1e-5)


@pytest.mark.parametrize("make", [continuous, tied, unbounded])
def test_agrees_with_torchmetrics_in_float64(make):
    found, scores, truth = ranked(make, exact=True)
    values, labels = torch.from_numpy(scores).double(), torch.from_numpy(truth).long()
    values = (values - values.min()) / (values.max() - values.min())  # it squashes other ranges
    assert auroc(found) == pytest.approx(float(BinaryAUROC()(values, labels)), abs=1e-6)
    expected = float(BinaryAveragePrecision()(values, labels))
    assert average_precision(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "change", [lambda s: s.double().exp() * 3 - 7, lambda s: s.double() ** 3, lambda s: s * 2 + 1]
)
def test_a_strictly_increasing_map_of_the_scores_changes_nothing(change):
    scores, truth = pixels(saturated)
    known = truth != VOID
    scores, truth = scores[known], truth[known].numpy()
    first = ranking_of_values(scores.numpy(), truth)
    second = ranking_of_values(change(scores).numpy(), truth)
    assert ours(first) == ours(second)
    assert roc_curve(first) == roc_curve(second)


def test_hand_worked_case():
    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.4])
    found = ranking_of_values(scores, np.array([0, 0, 1, 1, 1]))
    assert found.levels.tolist() == [0.1, 0.35, 0.4, 0.8]
    assert found.negatives.tolist() == [1, 0, 1, 0]
    assert found.positives.tolist() == [0, 1, 1, 1]
    assert auroc(found) == pytest.approx((1 + 1.5 + 2) / 6)
    assert average_precision(found) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert fpr_at_tpr(found) == 0.5
    assert fpr_at_tpr(found, 1 / 3) == 0
    assert best_f1(found) == (pytest.approx(6 / 7), 0.35)
    assert roc_curve(found) == {
        "fpr": [0, 0, 0.5, 0.5, 1],
        "tpr": pytest.approx([0, 1 / 3, 2 / 3, 1, 1]),
    }
    assert precision_recall_curve(found) == {
        "recall": pytest.approx([1 / 3, 2 / 3, 1]),
        "precision": pytest.approx([1, 2 / 3, 3 / 4]),
    }


def test_perfect_reversed_and_constant_scores():
    truth = np.repeat([0, 1], [90, 10])
    rising = np.arange(100.0)
    assert ours(ranking_of_values(rising, truth)) == (1, 1, 0, 1)
    area, precision, fpr, f1 = ours(ranking_of_values(-rising, truth))
    assert (area, fpr) == (0, 1)
    assert precision < 0.1
    assert f1 == pytest.approx(20 / 110)
    assert ours(ranking_of_values(np.ones(100), truth)) == pytest.approx((0.5, 0.1, 1, 20 / 110))


@pytest.mark.parametrize("truth", [[0, 0, 0], [1, 1, 1], []])
def test_one_kind_alone_is_undefined(truth):
    for exact in (True, False):
        bins = ScoreBins(1.0)
        kinds = torch.tensor(truth, dtype=torch.uint8)
        sums = rank_sums("a", bins, torch.rand(len(truth)), kinds)
        if not exact:
            del sums["a.exact"]
        found = ranking("a", bins, sums)
        for one in (found, flipped(found)):
            assert ours(one) == (None,) * 4
            assert bounds(one) == (None,) * 4
            assert best_f1(one)[1] is None
            assert roc_curve(one) == {"fpr": [], "tpr": []}
            assert precision_recall_curve(one) == {"recall": [], "precision": []}
        for highest in (1.0, None):
            edges, negatives, positives = bars(found, highest)
            assert len(edges) == 51
            assert (sum(negatives), sum(positives)) == (truth.count(0), truth.count(1))


@pytest.mark.parametrize("make", [continuous, saturated, unbounded])
@pytest.mark.parametrize("exact", [True, False])
def test_the_threshold_of_the_best_f1_selects_what_was_counted(make, exact):
    found, scores, truth = ranked(make, exact=exact)
    f1, threshold = best_f1(found)
    chosen = scores.astype(np.float64) >= threshold
    assert sklearn.f1_score(truth, chosen) == pytest.approx(f1, abs=1e-12 if exact else 2e-4)


@pytest.mark.parametrize("make", BOUNDED + UNBOUNDED)
@pytest.mark.parametrize("exact", [True, False])
def test_curves_are_short_and_look_like_the_long_ones(make, exact):
    found, scores, truth = ranked(make, exact=exact)
    roc = roc_curve(found)
    fpr, tpr = np.array(roc["fpr"]), np.array(roc["tpr"])
    assert len(fpr) == len(tpr) <= CURVE_POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(auroc(found), abs=1e-3)
    assert np.diff(tpr + fpr).max() <= 0.0201 or len(fpr) < CURVE_POINTS
    pr = precision_recall_curve(found)
    recall, precision = np.array(pr["recall"]), np.array(pr["precision"])
    assert len(recall) == len(precision) <= CURVE_POINTS
    assert (np.diff(recall) > 0).all()
    assert recall[-1] == 1
    assert precision[-1] >= truth.mean() - 1e-12
    if exact:
        full_precision, full_recall, _ = sklearn.precision_recall_curve(truth, scores)
        for r, p in zip(recall, precision, strict=True):
            assert (np.abs(full_recall - r) + np.abs(full_precision - p)).min() < 1e-12


@pytest.mark.parametrize("make", [*BOUNDED, *UNBOUNDED])
def test_bars_hold_every_pixel(make):
    found, scores, truth = ranked(make, exact=True)
    highest = None if make in UNBOUNDED else 1.0
    edges, negatives, positives = bars(found, highest)
    assert len(edges) == 51
    assert edges == sorted(edges)
    for counts, kind in ((negatives, 0), (positives, 1)):
        inside = scores[truth == kind].clip(edges[0], edges[-1])
        # float32 edges would move scores that lie on one
        expected, _ = np.histogram(inside.astype(np.float64), edges)
        assert counts == expected.tolist()


def test_bars_of_an_unbounded_score_leave_out_its_tails():
    scores = np.append(np.linspace(-3, 5, 10_000), [1e9, -1e9])
    edges, negatives, _ = bars(ranking_of_values(scores, np.zeros(10_002, np.int64)), None)
    assert -3 < edges[0] < -2.9
    assert 4.9 < edges[-1] < 5
    assert sum(negatives) == 10_002


@pytest.mark.parametrize("highest", [1.0, None])
def test_scores_that_are_not_finite_are_refused(highest):
    scores, truth = pixels(continuous, count=1000)
    truth[:4] = torch.tensor([0, 1, 1, VOID], dtype=torch.uint8)
    bins = ScoreBins(highest)
    scores[3] = np.nan  # of no consequence at a void pixel
    sums = rank_sums("energy", bins, scores, truth)
    assert ranking("energy", bins, sums).negatives.sum() == (truth == 0).sum()
    scores[:3] = torch.tensor([np.inf, np.nan, -np.inf])
    known = int((truth < 2).sum())
    sums = rank_sums("energy", bins, scores, truth)
    with pytest.raises(ValueError, match=f"energy is not finite .* at 3 of {known} pixels"):
        ranking("energy", bins, sums)


def test_more_pixels_than_are_kept_exactly_are_binned(monkeypatch):
    monkeypatch.setattr("metrics.histogram.EXACT_PIXELS", 15_000)
    scores, truth = pixels(continuous)
    bins = ScoreBins(1.0)
    first, second = (
        rank_sums("a", bins, scores[part], truth[part])
        for part in (slice(0, 12_000), slice(12_000, None))
    )
    assert ranking("a", bins, first).exact
    both = ranking("a", bins, {name: first[name] + second[name] for name in first})
    whole = ranking("a", bins, rank_sums("a", bins, scores, truth))
    assert not both.exact
    for mine, other in zip(both, whole, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_exact_and_merged_results_do_not_depend_on_the_order():
    scores, truth = pixels(tied)
    bins = ScoreBins(1.0)
    parts = [
        rank_sums("a", bins, scores[i : i + 3000], truth[i : i + 3000])
        for i in range(0, 20_000, 3000)
    ]
    found = []
    for order in (parts, parts[::-1]):
        total = order[0]
        for part in order[1:]:
            total = {name: total[name] + part[name] for name in total}
        found.append(ranking("a", bins, total))
    assert found[0].exact
    assert ours(found[0]) == ours(found[1])
    assert roc_curve(found[0]) == roc_curve(found[1])


def test_resampled_sums_rank_almost_alike():
    scores, truth = pixels(continuous)
    bins = ScoreBins(1.0)
    sums = rank_sums("a", bins, scores, truth)
    coarse = ranking("a", bins, resampled_rank_sums(sums))
    assert len(coarse.levels) <= 1024
    assert ours(coarse) == pytest.approx(ours(ranking("a", bins, sums)), abs=2e-3)
    doubled = {name: 2 * value for name, value in resampled_rank_sums(sums).items()}
    assert auroc(ranking("a", bins, doubled)) == auroc(coarse)


def test_thin_bins_are_in_random_order_and_thick_ones_are_ties():
    negatives = np.array([10**6, 30, 0])
    thin = ranks.Ranking(np.arange(3.0), negatives, np.array([0, 1, 9]), exact=False)
    # the tenth positive has half of the bin's 30 negatives before it
    assert average_precision(thin) == pytest.approx((9 + 10 / 25) / 10)
    thick = thin._replace(negatives=np.array([1000, 30, 0]))
    assert average_precision(thick) == pytest.approx((9 + 10 / 40) / 10)
    # the last of nine positives in random order has 9/10 of the negatives before it
    spread = ranks.Ranking(np.arange(2.0), np.array([10**6, 30]), np.array([0, 9]), exact=False)
    assert fpr_at_tpr(spread, 1.0) == pytest.approx(27 / (10**6 + 30))
    assert fpr_at_tpr(spread, 0.5) == pytest.approx(15 / (10**6 + 30))
    assert fpr_at_tpr(spread._replace(exact=True), 0.5) == pytest.approx(30 / (10**6 + 30))
    exact = thin._replace(exact=True)
    assert average_precision(exact) == pytest.approx((9 + 10 / 40) / 10)


def test_percent():
    assert percent(0.25) == 25
    assert percent(None) is None
    assert percents({"fpr": [0.0, 0.5]}) == {"fpr": [0, 50]}
