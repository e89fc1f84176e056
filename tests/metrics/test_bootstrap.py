import numpy as np
import pytest
import torch

from metrics.bootstrap import Bootstrap, percentile_intervals
from metrics.segmentation import SegmentationMetrics
from tests.metrics.conftest import CLASSES, make_batch, part
from utils.types import Prediction

RESAMPLES = 400


def test_weights_follow_from_seed_and_image_alone():
    bootstrap = Bootstrap(RESAMPLES, seed=3)
    assert torch.equal(bootstrap.weights("a"), Bootstrap(RESAMPLES, seed=3).weights("a"))
    assert not torch.equal(bootstrap.weights("a"), bootstrap.weights("b"))
    assert not torch.equal(bootstrap.weights("a"), Bootstrap(RESAMPLES, seed=4).weights("a"))


def test_weights_have_the_mean_and_variance_of_poisson_one():
    drawn = torch.stack([Bootstrap(RESAMPLES).weights(str(i)) for i in range(100)]).double()
    assert drawn.mean().item() == pytest.approx(1, abs=0.02)
    assert drawn.var().item() == pytest.approx(1, abs=0.03)


def binary_images(accuracies, size=(20, 50)):
    """One image for each accuracy, with that share of its pixels right."""
    count = len(accuracies)
    labels = torch.zeros(count, *size, dtype=torch.uint8)
    logits = torch.zeros(count, 2, *size)
    for image, accuracy in enumerate(accuracies):
        right = torch.arange(size[0] * size[1]).view(size) < round(accuracy * size[0] * size[1])
        logits[image, 0] = torch.where(right, 1.0, -1.0)
    return {"label": labels, "id": [str(i) for i in range(count)]}, Prediction(logits)


def test_interval_of_a_mean_over_images_is_that_of_the_usual_bootstrap():
    rng = np.random.default_rng(0)
    accuracies = rng.beta(6, 2, 60).round(3)
    metric = SegmentationMetrics(("a", "b"), bootstrap=Bootstrap(2000))
    metric.update(*binary_images(accuracies))
    low, high = metric.compute()["total"]["intervals"]["overall_accuracy"]
    draws = accuracies[rng.integers(0, 60, (2000, 60))].mean(1) * 100
    assert low == pytest.approx(np.percentile(draws, 2.5), abs=0.5)
    assert high == pytest.approx(np.percentile(draws, 97.5), abs=0.5)


def test_intervals_do_not_depend_on_batches_or_order():
    batch, prediction = make_batch()
    found = []
    for splits in ([[0, 1, 2, 3, 4, 5]], [[5, 2], [0, 4], [3, 1]]):
        metric = SegmentationMetrics(CLASSES, bootstrap=Bootstrap(20))
        for images in splits:
            metric.update(*part(batch, prediction, images))
        metric.all_reduce()
        found.append(metric.compute())
    assert found[0] == found[1]
    assert set(found[0]["condition"]["fog"]) >= {"intervals", "miou"}
    plain = SegmentationMetrics(CLASSES)
    plain.update(batch, prediction)
    assert plain.compute()["total"]["miou"] == found[0]["total"]["miou"]
    assert "intervals" not in plain.compute()["total"]


def test_intervals_name_nested_numbers_and_pass_over_the_rest():
    results = [
        {"a": float(i), "b": {"c": 2.0 * i, "curve": [1.0, 2.0]}, "n": 3, "rare": None}
        for i in range(101)
    ]
    results[0] |= {"rare": 1.0, "a_bound": 1.0}
    whole = {"a": 50.0, "b": {"c": 103.0}, "rare": 1.0, "a_bound": 0.1}
    kept = {"a": 50.0, "b": {"c": 100.0}}
    found = percentile_intervals(results, kept=kept, whole=whole)
    assert found == {"a": [2.5, 97.5], "b.c": [8.0, 198.0]}
