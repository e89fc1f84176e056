import numpy as np
import pytest
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from metrics.bootstrap import Bootstrap
from metrics.segmentation import SegmentationMetrics, count_pairs
from tests.metrics.conftest import CLASSES, NUM_CLASSES, make_batch
from utils.types import Prediction

VOID = 255


def one_hot(classes, num_classes):
    """A prediction of these classes (N, H, W)."""
    return Prediction(torch.nn.functional.one_hot(classes, num_classes).permute(0, 3, 1, 2).float())


def measure(batch, prediction, names=CLASSES):
    metric = SegmentationMetrics(names)
    metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def test_hand_worked_case():
    label = torch.tensor([[[0, 0, 0, 1], [1, 1, VOID, VOID]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 0, 1, 1], [1, 0, 2, 1]]])
    found = measure({"label": label, "id": ["a"]}, one_hot(predicted, 4), "abcd")["total"]
    third = 100 / 3
    assert found["pixels"] == 6
    assert found["classes_seen"] == 2
    assert found["overall_accuracy"] == pytest.approx(2 * third)
    assert found["class_accuracy"] == {
        "a": pytest.approx(2 * third),
        "b": pytest.approx(2 * third),
        "c": None,
        "d": None,
    }
    assert found["class_iou"] == {"a": 50, "b": 50, "c": None, "d": None}
    assert found["class_dice"]["a"] == pytest.approx(2 * third)
    assert found["miou"] == 50
    assert found["frequency_weighted_accuracy"] == 50
    assert found["mean_dice"] == pytest.approx(2 * third)


def test_a_class_predicted_but_never_labelled_counts_as_published():
    label = torch.tensor([[[0, 0, 0, 0]]], dtype=torch.uint8)
    found = measure(
        {"label": label, "id": ["a"]}, one_hot(torch.tensor([[[0, 0, 1, 1]]]), 3), "abc"
    )
    assert found["total"]["miou"] == 25  # nan-mean over a (50) and b (0), c occurs nowhere
    assert found["total"]["mean_accuracy"] == 50  # over the classes in the labels
    assert found["total"]["classes_seen"] == 1
    assert found["total"]["class_iou"] == {"a": 50, "b": 0, "c": None}


def test_agrees_with_torchmetrics(six_images):
    batch, prediction = six_images
    found = measure(batch, prediction)["total"]
    probs, labels = prediction.logits.double().softmax(1), batch["label"].long()

    def reference(metric, **kwargs):
        value = metric(num_classes=NUM_CLASSES, ignore_index=VOID, **kwargs)(probs, labels)
        return 100 * value.double().numpy()

    # torchmetrics gives 0 where a class occurs nowhere; here that is the last class, as None
    for name, metric in {
        "class_iou": MulticlassJaccardIndex,
        "class_dice": MulticlassF1Score,
        "class_accuracy": MulticlassAccuracy,
    }.items():
        mine = list(found[name].values())
        assert mine[-1] is None
        np.testing.assert_allclose(mine[:-1], reference(metric, average="none")[:-1], rtol=1e-6)
    for name, metric, average in (
        ("miou", MulticlassJaccardIndex, "macro"),
        ("mean_dice", MulticlassF1Score, "macro"),
        ("mean_accuracy", MulticlassAccuracy, "macro"),
        ("overall_accuracy", MulticlassAccuracy, "micro"),
        ("frequency_weighted_accuracy", MulticlassJaccardIndex, "weighted"),
    ):
        assert found[name] == pytest.approx(float(reference(metric, average=average)), rel=1e-6)


@pytest.mark.parametrize("num_classes", [2, 19, 150, 255])
def test_count_pairs_equals_a_loop(num_classes):
    generator = np.random.default_rng(0)
    labels = generator.choice([*range(num_classes), 254, VOID], size=(3, 17, 19)).astype(np.uint8)
    predictions = generator.integers(0, num_classes, size=labels.shape)
    predictions[0, 0, :] = num_classes - 1
    labels[0, 0, :] = VOID
    expected = np.zeros((256, num_classes), np.int64)
    np.add.at(expected, (labels.ravel(), predictions.ravel()), 1)
    for kind in (torch.uint8, torch.int64):
        found = count_pairs(
            torch.from_numpy(labels), torch.from_numpy(predictions).to(kind), num_classes
        )
        assert found.dtype == torch.int64
        np.testing.assert_array_equal(found.numpy(), expected)


def test_count_pairs_agrees_with_torchmetrics(six_images):
    batch, prediction = six_images
    predicted = prediction.logits.argmax(1)
    reference = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=VOID)
    expected = reference(predicted, batch["label"].long())
    found = count_pairs(batch["label"], predicted, NUM_CLASSES)
    assert torch.equal(found[:NUM_CLASSES], expected)
    assert found[VOID].sum() == (batch["label"] == VOID).sum()


def test_counts_stay_exact_beyond_float32(monkeypatch):
    monkeypatch.setattr("metrics.segmentation.EXACT_IN_FLOAT32", 10)
    labels = torch.zeros(33, dtype=torch.uint8)
    assert count_pairs(labels, torch.ones(33, dtype=torch.int64), 2)[0].tolist() == [0, 33]


@pytest.mark.gpu
def test_count_pairs_on_a_gpu_equals_the_cpu():
    labels = torch.randint(0, 256, (2, 64, 65), dtype=torch.uint8)
    for num_classes in (2, 19, 255):
        predictions = torch.randint(0, num_classes, labels.shape)
        on_gpu = count_pairs(labels.cuda(), predictions.cuda(), num_classes)
        assert torch.equal(on_gpu.cpu(), count_pairs(labels, predictions, num_classes))


def test_all_pixels_ignored_gives_none_not_nan(six_images):
    batch, prediction = six_images
    found = measure({**batch, "label": torch.full_like(batch["label"], VOID)}, prediction)["total"]
    assert found["pixels"] == found["classes_seen"] == 0
    assert found["miou"] is found["overall_accuracy"] is found["mean_accuracy"] is None
    assert found["frequency_weighted_accuracy"] is found["mean_dice"] is None
    assert set(found["class_iou"].values()) == {None}


def test_ignored_pixels_never_matter(six_images):
    batch, prediction = six_images
    changed = prediction.logits.clone()
    changed[(batch["label"] == VOID)[:, None].expand_as(changed)] = 3.0
    assert measure(batch, Prediction(changed)) == measure(batch, prediction)


def test_every_number_has_a_unit(six_images):
    found = measure(*six_images)["total"]
    assert found.keys() == SegmentationMetrics.units.keys()


def test_label_values_outside_the_classes_are_named(six_images):
    batch, prediction = six_images
    batch["label"][0, 0, :3] = 33
    batch["label"][1, 0, 0] = 7
    with pytest.raises(ValueError, match=r"outside the 5 classes: 7 \(1 pixels\), 33 \(3 pixels\)"):
        measure(batch, prediction)


def test_sizes_that_differ_are_refused_with_the_image_s_name(six_images):
    batch, prediction = six_images
    with pytest.raises(ValueError, match=r"image0: the label has 9x11 .* prediction 9x10"):
        measure(batch, Prediction(prediction.logits[..., :10]))


def test_scenes_on_request():
    batch, prediction = make_batch()
    metric = SegmentationMetrics(CLASSES, per_scene=True)
    metric.update(batch, prediction)
    found = metric.compute()
    assert list(found["scene"]) == ["scene0", "scene1"]
    assert "scene" not in measure(batch, prediction)


def test_classes_that_a_data_set_never_labels_do_not_count_there(six_images):
    batch, prediction = six_images
    both = SegmentationMetrics(CLASSES, unannotated={"idd": {"train"}})
    batch["dataset"] = ["cityscapes"] * 3 + ["idd"] * 3
    prediction.logits[:, CLASSES.index("train"), :2] = 50  # predicted, though no label shows it
    both.update(batch, prediction)
    found = both.compute()
    assert found["dataset"]["idd"]["class_iou"]["train"] is None
    assert found["dataset"]["cityscapes"]["class_iou"]["train"] == 0
    assert found["total"]["class_iou"]["train"] == 0
    plain = SegmentationMetrics(CLASSES)
    plain.update(batch, prediction)
    others = [v for k, v in plain.compute()["dataset"]["idd"]["class_iou"].items() if k != "train"]
    assert found["dataset"]["idd"]["miou"] == pytest.approx(sum(others) / len(others))


ROAD_19 = tuple(f"class {index}" for index in range(19))
SUBSETS = {
    "16": tuple(index for index in range(19) if index not in (9, 14, 16)),
    "13": tuple(index for index in range(19) if index not in (3, 4, 5, 9, 14, 16)),
}


def road_labels(seed):
    """Labels (2, 40, 50) of all 19 classes with void, and a prediction that is often right."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 19, (2, 40, 50), generator=generator, dtype=torch.uint8)
    guess = torch.randint(0, 19, (2, 40, 50), generator=generator)
    right = torch.rand(2, 40, 50, generator=generator) < 0.7
    predicted = torch.where(right, label.long(), guess)
    label[0, :5] = VOID
    return {"label": label, "id": ["a", "b"]}, predicted


def subset_means(batch, predicted, **settings):
    metric = SegmentationMetrics(ROAD_19, subsets=SUBSETS, **settings)
    metric.update(batch, one_hot(predicted, 19))
    return metric.compute()["total"]


def test_means_over_classes_that_are_never_predicted_are_a_factor_of_the_whole():
    batch, predicted = road_labels(0)
    predicted[torch.isin(predicted, torch.tensor([9, 14, 16]))] = 0
    found = subset_means(batch, predicted)
    assert found["class_iou"]["class 9"] == 0
    assert found["miou_16"] == pytest.approx(19 / 16 * found["miou"], rel=1e-12)
    ious = np.array(list(found["class_iou"].values()))
    for name, ids in SUBSETS.items():
        assert found[f"miou_{name}"] == pytest.approx(ious[list(ids)].mean(), rel=1e-12)


def test_the_factor_is_wrong_where_such_classes_are_predicted():
    found = subset_means(*road_labels(0))
    assert found["class_iou"]["class 9"] > 0
    assert abs(found["miou_16"] - 19 / 16 * found["miou"]) > 1
    ious = np.array(list(found["class_iou"].values()))
    assert found["miou_13"] == pytest.approx(ious[list(SUBSETS["13"])].mean(), rel=1e-12)


def test_pixels_of_a_left_out_class_count_against_what_they_are_taken_for():
    batch, predicted = road_labels(1)
    truck = batch["label"] == 14
    predicted[truck] = 13
    found = subset_means(batch, predicted)
    unshared = {**batch, "label": batch["label"].masked_fill(truck, VOID)}
    without = subset_means(unshared, predicted)
    assert without["class_iou"]["class 13"] > found["class_iou"]["class 13"] + 10
    assert without["miou_16"] > found["miou_16"]


def test_absent_classes_are_left_out_of_subsets_and_an_empty_subset_is_none():
    label = torch.zeros(1, 2, 4, dtype=torch.uint8)
    metric = SegmentationMetrics("abcd", subsets={"first": (0, 3), "last": (2, 3)})
    metric.update({"label": label, "id": ["a"]}, one_hot(label.long(), 4))
    found = metric.compute()["total"]
    assert found["miou_first"] == 100
    assert found["miou_last"] is None
    assert metric.units["miou_first"] == "percent"
    assert found.keys() == metric.units.keys() != SegmentationMetrics.units.keys()


def test_subsets_have_intervals_too():
    batch, predicted = road_labels(2)
    found = subset_means(batch, predicted, bootstrap=Bootstrap(20, 0))
    low, high = found["intervals"]["miou_16"]
    assert low <= found["miou_16"] <= high
    assert low < high
