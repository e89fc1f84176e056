import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from metrics.binned import binned_counts, published_statistics
from metrics.bootstrap import Bootstrap
from metrics.ood import OutOfDistribution
from tests.metrics.conftest import CLASSES, make_batch, part
from uncertainty.scores import SCORES
from utils.types import Prediction, Score

VOID = 255
PUBLISHED = ("auroc_original", "fpr95_original", "aupr_original", "pixels_outside")
RAW = Score("raw", lambda prediction: prediction.logits[:, 0])
HALVED = replace(RAW, name="halved", published=lambda prediction: prediction.logits[:, 0] / 2)


def unknown_objects(batch, prediction, seed=0):
    """Marks pixels of the batch as unknown; there the prediction is less certain."""
    generator = torch.Generator().manual_seed(seed)
    ood = (torch.rand(batch["label"].shape, generator=generator) < 0.2).to(torch.uint8)
    ood[batch["label"] == VOID] = VOID
    factor = torch.where(ood == 1, 0.5, 1.0)[:, None]
    return batch | {"ood": ood}, prediction._replace(logits=prediction.logits * factor)


@pytest.fixture
def images():
    return unknown_objects(*make_batch())


def measure(parts, metric=None, names=("msp", "energy")):
    metric = metric or OutOfDistribution(CLASSES, [SCORES[name] for name in names])
    for batch, prediction in parts:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def split(images, *indices):
    """Some images of a batch each; their unknown objects go with them."""
    return [part(*images, index) for index in indices]


def test_agrees_with_scikit_learn_for_every_score(images):
    batch, prediction = images
    found = measure([images])["total"]["ood"]
    truth = batch["ood"]
    known = truth != VOID
    for name in ("msp", "energy"):
        scores = SCORES[name].function(prediction)[known].numpy()
        labels = truth[known].numpy()
        one = found[name]
        assert one["pixels"] == len(labels)
        assert one["ood_pixels"] == labels.sum()
        fpr, tpr, _ = sklearn.roc_curve(labels, scores, drop_intermediate=False)
        precision, recall, thresholds = sklearn.precision_recall_curve(labels, scores)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        expected = {
            "auroc": sklearn.roc_auc_score(labels, scores),
            "aupr_out": sklearn.average_precision_score(labels, scores),
            "aupr_in": sklearn.average_precision_score(1 - labels, -scores),
            "fpr95": fpr[tpr >= 0.95].min(),
            "f1": f1.max(),
        }
        for key, value in expected.items():
            assert one[key] == pytest.approx(100 * value, abs=1e-9)
            assert one[f"{key}_error_bound"] == 0
        assert one["f1_threshold"] == pytest.approx(thresholds[f1.argmax()])
        assert one["tpr95_threshold"] == thresholds[recall[:-1] >= 0.95].max()


def test_every_number_has_a_unit_and_is_plain(images):
    found = measure([images])["total"]["ood"]["msp"]
    assert found.keys() == OutOfDistribution.units.keys() - set(PUBLISHED)
    assert isinstance(found["f1_threshold"], float)
    assert isinstance(found["tpr95_threshold"], float)
    assert len(found["histogram"]["edges"]) == 51
    assert sum(found["histogram"]["out"]) == found["ood_pixels"]
    assert sum(found["histogram"]["in"]) == found["pixels"] - found["ood_pixels"]
    assert max(found["roc"]["tpr"]) == max(found["pr"]["recall"]) == 100


def test_a_histogram_is_used_where_there_are_many_pixels(images, monkeypatch):
    exact = measure([images])["total"]["ood"]
    monkeypatch.setattr("metrics.histogram.EXACT_PIXELS", 100)
    binned = measure([images])["total"]["ood"]
    for name, values in exact.items():
        for key in ("auroc", "aupr_out", "aupr_in", "fpr95", "f1"):
            assert abs(binned[name][key] - values[key]) <= binned[name][f"{key}_error_bound"] + 1e-9
        assert 0 < binned[name]["auroc_error_bound"] < 0.1
        assert binned[name]["ood_pixels"] == values["ood_pixels"]


@pytest.mark.parametrize("few", [100, 1 << 18])
@pytest.mark.parametrize("indices", [([0, 1, 2], [3, 4, 5]), ([5, 3], [1, 0], [4, 2])])
def test_results_do_not_depend_on_batches_or_order(images, indices, few, monkeypatch):
    monkeypatch.setattr("metrics.histogram.EXACT_PIXELS", few)
    assert measure(split(images, *indices)) == measure([images])


def test_each_condition_equals_its_images_alone(images):
    found = measure([images])
    assert list(found["condition"]) == ["fog", "night", "rain"]
    for index, name in enumerate(found["condition"]):
        alone = measure(split(images, [index, index + 3]))
        assert found["condition"][name] == alone["total"]


def test_void_pixels_change_nothing(images):
    batch, prediction = images
    changed = torch.where((batch["ood"] == VOID)[:, None], 7.0, prediction.logits)
    changed[:, 0] += torch.where(batch["ood"] == VOID, 5.0, 0.0)
    assert measure([(batch, prediction._replace(logits=changed))]) == measure([images])


def test_data_without_a_map_is_refused(images):
    batch, prediction = images
    del batch["ood"]
    with pytest.raises(ValueError, match=r"acdc says of no pixel .* with --ood_classes"):
        measure([(batch, prediction)])


@pytest.mark.parametrize(("value", "kind"), [(0, "in-domain"), (1, "out-of-distribution")])
def test_one_kind_of_pixel_is_refused(images, value, kind):
    batch, prediction = images
    batch["ood"] = torch.full_like(batch["ood"], value)
    with pytest.raises(ValueError, match=f"only {kind} pixels given: .* --ood_classes"):
        measure([(batch, prediction)])


def test_a_part_of_one_kind_is_none_and_named_once(images, caplog):
    batch, prediction = images
    batch["ood"][[1, 4]] = 0
    with caplog.at_level(logging.WARNING, "segdoubt"):
        found = measure([(batch, prediction)])
    night = found["condition"]["night"]["ood"]["msp"]
    assert night["ood_pixels"] == 0
    assert night["pixels"] == batch["ood"][[1, 4]].numel()
    for key in ("auroc", "auroc_error_bound", "aupr_out", "aupr_in", "fpr95", "f1", "f1_threshold"):
        assert night[key] is None
    assert found["condition"]["fog"]["ood"]["msp"]["auroc"] is not None
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "condition night" in warnings[0]
    assert "fog" not in warnings[0]


def test_logits_that_are_not_finite_are_refused(images):
    batch, prediction = images
    prediction.logits[0, :, batch["ood"][0] == 0] = float("nan")
    count = int((batch["ood"][0] == 0).sum())
    with pytest.raises(ValueError, match=f"msp is not finite .* at {count} of"):
        measure([(batch, prediction)])


def test_intervals_hold_the_numbers(images):
    metric = OutOfDistribution(CLASSES, [SCORES["msp"]], bootstrap=Bootstrap(40))
    total = measure([images], metric)["total"]
    low, high = total["intervals"]["ood.msp.auroc"]
    assert low < total["ood"]["msp"]["auroc"] < high
    assert 0 < high - low < 20


def test_no_image_gives_no_results():
    assert measure([]) == {}


def tied_scores(seed):
    """Whole numbers from -20 to 20 as scores, many of them tied; some pixels of neither kind."""
    generator = torch.Generator().manual_seed(seed)
    ood = (torch.rand(1, 40, 60, generator=generator) < 0.15).to(torch.uint8)
    scores = (5 * torch.randn(ood.shape, generator=generator) + 4 * ood).round().clamp(-20, 20)
    ood[torch.rand(ood.shape, generator=generator) < 0.1] = VOID
    return scores, ood


def by_raw_score(scores, ood):
    batch = {"label": torch.zeros_like(ood), "ood": ood, "id": ["image"], "dataset": ["animals"]}
    metric = OutOfDistribution(CLASSES, [RAW])
    return measure([(batch, Prediction(scores[:, None]))], metric)["total"]["ood"]["raw"]


RANKED = ("auroc", "aupr_out", "aupr_in", "fpr95", "f1")


@pytest.mark.parametrize("seed", range(5))
def test_tied_negative_and_great_scores_agree_with_scikit_learn(seed):
    scores, ood = tied_scores(seed)
    one = by_raw_score(scores, ood)
    labels, values = ood[ood != VOID].numpy(), scores[ood != VOID].numpy()
    fpr, tpr, thresholds = sklearn.roc_curve(labels, values, drop_intermediate=False)
    first = np.argmax(tpr >= 0.95)
    assert one["auroc"] == pytest.approx(100 * sklearn.roc_auc_score(labels, values), abs=1e-9)
    precision = sklearn.average_precision_score(labels, values)
    assert one["aupr_out"] == pytest.approx(100 * precision, abs=1e-9)
    assert one["fpr95"] == pytest.approx(100 * fpr[first], abs=1e-9)
    assert one["tpr95_threshold"] == thresholds[first]


@pytest.mark.parametrize(
    "rising", [lambda x: 10 * x - 500, lambda x: x**3, lambda x: -1 / (x + 100), torch.sigmoid]
)
def test_rising_functions_of_the_score_change_nothing(rising):
    scores, ood = tied_scores(0)
    scores = scores.clamp(-6, 6)  # where float32 tells the logistic function's values apart
    one, other = by_raw_score(scores, ood), by_raw_score(rising(scores), ood)
    for name in RANKED:
        assert other[name] == pytest.approx(one[name], abs=1e-9)
    expected = rising(torch.tensor(one["tpr95_threshold"]))
    assert other["tpr95_threshold"] == pytest.approx(float(expected), rel=1e-6)


def test_the_negated_score_has_the_rest_of_the_area():
    scores, ood = tied_scores(1)
    one, other = by_raw_score(scores, ood), by_raw_score(-scores, ood)
    assert other["auroc"] == pytest.approx(100 - one["auroc"], abs=1e-9)


def test_with_parity_the_published_numbers_stand_beside(images):
    metric = OutOfDistribution(CLASSES, [RAW, HALVED], parity=True)
    found = measure([images], metric)["total"]["ood"]
    assert found["raw"].keys() == OutOfDistribution.units.keys() - set(PUBLISHED)
    assert found["halved"].keys() == OutOfDistribution.units.keys()
    batch, prediction = images
    expected = published_statistics(binned_counts(prediction.logits[:, 0] / 2, batch["ood"]))
    assert {name: found["halved"][name] for name in PUBLISHED} == expected
    assert expected["pixels_outside"]["in"] > 100
    plain = measure([images], OutOfDistribution(CLASSES, [RAW, HALVED]))["total"]["ood"]["halved"]
    assert plain == {name: value for name, value in found["halved"].items() if name in plain}


@pytest.mark.parametrize("indices", [([0, 1, 2], [3, 4, 5]), ([5, 3], [1, 0], [4, 2])])
def test_published_numbers_do_not_depend_on_batches(images, indices):
    def measured(parts):
        return measure(parts, OutOfDistribution(CLASSES, [HALVED], parity=True))

    assert measured(split(images, *indices)) == measured([images])


def test_published_numbers_have_intervals(images):
    metric = OutOfDistribution(CLASSES, [HALVED], parity=True, bootstrap=Bootstrap(30))
    total = measure([images], metric)["total"]
    low, high = total["intervals"]["ood.halved.auroc_original"]
    assert low < total["ood"]["halved"]["auroc_original"] < high
