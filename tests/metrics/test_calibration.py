import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from metrics.bootstrap import Bootstrap
from metrics.calibration import Calibration
from tests.metrics.conftest import CLASSES, NUM_CLASSES, make_batch, part
from tests.metrics.test_calibration_errors import equal_mass_by_sorting, ks_by_sorting
from uncertainty.scores import SCORES
from utils.types import Prediction, Score

VOID = 255
SUMS = ("confidence", "probability", "nll", "brier")


def network_like(count=6, size=(21, 23), seed=0):
    """Six images with ties, pixels of confidence 1, void, and a class that occurs nowhere."""
    batch, prediction = make_batch(count, size, seed)
    generator = torch.Generator().manual_seed(seed)
    logits = prediction.logits.mul(4).round().div(2)  # ties
    logits[:, -1] = -9.0
    sharp = torch.rand(logits[:, :1].shape, generator=generator) < 0.3
    return batch, Prediction(torch.where(sharp, logits * 100, logits))


def measure(*parts, names=CLASSES, **options):
    metric = Calibration(names, **options)
    for batch, prediction in parts:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()["total"]["calibration"]


def flat(batch, prediction):
    """Probabilities (n, C), float64, and labels of the known pixels."""
    likely = prediction.logits.float().softmax(1).double().permute(0, 2, 3, 1)
    known = batch["label"] != VOID
    return likely[known].numpy(), batch["label"][known].long().numpy()


def top(batch, prediction):
    """Confidences, float32, and whether the prediction is right, of the known pixels."""
    likely, labels = flat(batch, prediction)
    return likely.max(1).astype(np.float32), likely.argmax(1) == labels


def leaves(results, prefix=""):
    """Numbers, texts and None of nested results by their dotted names."""
    found = {}
    for name, value in results.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found |= {f"{prefix}{name}.{index}": one for index, one in enumerate(value)}
        else:
            found[prefix + name] = value
    return found


def assert_close(found, expected, tolerance):
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None or isinstance(value, str):
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("make", [make_batch, network_like])
def test_agrees_with_netcal(make):
    netcal = pytest.importorskip("netcal.metrics")
    data = make()
    expected = netcal.ECE(15).measure(*flat(*data))
    assert measure(data)["ece"] == pytest.approx(100 * expected, abs=1e-4)


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize(("norm", "name"), [("l1", "ece"), ("max", "mce")])
def test_agrees_with_torchmetrics(bins, norm, name):
    data = network_like()
    reference = MulticlassCalibrationError(NUM_CLASSES, n_bins=bins, norm=norm)
    likely, labels = map(torch.from_numpy, flat(*data))
    likely.clamp_(max=1 - 1e-6)  # it puts a confidence of 1 into a bin of its own
    expected = reference(likely, labels)
    assert measure(data, bins=bins)[name] == pytest.approx(100 * expected.item(), abs=1e-3)


def test_agrees_with_sorting():
    data = network_like()
    found, (confidence, right) = measure(data, parity=True), top(*data)
    assert found["pixels"] == len(right)
    assert found["accuracy"] == pytest.approx(100 * right.mean())
    assert found["mean_confidence"] == pytest.approx(100 * confidence.mean(dtype=np.float64))
    exact = 100 * ks_by_sorting(confidence, right)
    assert found["ks_error"] - 1e-9 <= exact <= found["ks_error"] + found["ks_error_bound"] + 1e-9
    for original in (False, True):
        name = "ece_equal_mass" + "_original" * original
        exact = 100 * equal_mass_by_sorting(confidence, right, 15, original=original)
        assert abs(found[name] - exact) <= found[f"{name}_error_bound"] + 1e-9
        assert found[name] == pytest.approx(exact, abs=1e-3)
    assert "ece_equal_mass_original" not in measure(data)


def test_the_diagram_is_that_of_the_bins():
    data = network_like()
    diagram, (confidence, right) = measure(data)["diagram"], top(*data)
    place = np.ceil(confidence.astype(np.float64) * 15).astype(int) - 1
    for index in range(15):
        inside = place == index
        assert diagram["count"][index] == inside.sum()
        if not inside.any():
            assert diagram["confidence"][index] is diagram["accuracy"][index] is None
            continue
        assert diagram["accuracy"][index] == pytest.approx(100 * right[inside].mean())
        mean = confidence[inside].mean(dtype=np.float64)
        assert diagram["confidence"][index] == pytest.approx(100 * mean)
    assert 0 in diagram["count"]
    assert min(diagram["count"][-2:]) > 0


def test_nll_and_brier_agree_with_scikit_learn():
    data = make_batch()
    found, (likely, labels) = measure(data), flat(*data)
    likely /= likely.sum(1, keepdims=True)
    classes = list(range(NUM_CLASSES))
    assert found["nll"] == pytest.approx(log_loss(labels, likely, labels=classes), rel=1e-6)
    brier = brier_score_loss(labels, likely, labels=classes, scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, rel=1e-6)


def test_nll_is_right_where_the_probability_underflows():
    logits = torch.zeros(1, NUM_CLASSES, 1, 2)
    logits[0, 1] = 300.0
    logits[0, 2, 0, 1] = 300.0
    label = torch.tensor([[[3, 0]]], dtype=torch.uint8)
    found = measure(({"label": label}, Prediction(logits)))
    assert found["nll"] == pytest.approx(300 + np.log(2) / 2, rel=1e-7)
    assert found["brier"] == pytest.approx((2 + 1.5) / 2)


@pytest.mark.parametrize("bins", [4, 10, 15])
@pytest.mark.parametrize("make", [make_batch, network_like])
def test_class_wise_equals_one_class_after_the_other(make, bins, monkeypatch):
    monkeypatch.setattr("utils.class_map.BLOCK_PIXELS", 50)  # several blocks an image
    data = make()
    found, (likely, labels) = measure(data, bins=bins), flat(*data)
    errors = []
    for index, name in enumerate(CLASSES):
        place = np.ceil(likely[:, index] * bins).astype(int)
        gaps = np.bincount(place, likely[:, index] - (labels == index), minlength=bins + 1)
        errors.append(100 * np.abs(gaps[1:]).sum() / len(labels))
        assert found["class_ece"][name] == pytest.approx(errors[-1], rel=1e-9, abs=1e-12)
    assert found["classwise_ece"] == pytest.approx(np.mean(errors[:-1]))  # the last never occurs


def test_perfect_calibration_has_no_error():
    sizes = {0.5: 40, 0.6: 50, 0.75: 80, 0.9: 100}  # probability of the top class: pixels
    confidence = np.repeat(list(sizes), list(sizes.values()))
    right = np.concatenate([np.arange(size) < level * size for level, size in sizes.items()])
    logits = torch.zeros(1, 3, 1, len(right), dtype=torch.float64)
    logits[0, 1, 0] = torch.from_numpy(np.log(confidence))
    logits[0, [0, 2]] = torch.from_numpy(np.log((1 - confidence) / 2))[None, None]
    logits[0, 0] += 1e-9
    label = torch.from_numpy(right.astype(np.uint8))[None, None]
    found = measure(({"label": label}, Prediction(logits)), names="abc")
    for name in ("ece", "mce", "ks_error", "ece_equal_mass"):
        assert found[name] == pytest.approx(0, abs=1e-5)
    assert found["accuracy"] == pytest.approx(found["mean_confidence"])
    flipped = measure(({"label": 1 - label}, Prediction(logits)), names="abc")
    assert flipped["ece"] > 40


@pytest.mark.parametrize(
    "splits", [([0, 1, 2], [3, 4, 5]), ([5], [3], [1], [0], [4], [2]), ([2, 5, 0, 3, 1, 4],)]
)
def test_any_partition_gives_the_same(splits):
    data = network_like()
    metrics = [Calibration(CLASSES, parity=True) for _ in range(2)]
    metrics[0].update(*data)
    for images in splits:
        metrics[1].update(*part(*data, images))
    for group, sums in metrics[0].sums.items():
        for name, value in sums.items():
            other = metrics[1].sums[group][name]
            if value.dtype == torch.int64:
                assert torch.equal(value, other), name
            else:
                torch.testing.assert_close(other, value, rtol=1e-9, atol=0)
    assert_close(metrics[1].compute(), metrics[0].compute(), 1e-9)


def test_each_condition_equals_its_images_alone():
    data = network_like()
    metric = Calibration(CLASSES)
    metric.update(*data)
    for index, (name, found) in enumerate(metric.compute()["condition"].items()):
        alone = measure(part(*data, [index, index + 3]))
        assert name == ("fog", "night", "rain")[index]
        assert_close(found["calibration"], alone, 1e-12)


@pytest.mark.parametrize("filler", [0.0, 1e4, float("nan"), float("inf")])
def test_void_pixels_never_matter(filler):
    batch, prediction = network_like()
    expected = measure((batch, prediction), parity=True)
    logits = torch.where((batch["label"] == VOID)[:, None], filler, prediction.logits)
    assert measure((batch, Prediction(logits)), parity=True) == expected
    void = {**batch, "label": torch.full_like(batch["label"], VOID)}
    more = void, Prediction(torch.full_like(logits, filler))
    assert_close(measure((batch, prediction), more, parity=True), expected, 1e-12)


def test_labels_that_are_no_class_are_void():
    batch, prediction = network_like()
    known = torch.where(batch["label"] == VOID, 77, batch["label"])
    assert measure(({**batch, "label": known}, prediction)) == measure((batch, prediction))


def test_a_constant_added_to_the_logits_of_a_pixel_changes_nothing():
    batch, prediction = make_batch(size=(21, 23))
    shift = torch.randint(-8, 9, (6, 1, 21, 23), generator=torch.Generator().manual_seed(1)).float()
    found = measure((batch, Prediction(prediction.logits.double() + shift)))
    expected = measure((batch, Prediction(prediction.logits.double())))
    for name in ("ece", "mce", "ks_error", "ece_equal_mass", "nll", "brier", "classwise_ece"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
    assert found["accuracy"] == expected["accuracy"]


def test_layout_and_type_of_the_logits_play_no_part():
    batch, prediction = network_like()
    half = prediction.logits.clamp(-60, 60).bfloat16()
    expected = measure((batch, Prediction(half.float())))
    assert measure((batch, Prediction(half))) == expected
    turned = half.float().to(memory_format=torch.channels_last)
    assert_close(measure((batch, Prediction(turned))), expected, 1e-6)


def test_only_void_gives_none():
    batch, prediction = network_like()
    batch["label"].fill_(VOID)
    found = measure((batch, prediction), parity=True)
    counts = {name: value for name, value in leaves(found).items() if value is not None}
    assert counts == {"pixels": 0} | {f"diagram.count.{index}": 0 for index in range(15)}
    assert found["class_ece"] == dict.fromkeys(CLASSES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused_with_their_number(value):
    batch, prediction = make_batch()
    logits = prediction.logits.clone()
    known = (batch["label"][0] != VOID).nonzero()[:3]
    for row, column in known:
        logits[0, batch["label"][0, row, column].long(), row, column] = value
    with pytest.raises(ValueError, match="logits of 3 labelled pixels are not finite"):
        measure((batch, Prediction(logits)))


def test_the_confidence_of_a_score():
    data = network_like()
    found = measure(data, score=SCORES["entropy"])
    plain = measure(data)
    likely, labels = flat(*data)
    entropy = -(likely * np.log(np.maximum(likely, 1e-300))).sum(1)
    confidence = (1 - entropy / np.log(NUM_CLASSES)).clip(0, 1)
    right = likely.argmax(1) == labels
    place = np.minimum(np.ceil(confidence * 15), 15).astype(int)
    gaps = np.bincount(place, confidence - right, minlength=16)
    assert found["confidence"] == "entropy"
    assert found["mean_confidence"] == pytest.approx(100 * confidence.mean(), abs=1e-4)
    assert found["ece"] == pytest.approx(100 * np.abs(gaps[1:]).sum() / len(right), abs=1e-4)
    for name in ("pixels", "accuracy", "nll", "brier", "class_ece"):
        assert found[name] == plain[name]
    assert_close(
        {**measure(data, score=SCORES["msp"]), "confidence": None},
        {**plain, "confidence": None},
        1e-5,
    )


def test_a_confidence_of_zero_is_in_no_bin_but_counts():
    batch, prediction = make_batch()
    score = Score("sure", lambda p: torch.ones(p.logits[:, 0].shape), highest=lambda _: 1.0)
    found = measure((batch, prediction), score=score)
    assert found["mean_confidence"] == found["ece"] == 0
    assert found["mce"] is None
    assert found["ks_error"] == pytest.approx(found["accuracy"])
    assert sum(found["diagram"]["count"]) == 0 < found["pixels"]


def test_a_score_that_is_not_finite_is_named():
    score = Score("odd", lambda p: p.logits[:, 0] / 0, highest=lambda _: 1.0)
    with pytest.raises(ValueError, match="logits or odd of"):
        measure(make_batch(), score=score)


def test_what_cannot_be_measured_is_refused_when_built():
    with pytest.raises(ValueError, match="score energy has no greatest value"):
        Calibration(CLASSES, score=SCORES["energy"])
    for bins in (0, 1025):
        with pytest.raises(ValueError, match=f"calibration in {bins} bins: expected 1 to 1024"):
            Calibration(CLASSES, bins=bins)


def test_the_score_says_what_it_needs():
    metric = Calibration(CLASSES, score=SCORES["mutual_information"])
    assert metric.needs == {"member_logits"}


def test_every_number_has_a_unit():
    found = measure(network_like(), parity=True)
    names = {name.split(".")[0] for name in leaves(found)} - {"diagram"}
    names |= {f"diagram.{name}" for name in found["diagram"]}
    assert names == Calibration.units.keys()


def test_intervals_hold_the_value():
    data = network_like(count=24, size=(16, 17))
    metric = Calibration(CLASSES, bootstrap=Bootstrap(100))
    metric.update(*data)
    total = metric.compute()["total"]
    for name in ("accuracy", "ece", "ece_equal_mass", "ks_error", "classwise_ece", "nll", "brier"):
        low, high = total["intervals"][f"calibration.{name}"]
        assert low < total["calibration"][name] < high, name
    low, high = total["intervals"]["calibration.accuracy"]
    assert high - low < 5


def test_a_resample_of_every_image_once_is_the_whole():
    data = network_like()
    metric = Calibration(CLASSES)
    metric.update(*data)
    sums = next(iter(metric.sums.values()))
    fine, coarse = metric.finish(sums), metric.finish(metric.resampled(sums))
    fine, coarse = fine["calibration"], coarse["calibration"]
    for name in ("pixels", "accuracy", "mean_confidence", "ece", "mce", "nll", "brier", "diagram"):
        assert_close({name: coarse[name]}, {name: fine[name]}, 1e-9)
    for name in ("ks_error", "ece_equal_mass"):
        assert coarse[name] == pytest.approx(fine[name], rel=0.02)


@pytest.mark.gpu
def test_the_gpu_gives_the_numbers_of_the_cpu():
    batch, prediction = network_like()
    there = {**batch, "label": batch["label"].cuda()}, Prediction(prediction.logits.cuda())
    assert_close(measure(there), measure((batch, prediction)), 1e-4)
