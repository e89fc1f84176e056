"""What all data sets of unknown objects share, on one that is made here."""

import pickle
import re
from types import MappingProxyType

import pytest
import torch

from datasets.anomalies import ANOMALY_SIZES, AnomalyDataset
from datasets.base import Item
from datasets.files import by_key, image_files, pair
from datasets.lost_and_found import LostAndFound
from datasets.road_anomaly import RoadAnomaly
from datasets.smiyc import SMIYCAnomaly, SMIYCObstacle
from datasets.statistics import check_data
from datasets.transforms import eval_transform, train_transform
from tests.datasets import layouts

IDS = (0, 1, 7, 255)


class Things(AnomalyDataset):
    """Things on roads."""

    name = "things"
    splits = ("test",)
    layout = "  a/ b/"
    ood_values = MappingProxyType({0: 0, 1: 1, 2: 1, 7: 255, 255: 255})
    component_sizes = ANOMALY_SIZES

    def files(self):
        keyed = [by_key(image_files(self.root / name), self.root / name) for name in "ab"]
        return [Item(*found) for found in pair(*keyed)]


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("x", "y")):
        layouts.write_image(tmp_path / "a" / f"{name}.png", seed=seed)
        layouts.write_label(tmp_path / "b" / f"{name}.png", layouts.striped(IDS))
    return tmp_path


def test_labels_are_void_and_samples_say_what_is_unknown(root):
    dataset = Things(root, "test")
    image, label = dataset.read(1)
    assert image.shape == (3, *layouts.SIZE)
    assert label.dtype == torch.uint8
    assert label.shape == layouts.SIZE
    assert (label == 255).all()
    sample = dataset[0]
    assert (sample["label"] == 255).all()
    assert sample["ood"].dtype == torch.uint8
    assert (sample["ood"] == torch.tensor([0, 1, 255, 255] * 2, dtype=torch.uint8)).all()


def test_there_are_no_classes(root):
    dataset = Things(root, "test")
    assert dataset.num_classes == 0
    assert dataset.class_names == ()
    assert dataset.palette.shape == (0, 3)
    assert dataset.palette.dtype == torch.uint8


def test_maps_follow_the_resize_and_the_random_transforms(root):
    dataset = Things(root, "test", transform=eval_transform((3, 4)))
    sample = dataset[0]
    assert sample["image"].shape == (3, 3, 4)
    assert sample["label"].shape == sample["ood"].shape == (3, 4)
    assert (sample["label"] == 255).all()
    # the nearest pixel of each fourth of the row: columns 1, 3, 5 and 7
    assert sample["ood"][0].tolist() == [1, 255, 1, 255]
    mirrored = Things(root, "test", transform=train_transform("resize", layouts.SIZE, flip=1.0))[0]
    assert mirrored["ood"][0].tolist() == [255, 255, 1, 0] * 2


def test_a_cache_changes_nothing(root, tmp_path):
    small = eval_transform((3, 4))
    for size in (None, small):
        plain = Things(root, "test", transform=size)[1]
        cached = Things(root, "test", transform=size, cache=tmp_path / "cache")[1]
        for name in ("image", "label", "ood"):
            assert torch.equal(plain[name], cached[name])


def test_values_outside_the_mapping_are_refused(root):
    layouts.write_label(root / "b/y.png", layouts.striped([0, 3, 4, 5]))
    dataset = Things(root, "test")
    dataset[0]
    with pytest.raises(
        ValueError,
        match=r"b/y\.png: label values 3-5 outside the classes of things, whose ids are "
        r"0 = known; 1, 2 = unknown; 7, 255 = void$",
    ):
        dataset[1]


def test_a_label_of_another_size_is_refused(root):
    layouts.write_label(root / "b/x.png", layouts.filled(0, (6, 9)))
    with pytest.raises(ValueError, match=r"b/x\.png has 6x9 pixels, its image .*a/x\.png has 6x8"):
        Things(root, "test", transform=eval_transform((3, 4)))[0]


def test_further_ids_may_count_as_unknown(root):
    sample = Things(root, "test", ood_ids=(7, 2))[0]
    assert sample["ood"][0, :4].tolist() == [0, 1, 1, 255]
    assert (sample["label"] == 255).all()
    assert Things.ood_values[7] == 255


@pytest.mark.parametrize("raw", [0, 9])
def test_ids_that_are_known_or_unheard_of_cannot(root, raw):
    message = f"{raw} cannot be out of distribution in things, whose label ids are 0 = known; 1"
    with pytest.raises(ValueError, match=f"^{message}.*: name ids that are void there$"):
        Things(root, "test", ood_ids=(7, raw))


def test_the_report_counts_known_and_unknown_pixels(root):
    layouts.write_label(root / "b/y.png", layouts.filled(0))
    report = check_data(Things(root, "test"))
    pixels = layouts.SIZE[0] * layouts.SIZE[1]
    assert report.pixels.tolist() == [pixels // 4 + pixels, pixels // 4]
    assert report.images.tolist() == [2, 1]
    assert report.void_pixels == pixels // 2
    assert report.problems == report.void_images == []
    text = str(report)
    assert "label map: 0 = known; 1, 2 = unknown; 7, 255 = void" in text
    assert re.search(r"0  known +0 +83\.3333 +2 ", text)
    assert re.search(r"1  unknown +1, 2 +16\.6667 +1 ", text)
    assert text.endswith("no problems")


def test_the_report_lists_what_is_wrong(root):
    layouts.write_label(root / "b/y.png", layouts.filled(99))
    layouts.write_label(root / "b/x.png", layouts.filled(255))
    report = check_data(Things(root, "test"))
    (problem,) = report.problems
    assert "b/y.png: label value 99 outside" in problem
    assert report.void_images == ["x", "y"]
    assert "classes without a pixel: known, unknown" in str(report)


def test_fingerprints_follow_the_files(root):
    before = Things(root, "test").fingerprint()
    assert before == Things(root, "test").fingerprint()
    layouts.write_label(root / "b/x.png", layouts.filled(1))
    assert before != Things(root, "test").fingerprint()


@pytest.mark.parametrize("kind", [LostAndFound, RoadAnomaly, SMIYCAnomaly, SMIYCObstacle])
def test_every_kind_says_what_flags_and_metrics_need(kind, tmp_path):
    assert kind.classes == ()
    assert kind.defaults["val_split"] in kind.splits
    assert kind.defaults["val_batch_size"] == 1
    assert kind.defaults["metrics"] == ["ood", "components"]
    assert kind.component_sizes in ((500, 100), (50, 10))
    assert kind.__doc__.splitlines()[0].endswith(".")
    with pytest.raises(ValueError, match=r"does not exist; .*\nExpected below --data_root .*:\n  "):
        kind(tmp_path, kind.splits[0])


def test_it_reaches_the_workers_of_a_loader(tmp_path):
    built = (
        LostAndFound(layouts.lost_and_found(tmp_path / "laf"), "test"),
        RoadAnomaly(layouts.road_anomaly(tmp_path / "ra"), "test"),
        SMIYCAnomaly(layouts.smiyc(tmp_path / "smiyc"), "val"),
    )
    for dataset in built:
        again = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(again[0]["ood"], dataset[0]["ood"])
