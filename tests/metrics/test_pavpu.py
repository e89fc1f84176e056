import numpy as np
import pytest
import torch

from metrics.bootstrap import Bootstrap
from metrics.histogram import EXACT_PIXELS
from metrics.pavpu import (
    PatchAccuracyVsUncertainty,
    certainty,
    patch_accuracy,
    patch_uncertainty,
    upper_ends,
)
from metrics.ranking import Ranking
from tests.metrics.conftest import CLASSES, make_batch, updated
from utils.types import ForwardVariant, Prediction, Score


def msp(prediction):
    return 1 - prediction.logits.softmax(1).amax(1)


def energy(prediction):
    return -prediction.logits.logsumexp(1)


MSP = Score("msp", msp, highest=lambda classes: 1.0)
ENERGY = Score("energy", energy)


def patches_by_loops(batch, prediction, function, size, accuracy_threshold):
    """Mean score and accuracy of every whole patch with a labelled pixel."""
    scores = function(prediction).double().numpy()
    labels, predicted = batch["label"].numpy(), prediction.logits.argmax(1).numpy()
    uncertainty, accurate = [], []
    count, height, width = labels.shape
    for image in range(count):
        for top in range(0, height - size + 1, size):
            for left in range(0, width - size + 1, size):
                patch = image, slice(top, top + size), slice(left, left + size)
                valid = labels[patch] != 255
                if valid.any():
                    right = (predicted[patch] == labels[patch])[valid]
                    uncertainty.append(scores[patch][valid].mean())
                    accurate.append(right.mean() > accuracy_threshold)
    return np.array(uncertainty), np.array(accurate)


def percentages(uncertainty, accurate, threshold):
    """p(accurate|certain), p(uncertain|inaccurate) and PAvPU from patches, in percent."""
    certain = uncertainty <= threshold
    return (
        100 * accurate[certain].mean() if certain.any() else None,
        100 * (~certain)[~accurate].mean() if (~accurate).any() else None,
        100 * (accurate == certain).mean(),
    )


def metric_of(batch, prediction, scores=(MSP,), step=None, **options):
    return updated(PatchAccuracyVsUncertainty(CLASSES, scores, **options), batch, prediction, step)


def total(metric, score="msp"):
    return metric.compute()["total"]["pavpu"][score]


class TestPatches:
    def test_worked_example(self):
        """Two patches of 2x2 in 2x5 pixels: one with a void pixel, one half right."""
        errors = torch.tensor([[[0, 1, 0, 1, 0], [0, 255, 0, 1, 0]]], dtype=torch.uint8)
        pixels, inaccurate = patch_accuracy(errors, 2, 0.5)
        assert pixels.tolist() == [[[3, 4]]]
        assert inaccurate.tolist() == [[[0, 1]]]
        assert patch_accuracy(errors, 2, 0.49).inaccurate.tolist() == [[[0, 0]]]
        scores = torch.tensor([[[0.2, 0.4, 0.1, 0.1, 9.0], [0.6, torch.nan, 0.1, 0.5, 9.0]]])
        assert patch_uncertainty(scores, errors, pixels, 2).tolist() == [
            [pytest.approx([0.4, 0.2])]
        ]

    def test_patch_without_labels_is_neither(self):
        void = torch.full((1, 4, 4), 255, dtype=torch.uint8)
        pixels, inaccurate = patch_accuracy(void, 4, 0.5)
        assert inaccurate.tolist() == [[[255]]]
        scores = torch.full((1, 4, 4), torch.nan)
        assert patch_uncertainty(scores, void, pixels, 4).tolist() == [[[0.0]]]

    @pytest.mark.parametrize("size", [3, 10])
    def test_accuracy_at_the_threshold_is_inaccurate(self, size):
        """Also where the share has no exact binary value."""
        for right in range(1, size**2):
            errors = (torch.arange(size**2) >= right).byte().view(1, size, size)
            assert patch_accuracy(errors, size, right / size**2).inaccurate.item() == 1
            assert patch_accuracy(errors, size, (right - 1) / size**2).inaccurate.item() == 0


class TestUpperEnds:
    def test_next_level_of_every_bin(self):
        some = Ranking(np.array([0.0, 0.5, 0.75]), *np.ones((2, 3), int), exact=False)
        ends = upper_ends(some, np.array([0, 0.25, 0.5, 0.75]))
        assert ends.tolist() == [0.25, 0.75, 1.0]
        assert upper_ends(some._replace(exact=True), np.zeros(4)).tolist() == [0, 0.5, 0.75]


class TestCertainty:
    def test_worked_example(self):
        """Patches at 1: 3 accurate; at 2: 1 accurate, 2 inaccurate; at 3: 4 inaccurate."""
        ranking = Ranking(np.array([1.0, 2, 3]), np.array([3, 1, 0]), np.array([0, 2, 4]), True)
        assert certainty(ranking, 2.0) == pytest.approx((4 / 6, 4 / 6, 8 / 10))
        assert certainty(ranking, 1.5) == pytest.approx((1, 1, 9 / 10))
        assert certainty(ranking, 0.0) == (None, 1, 6 / 10)

    def test_undefined_shares_are_none(self):
        ranking = Ranking(np.array([1.0]), np.array([3]), np.array([0]), True)
        assert certainty(ranking, 1.0) == (1, None, 1)
        empty = Ranking(np.zeros(0), np.zeros(0, int), np.zeros(0, int), True)
        assert certainty(empty, 1.0) == (None, None, None)


class TestPatchAccuracyVsUncertainty:
    @pytest.mark.parametrize(("size", "threshold"), [(4, 0.5), (2, 0.5), (3, 0.8), (1, 0.0)])
    @pytest.mark.parametrize("score", [MSP, ENERGY])
    def test_agrees_with_loops(self, six_images, score, size, threshold):
        metric = metric_of(*six_images, [score], patch=size, accuracy_threshold=threshold)
        found = total(metric, score.name)
        uncertainty, accurate = patches_by_loops(*six_images, score.function, size, threshold)
        assert 0 < accurate.sum() < len(accurate)
        assert found["patches"] == len(uncertainty)
        assert found["threshold"] == pytest.approx(uncertainty.mean(), rel=1e-6)
        expected = percentages(uncertainty, accurate, uncertainty.mean())
        for name, value in zip(
            ("accurate_given_certain", "uncertain_given_inaccurate", "pavpu"), expected, strict=True
        ):
            assert found[name] == pytest.approx(value)
        assert found["pavpu_error_bound"] == 0

    def test_curve_agrees_with_loops(self, six_images):
        curve = total(metric_of(*six_images))["curve"]
        uncertainty, accurate = patches_by_loops(*six_images, msp, 4, 0.5)
        low, high = uncertainty.min(), uncertainty.max()
        assert curve["threshold"] == pytest.approx(low + np.arange(1, 21) / 20 * (high - low))
        for index in range(19):  # at the last one the highest patch may fall on either side
            expected = percentages(uncertainty, accurate, curve["threshold"][index])
            assert curve["accurate_given_certain"][index] == pytest.approx(expected[0])
            assert curve["uncertain_given_inaccurate"][index] == pytest.approx(expected[1])
            assert curve["pavpu"][index] == pytest.approx(expected[2])
        assert curve["pavpu"][-1] == pytest.approx(100 * accurate.mean())
        assert curve["uncertain_given_inaccurate"][-1] == 0

    def test_perfect_uncertainty(self, six_images):
        """Uncertain exactly where the patch is inaccurate: everything is 100 %."""
        batch, prediction = six_images
        batch = {**batch, "scene": ["same"] * 6, "condition": ["same"] * 6}

        def oracle(prediction):
            return (prediction.logits.argmax(1) != batch["label"]).float()

        metric = PatchAccuracyVsUncertainty(
            CLASSES, [Score("oracle", oracle, highest=lambda classes: 1.0)], patch=1
        )
        metric.update(batch, prediction)
        found = total(metric, "oracle")
        for name in ("accurate_given_certain", "uncertain_given_inaccurate", "pavpu"):
            assert found[name] == 100

    @pytest.mark.parametrize("step", [1, 2, 4])
    def test_batches_of_any_size_add_up(self, six_images, step):
        whole = metric_of(*six_images, scores=[MSP, ENERGY])
        parts = metric_of(*six_images, scores=[MSP, ENERGY], step=step)
        assert parts.compute() == whole.compute()
        for group, sums in whole.sums.items():
            for name, value in sums.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(parts.sums[group][name], value)

    def test_void_and_incomplete_patches_change_nothing(self, six_images):
        batch, prediction = six_images  # 9 x 11: the last row and three columns are left out
        cropped = {**batch, "label": batch["label"][:, :8, :8]}
        before = total(metric_of(cropped, Prediction(prediction.logits[:, :, :8, :8])))
        assert total(metric_of(batch, prediction)) == before
        wider = {**batch, "label": torch.full((6, 8, 12), 255, dtype=torch.uint8)}
        wider["label"][:, :, :8] = cropped["label"]
        logits = torch.full((6, len(CLASSES), 8, 12), torch.nan)
        logits[..., :8] = prediction.logits[:, :, :8, :8]
        assert total(metric_of(wider, Prediction(logits))) == before

    def test_nothing_labelled(self, six_images):
        batch, prediction = six_images
        void = {**batch, "label": torch.full_like(batch["label"], 255)}
        found = total(metric_of(void, prediction))
        assert found["patches"] == 0
        for name in ("threshold", "accurate_given_certain", "pavpu", "pavpu_error_bound"):
            assert found[name] is None
        assert found["curve"]["pavpu"] == []

    @pytest.mark.parametrize("score", [MSP, ENERGY])
    def test_many_patches_have_a_bound_that_holds(self, score):
        batch, prediction = make_batch(4, size=(300, 301), seed=2)
        metric = metric_of(batch, prediction, [score], patch=1)
        found = total(metric, score.name)
        valid = (batch["label"] != 255).numpy()
        uncertainty = score.function(prediction).double().numpy()[valid]
        accurate = (prediction.logits.argmax(1) == batch["label"]).numpy()[valid]
        assert len(uncertainty) > EXACT_PIXELS
        assert found["patches"] == len(uncertainty)
        assert found["threshold"] == pytest.approx(uncertainty.mean(), abs=1e-3)
        expected = percentages(uncertainty, accurate, uncertainty.mean())
        assert 0 < found["pavpu_error_bound"] < 1
        assert abs(found["pavpu"] - expected[2]) <= found["pavpu_error_bound"]

    def test_groups_and_intervals(self, six_images):
        metric = metric_of(*six_images, per_scene=True, bootstrap=Bootstrap(60, seed=1), patch=2)
        results = metric.compute()
        assert set(results["condition"]) == {"fog", "night", "rain"}
        assert set(results["scene"]) == {"scene0", "scene1"}
        low, high = results["total"]["intervals"]["pavpu.msp.pavpu"]
        assert low < results["total"]["pavpu"]["msp"]["pavpu"] < high

    def test_patches_larger_than_the_images_are_refused(self, six_images):
        with pytest.raises(ValueError, match="image0: patches of 10x10 pixels do not fit .* 9x11"):
            metric_of(*six_images, patch=10)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patch": 0}, "patch 0 .* at least 1"),
            ({"accuracy_threshold": 1.0}, "accuracy threshold 1.0 .* below 1"),
            ({"accuracy_threshold": -0.1}, "accuracy threshold -0.1 .* 0"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            PatchAccuracyVsUncertainty(CLASSES, [MSP], **options)

    def test_wants_what_its_scores_want(self):
        variant = ForwardVariant("twice", lambda predict, network, images: predict(images))
        scores = [
            Score("a", msp, variant, frozenset({"temperature"})),
            Score("b", msp, variant, frozenset({"member_logits"})),
        ]
        metric = PatchAccuracyVsUncertainty(CLASSES, scores)
        assert metric.variant is variant
        assert metric.needs == {"temperature", "member_logits"}

    def test_units_of_all_numbers(self, six_images):
        assert set(total(metric_of(*six_images))) == set(PatchAccuracyVsUncertainty.units)
