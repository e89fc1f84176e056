import numpy as np
import pytest
import torch

from metrics.per_image import PerImageCounts
from metrics.segmentation import SegmentationMetrics
from tests.metrics.conftest import CLASSES, make_batch, part
from utils.statistics import iou_percent
from utils.types import Prediction


def count(*batches):
    found = PerImageCounts(CLASSES)
    for batch, prediction in batches:
        found.update(batch, prediction)
    found.all_reduce()
    return found


def test_a_hand_worked_image():
    batch = {"label": torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8), "id": ["a"]}
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 0]]]), 5).permute(0, 3, 1, 2)
    found = count((batch, Prediction(logits.float())))
    assert found.counts[0].tolist() == [[1, 1, 0, 0, 0], [2, 1, 0, 0, 0], [1, 2, 0, 0, 0]]


def test_sums_over_the_images_are_those_of_the_metric(six_images):
    found = count(six_images)
    metric = SegmentationMetrics(CLASSES)
    metric.update(*six_images)
    pairs = sum(sums["pairs"] for sums in metric.sums.values())[: len(CLASSES)].numpy()
    hits, in_label, in_prediction = found.counts.sum(0)
    np.testing.assert_array_equal(hits, pairs.diagonal())
    np.testing.assert_array_equal(in_label, pairs.sum(1))
    np.testing.assert_array_equal(in_prediction, pairs.sum(0))
    total = metric.compute()["total"]
    assert in_label.sum() == total["pixels"]
    assert iou_percent(*found.counts.sum(0).astype(float))[-1] == pytest.approx(total["miou"])


def test_batches_and_their_order_do_not_matter(six_images):
    whole = count(six_images)
    parts = count(part(*six_images, [4, 1, 5]), part(*six_images, [0]), part(*six_images, [3, 2]))
    assert whole.ids == parts.ids == sorted(whole.ids)
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_processes_are_put_together(six_images, monkeypatch):
    other = count(part(*six_images, [0, 3]))
    monkeypatch.setattr(
        "metrics.per_image.all_gather_object", lambda mine: [mine, (other.ids, other.counts)]
    )
    joined = count(part(*six_images, [1, 2, 4, 5]))
    monkeypatch.undo()
    whole = count(six_images)
    assert joined.ids == whole.ids
    np.testing.assert_array_equal(joined.counts, whole.counts)


def test_a_process_without_images():
    found = count()
    assert found.ids == []
    assert found.counts.shape == (0, 3, len(CLASSES))
    assert found.compute() == {}


def test_the_file(six_images, tmp_path):
    found = count(six_images)
    found.save(tmp_path / "x.images.npz")
    with np.load(tmp_path / "x.images.npz", allow_pickle=False) as file:
        assert file["ids"].tolist() == found.ids
        assert tuple(file["classes"]) == CLASSES
        for index, name in enumerate(("hits", "in_label", "in_prediction")):
            assert file[name].dtype == np.int64
            np.testing.assert_array_equal(file[name], found.counts[:, index])


def test_sizes_have_to_agree():
    batch, prediction = make_batch()
    with pytest.raises(ValueError, match="image0: the label has 9x11"):
        PerImageCounts(CLASSES).update(batch, Prediction(prediction.logits[..., :5]))


@pytest.mark.gpu
def test_the_gpu_counts_alike(six_images):
    batch, prediction = six_images
    there = count(({**batch, "label": batch["label"].cuda()}, Prediction(prediction.logits.cuda())))
    np.testing.assert_array_equal(there.counts, count(six_images).counts)
