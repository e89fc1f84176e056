import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from metrics.bootstrap import Bootstrap
from metrics.histogram import EXACT_PIXELS
from metrics.ranking import Ranking, auroc
from metrics.selective import (
    Misclassification,
    augrc,
    aurc,
    aurc_error_bound,
    error_map,
    prr,
    prr_original,
    risk_coverage_curve,
)
from tests.metrics.conftest import CLASSES, make_batch, part, updated
from utils.types import ForwardVariant, Prediction, Score


def ranked(scores, errors):
    """The exact ranking of pixels; ties share a level."""
    levels, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, errors, len(levels)).astype(np.int64)
    negatives = np.bincount(group, minlength=len(levels)).astype(np.int64) - positives
    return Ranking(levels.astype(np.float64), negatives, positives, exact=True)


def binned(scores, errors, bins):
    """The ranking of scores in [0, 1] known only by their bin."""
    coarse = ranked(np.minimum((scores * bins).astype(int), bins - 1), errors)
    return Ranking(coarse.levels, coarse.negatives, coarse.positives, exact=False)


def pixels(count=2000, seed=0, ties=None, error_rate=0.3):
    """Scores in [0, 1] that rise with the chance of an error; ``ties`` distinct values."""
    rng = np.random.default_rng(seed)
    errors = rng.random(count) < error_rate
    scores = np.clip(rng.beta(1, 3, count) + 0.3 * errors * rng.random(count), 0, 1)
    if ties:
        scores = np.round(scores * ties) / ties
    return scores, errors.astype(np.int64)


def published_prr(scores, errors):
    """The text of the reliability study step by step, over sorted pixels."""
    count = len(scores)
    mistakes = np.cumsum(errors[np.argsort(scores, kind="stable")]) / count
    rate = mistakes[-1]
    step = np.arange(count)
    position = (step + 1) / count
    by_score = mistakes[::-1]
    by_chance = rate * (1 - step / count)
    length = rate * count / 100
    oracle = np.where(step < math.floor(length), rate * (1 - step / length), 0)
    areas = [np.trapezoid(curve, position) for curve in (by_chance, by_score, oracle)]
    return (areas[0] - areas[1]) / (areas[0] - areas[2])


def msp(prediction):
    return 1 - prediction.logits.softmax(1).amax(1)


def energy(prediction):
    return -prediction.logits.logsumexp(1)


MSP = Score("msp", msp, highest=lambda classes: 1.0)
ENERGY = Score("energy", energy)


def metric_of(batch, prediction, scores=(MSP,), step=None, **options):
    return updated(Misclassification(CLASSES, scores, **options), batch, prediction, step)


def total(metric, score="msp"):
    return metric.compute()["total"]["misclassification"][score]


def valid_pixels(batch, prediction, function=msp):
    """Scores and errors of the labelled pixels."""
    valid = (batch["label"] != 255).numpy()
    wrong = (prediction.logits.argmax(1) != batch["label"]).numpy()
    return function(prediction).numpy()[valid].astype(np.float64), wrong[valid].astype(np.int64)


class TestFunctions:
    def test_perfect_reversed_and_constant_scores(self):
        _, errors = pixels()
        order = np.arange(len(errors)) / len(errors)
        assert prr(ranked(errors + order / 2, errors)) == pytest.approx(1, abs=1e-12)
        assert prr(ranked(1 - errors + order / 2, errors)) == pytest.approx(-1, abs=1e-12)
        assert prr(ranked(np.zeros(len(errors)), errors)) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("ties", [None, 20])
    def test_prr_is_two_auroc_minus_one(self, ties):
        scores, errors = pixels(ties=ties)
        assert prr(ranked(scores, errors)) == pytest.approx(2 * roc_auc_score(errors, scores) - 1)

    def test_prr_is_the_ratio_of_the_rejection_areas(self):
        """With areas over all coverages and an oracle that rejects every error first."""
        scores, errors = pixels(20_000, error_rate=0.2)
        mistakes = np.append(0, np.cumsum(errors[np.argsort(scores)])) / len(errors)
        rate, coverage = mistakes[-1], np.linspace(0, 1, len(mistakes))
        by_chance, oracle = rate / 2, rate**2 / 2
        ratio = (by_chance - np.trapezoid(mistakes, coverage)) / (by_chance - oracle)
        assert prr(ranked(scores, errors)) == pytest.approx(ratio, abs=1e-10)

    def test_prr_needs_errors_and_hits(self):
        scores, errors = pixels(100)
        assert prr(ranked(scores, np.zeros_like(errors))) is None
        assert prr(ranked(scores, np.ones_like(errors))) is None

    @pytest.mark.parametrize("count", [2, 50, 101, 1000])
    def test_prr_original_is_the_published_text(self, count):
        scores, errors = pixels(count, seed=count)
        errors[0] = 1
        scores = scores + np.linspace(0, 1e-9, count)
        assert len(np.unique(scores)) == count
        expected = published_prr(scores, errors)
        assert prr_original(ranked(scores, errors)) == pytest.approx(expected, abs=1e-12)

    def test_prr_original_averages_over_the_orders_of_ties(self):
        scores, errors = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 0, 0, 1])
        orders = [
            published_prr(np.arange(6), errors[list(order)])
            for order in itertools.permutations(range(6))
            if (np.diff(scores[list(order)]) >= 0).all()
        ]
        assert len(orders) == 12
        assert prr_original(ranked(scores, errors)) == pytest.approx(np.mean(orders))

    @pytest.mark.parametrize("rate", [0.15, 0.3, 0.6])
    def test_prr_original_is_the_corrected_one_scaled(self, rate):
        scores, errors = pixels(3000, error_rate=rate)
        scores = scores + np.linspace(0, 1e-9, len(scores))
        rate = errors.mean()
        scaled = prr(ranked(scores, errors)) * (1 - rate) / (1 - rate / 100)
        original = prr_original(ranked(scores, errors))
        assert 100 * original == pytest.approx(100 * scaled, abs=0.1)
        assert original != pytest.approx(prr(ranked(scores, errors)), abs=0.05)

    def test_prr_original_without_errors_or_with_one_pixel(self):
        assert prr_original(ranked(np.arange(9), np.zeros(9, np.int64))) is None
        assert prr_original(ranked(np.array([1.0]), np.array([1]))) is None
        assert prr_original(ranked(np.arange(9), np.ones(9, np.int64))) == pytest.approx(0)

    def test_aurc_is_the_mean_risk(self):
        scores, errors = pixels(ties=None)
        scores = scores + np.linspace(0, 1e-9, len(scores))
        risks = np.cumsum(errors[np.argsort(scores)]) / np.arange(1, len(errors) + 1)
        assert aurc(ranked(scores, errors)) == pytest.approx(risks.mean(), abs=1e-12)

    def test_aurc_averages_over_the_orders_of_ties(self):
        scores, errors = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0, 1])
        means = [
            np.mean(np.cumsum(errors[list(order)]) / np.arange(1, 7))
            for order in itertools.permutations(range(6))
            if (np.diff(scores[list(order)]) >= 0).all()
        ]
        assert np.ptp(means) > 0.1
        assert aurc(ranked(scores, errors)) == pytest.approx(np.mean(means), abs=1e-12)

    @pytest.mark.parametrize("value", [0, 1])
    def test_areas_when_all_is_right_or_wrong(self, value):
        ranking = ranked(np.arange(50) % 7, np.full(50, value))
        assert aurc(ranking) == pytest.approx(value, abs=1e-12)
        assert augrc(ranking) == pytest.approx(value / 2, abs=1e-12)

    def test_areas_without_pixels(self):
        empty = Ranking(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), exact=False)
        assert aurc(empty) is None
        assert augrc(empty) is None
        assert aurc_error_bound(empty) is None
        assert prr(empty) is None
        assert prr_original(empty) is None
        assert risk_coverage_curve(empty) == ([], [], [])

    def test_levels_without_pixels_change_nothing(self):
        scores, errors = pixels(ties=10)
        plain = ranked(scores, errors)
        spread = [np.zeros(2 * len(plain.levels), np.int64) for _ in range(2)]
        spread[0][::2], spread[1][::2] = plain.negatives, plain.positives
        sparse = Ranking(np.arange(2.0 * len(plain.levels)), *spread, exact=True)
        for function in (prr, prr_original, aurc, augrc, risk_coverage_curve):
            assert function(sparse) == function(plain)

    @pytest.mark.parametrize("ties", [None, 12])
    def test_augrc_follows_from_auroc_and_accuracy(self, ties):
        scores, errors = pixels(ties=ties)
        right = 1 - errors.mean()
        expected = (1 - roc_auc_score(errors, scores)) * right * (1 - right) + (1 - right) ** 2 / 2
        assert augrc(ranked(scores, errors)) == pytest.approx(expected, abs=1e-12)

    def test_augrc_is_the_area_under_its_curve(self):
        scores, errors = pixels()
        scores = scores + np.linspace(0, 1e-9, len(scores))
        mistakes = np.append(0, np.cumsum(errors[np.argsort(scores)])) / len(errors)
        area = auc(np.linspace(0, 1, len(mistakes)), mistakes)
        assert augrc(ranked(scores, errors)) == pytest.approx(area, abs=1e-12)

    def test_bound_holds_and_shrinks_with_the_bins(self):
        scores, errors = pixels(5000)
        exact = aurc(ranked(scores, errors))
        bounds = []
        for bins in (4, 32, 256):
            ranking = binned(scores, errors, bins)
            bounds.append(aurc_error_bound(ranking))
            assert abs(aurc(ranking) - exact) <= bounds[-1]
        assert bounds == sorted(bounds, reverse=True)
        assert bounds[-1] < 0.01
        assert aurc_error_bound(ranked(scores, errors)) == 0

    def test_bound_is_reached(self):
        """One bin holds all: the worst order has the errors first."""
        errors = np.array([1, 1, 0, 0, 0, 0, 0])
        unknown = Ranking(np.zeros(1), np.array([5]), np.array([2]), exact=False)
        worst = np.mean(np.cumsum(errors) / np.arange(1, 8))
        best = np.mean(np.cumsum(errors[::-1]) / np.arange(1, 8))
        middle = aurc(unknown)
        assert aurc_error_bound(unknown) == pytest.approx(max(worst - middle, middle - best))

    def test_curve_is_the_risk_among_the_accepted(self):
        scores, errors = pixels(1234)
        scores = scores + np.linspace(0, 1e-9, len(scores))
        mistakes = np.cumsum(errors[np.argsort(scores)])
        curve = risk_coverage_curve(ranked(scores, errors))
        assert len(curve.coverage) == len(curve.risk) == 100
        for percent in (1, 37, 50, 99, 100):
            accepted = math.ceil(percent * 1234 / 100)
            assert curve.coverage[percent - 1] == pytest.approx(accepted / 1234)
            assert curve.risk[percent - 1] == pytest.approx(mistakes[accepted - 1] / accepted)

    def test_bound_of_the_curve_holds_and_is_reached(self):
        scores, errors = pixels(5000)
        curve = risk_coverage_curve(binned(scores, errors, 16))
        exact = risk_coverage_curve(ranked(scores, errors))
        assert (np.abs(np.subtract(curve.risk, exact.risk)) <= curve.bound).all()
        assert 0 < curve.bound[79] < 0.05
        assert max(exact.bound) == 0
        unknown = Ranking(np.zeros(1), np.array([6]), np.array([4]), exact=False)
        part_of_bin = risk_coverage_curve(unknown, [40])  # 4 pixels, perhaps all of the errors
        assert part_of_bin.risk == pytest.approx([0.4])
        assert part_of_bin.bound == pytest.approx([1 - 0.4])

    def test_risk_of_ties_is_their_mean(self):
        curve = risk_coverage_curve(
            ranked(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 0])), [25, 50]
        )
        assert curve.risk == pytest.approx([0, 1 / 6])

    @pytest.mark.parametrize("change", [np.square, np.exp, lambda score: 5 * score - 3, np.log1p])
    def test_rising_maps_of_the_score_change_nothing(self, change):
        scores, errors = pixels(ties=50)
        before, after = ranked(scores, errors), ranked(change(scores), errors)
        for function in (prr, prr_original, aurc, augrc, risk_coverage_curve):
            assert function(after) == function(before)


class TestErrorMap:
    def test_right_wrong_and_void(self):
        logits = torch.tensor([[2.0, 0.0, 5.0], [1.0, 3.0, 0.0]]).view(1, 2, 1, 3)
        labels = torch.tensor([[[0, 0, 255]]], dtype=torch.uint8)
        assert error_map(Prediction(logits), labels).tolist() == [[[0, 1, 255]]]


class TestMisclassification:
    def test_agrees_with_scikit_learn(self, six_images):
        found = total(metric_of(*six_images))
        scores, errors = valid_pixels(*six_images)
        assert found["pixels"] == len(scores)
        assert found["error_rate"] == pytest.approx(100 * errors.mean())
        assert found["auroc"] == pytest.approx(100 * roc_auc_score(errors, scores))
        assert found["prr"] == pytest.approx(200 * roc_auc_score(errors, scores) - 100)
        expected = 100 * average_precision_score(errors, scores)
        assert found["aupr_error"] == pytest.approx(expected)
        expected = 100 * average_precision_score(1 - errors, -scores)
        assert found["aupr_success"] == pytest.approx(expected)
        fpr, tpr, _ = roc_curve(errors, scores, drop_intermediate=False)
        assert found["fpr95"] == pytest.approx(100 * fpr[np.argmax(tpr >= 0.95)])
        assert found["auroc_error_bound"] == found["prr_error_bound"] == 0

    def test_agrees_with_torchmetrics(self, six_images):
        found = total(metric_of(*six_images, scores=[ENERGY]), "energy")
        scores, errors = valid_pixels(*six_images, function=energy)
        # torchmetrics squashes scores outside [0, 1] by a sigmoid; ranks in float64 survive
        scores, errors = torch.tensor(scores).sigmoid(), torch.tensor(errors)
        assert found["auroc"] == pytest.approx(100 * binary_auroc(scores, errors).item(), abs=1e-4)
        expected = 100 * binary_average_precision(scores, errors).item()
        assert found["aupr_error"] == pytest.approx(expected, abs=1e-4)

    def test_risks_are_those_of_sorted_pixels(self, six_images):
        found = total(metric_of(*six_images))
        ranking = ranked(*valid_pixels(*six_images))
        assert found["aurc"] == pytest.approx(100 * aurc(ranking))
        assert found["augrc"] == pytest.approx(100 * augrc(ranking))
        curve = risk_coverage_curve(ranking)
        assert found["curve"]["risk"] == pytest.approx([100 * risk for risk in curve.risk])
        for percent in (50, 80, 90, 95):
            expected = 100 * curve.risk[percent - 1]
            assert found["risk_at_coverage"][str(percent)] == pytest.approx(expected)

    def test_histogram_counts_every_pixel(self, six_images):
        found = metric_of(*six_images, scores=[MSP, ENERGY]).compute()["total"]["misclassification"]
        scores, errors = valid_pixels(*six_images)
        pictured = found["msp"]["histogram"]
        for name, chosen in (("right", errors == 0), ("wrong", errors == 1)):
            expected, _ = np.histogram(scores[chosen], np.linspace(0, 1, 51))
            assert pictured[name] == expected.tolist()
        assert pictured["edges"] == pytest.approx(np.linspace(0, 1, 51))
        pictured = found["energy"]["histogram"]
        assert sum(pictured["right"]) == (errors == 0).sum()
        assert sum(pictured["wrong"]) == (errors == 1).sum()
        assert (np.diff(pictured["edges"]) > 0).all()

    def test_curves_are_short_and_in_percent(self, six_images):
        found = total(metric_of(*six_images))
        for name, fields in (("roc", ("fpr", "tpr")), ("pr", ("recall", "precision"))):
            for field in fields:
                values = found[name][field]
                assert 2 <= len(values) <= 101
                assert 0 <= min(values) <= max(values) <= 100
                assert max(values) > 1
        area = np.trapezoid(found["roc"]["tpr"], found["roc"]["fpr"]) / 100
        assert area == pytest.approx(found["auroc"], abs=0.5)

    @pytest.mark.parametrize("step", [1, 2, 4])
    def test_batches_of_any_size_add_up(self, six_images, step):
        whole = metric_of(*six_images, scores=[MSP, ENERGY], parity=True)
        parts = metric_of(*six_images, scores=[MSP, ENERGY], parity=True, step=step)
        assert parts.compute() == whole.compute()
        for group, sums in whole.sums.items():
            for name, value in sums.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(parts.sums[group][name], value)

    def test_order_of_the_images_changes_nothing(self, six_images):
        order = [4, 0, 5, 2, 1, 3]
        metric = metric_of(*part(*six_images, order), step=2)
        assert metric.compute() == metric_of(*six_images).compute()

    def test_void_pixels_change_only_the_published_ratio(self, six_images):
        batch, prediction = six_images
        wider = dict(batch)
        void = torch.full_like(batch["label"], 255)
        wider["label"] = torch.cat([batch["label"], void], 2)
        noise = 9 * torch.randn(prediction.logits.shape, generator=torch.Generator().manual_seed(3))
        logits = torch.cat([prediction.logits, noise], 3)
        before = total(metric_of(batch, prediction, parity=True))
        after = total(metric_of(wider, Prediction(logits), parity=True))
        originals = [each.pop("prr_original") for each in (before, after)]
        assert after == before
        assert originals[0] != pytest.approx(originals[1])

    def test_published_ratio_counts_void_as_errors(self, six_images):
        batch, prediction = six_images
        found = total(metric_of(batch, prediction, parity=True))
        scores = msp(prediction).double().flatten().numpy()
        assert len(np.unique(scores)) == len(scores)
        errors = (prediction.logits.argmax(1) != batch["label"]).flatten().long().numpy()
        assert (batch["label"] == 255).sum() > 50
        assert found["prr_original"] == pytest.approx(100 * published_prr(scores, errors), abs=1e-9)
        assert "prr_original" not in total(metric_of(batch, prediction))

    def test_all_right_and_all_void(self, six_images):
        batch, prediction = six_images
        right = dict(batch)
        right["label"] = prediction.logits.argmax(1).byte()
        found = total(metric_of(right, prediction, parity=True))
        assert found["error_rate"] == found["aurc"] == found["augrc"] == 0
        for name in ("prr", "auroc", "prr_original", "fpr95"):
            assert found[name] is None
        void = dict(batch)
        void["label"] = torch.full_like(batch["label"], 255)
        found = total(metric_of(void, prediction))
        assert found["pixels"] == 0
        for name in ("error_rate", "prr", "auroc", "aurc", "augrc", "aupr_error", "fpr95"):
            assert found[name] is None
        assert found["risk_at_coverage"] == {"50": None, "80": None, "90": None, "95": None}

    def test_many_pixels_have_a_bound_that_holds(self):
        """More pixels than are kept: numbers from the histogram, with their bounds."""
        batch, prediction = make_batch(4, size=(300, 301), seed=2)
        scores, errors = valid_pixels(batch, prediction)
        assert len(scores) > EXACT_PIXELS
        found = total(metric_of(batch, prediction))
        exact = ranked(scores, errors)
        for name, value in (("auroc", auroc(exact)), ("prr", prr(exact)), ("aurc", aurc(exact))):
            bound = found[f"{name}_error_bound"]
            assert 0 < bound < 0.01
            assert abs(found[name] - 100 * value) <= bound
        assert abs(found["augrc"] - 100 * augrc(exact)) <= found["augrc_error_bound"]
        for percent, risk in found["risk_at_coverage"].items():
            expected = 100 * risk_coverage_curve(exact, [int(percent)]).risk[0]
            assert abs(risk - expected) <= found["risk_error_bound"]
        assert 0 < found["risk_error_bound"] < 0.01

    def test_several_scores_and_groups(self, six_images):
        results = metric_of(*six_images, scores=[MSP, ENERGY], per_scene=True).compute()
        assert set(results["condition"]) == {"fog", "night", "rain"}
        fog = results["condition"]["fog"]["misclassification"]
        assert set(fog) == {"msp", "energy"}
        scores, errors = valid_pixels(*part(*six_images, [0, 3]), function=energy)
        assert fog["energy"]["auroc"] == pytest.approx(100 * roc_auc_score(errors, scores))
        assert set(results["scene"]) == {"scene0", "scene1"}

    def test_intervals_hold_the_value(self, six_images):
        metric = metric_of(*six_images, parity=True, bootstrap=Bootstrap(60, seed=1))
        part_of_all = metric.compute()["total"]
        intervals = part_of_all["intervals"]
        for name in ("auroc", "prr", "prr_original", "aurc", "augrc", "fpr95", "error_rate"):
            low, high = intervals[f"misclassification.msp.{name}"]
            assert low < part_of_all["misclassification"]["msp"][name] < high

    def test_wants_what_its_scores_want(self):
        variant = ForwardVariant("twice", lambda predict, network, images: predict(images))
        scores = [
            Score("a", msp, variant, frozenset({"temperature"})),
            Score("b", msp, variant, frozenset({"member_logits"})),
        ]
        metric = Misclassification(CLASSES, scores)
        assert metric.variant is variant
        assert metric.needs == {"temperature", "member_logits"}

    def test_scores_that_are_no_numbers_are_refused(self, six_images):
        broken = Score("broken", lambda prediction: msp(prediction) / 0 * 0)
        with pytest.raises(ValueError, match="finite"):
            metric_of(*six_images, scores=[broken]).compute()

    def test_units_of_all_numbers(self, six_images):
        found = total(metric_of(*six_images, parity=True))
        assert set(found) == set(Misclassification.units)
