import numpy as np
import pytest
import torch

from datasets.camvid import CamVid
from datasets.cityscapes import Cityscapes
from datasets.class_uniform import find_centroids
from datasets.damage import DamagedLabels
from datasets.statistics import check_data, class_weights, inverse_proportions
from tests.datasets import layouts
from tests.datasets.toys import Toy


@pytest.fixture
def root(tmp_path):
    return layouts.camvid(tmp_path / "camvid")


def test_the_counts_are_those_of_the_samples(root):
    dataset = CamVid(root, "train")
    report = check_data(dataset)
    labels = torch.stack([sample["label"] for sample in dataset])
    assert report.pixels.tolist() == [int((labels == c).sum()) for c in range(11)]
    assert report.images.tolist() == [int((labels == c).any((1, 2)).sum()) for c in range(11)]
    assert report.void_pixels == int((labels == 255).sum())
    assert report.sizes == {layouts.SIZE: 6}
    assert report.problems == []


def test_the_real_camvid_has_its_published_shares(camvid_root):
    """Against the table that comes with the data, of pixels with void, in percent."""
    report = check_data(CamVid(camvid_root, "val"), decode_images=False)
    total = report.pixels.sum() + report.void_pixels
    published = [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22]
    np.testing.assert_allclose(100 * report.pixels / total, published, atol=0.006)
    assert report.images.tolist() == [101] * 11
    assert report.raw_values == list(range(12))


def test_generated_labels_are_counted_too():
    report = check_data(Toy())
    labels = torch.stack([sample["label"] for sample in Toy()])
    assert report.pixels.tolist() == labels.flatten().bincount(minlength=3).tolist()
    assert "toy, split train: 12 images\n" in str(report)


def test_the_report_reads_well(root):
    for path in (root / "valannot").iterdir():
        layouts.write_label(path, layouts.striped([0, 0, 0, 1]))
    lines = str(check_data(CamVid(root, "val"))).splitlines()
    assert lines[:3] == [
        f"camvid, split val: 2 images in {root}",
        "sizes (rows x columns): 6x8 (2)",
        "label values found: 0, 1",
    ]
    assert lines[3].startswith("label map: 0 = sky; 1 = building;")
    assert lines[3].endswith("11, 255 = void")
    assert lines[5].split() == [
        "train",
        "id",
        "class",
        "label",
        "ids",
        "pixels",
        "%",
        "images",
        "weight",
    ]
    assert lines[6].split() == ["0", "sky", "0", "75.0000", "2", "0.6667"]
    assert lines[7].split() == ["1", "building", "1", "25.0000", "2", "2"]
    assert lines[8].split() == ["2", "pole", "2", "-", "absent", "0"]
    assert lines[17].split() == ["255", "void", "11,", "255", "0.0000"]
    assert "classes without a pixel: pole, road, pavement" in lines[19]
    assert lines[-1] == "no problems"


def test_all_offending_files_are_found(root):
    images, labels = root / "train", root / "trainannot"
    layouts.write_label(labels / "0001TP_train00000.png", layouts.striped([0, 99]))
    layouts.write_label(labels / "0001TP_train00003.png", layouts.filled(1, (6, 9)))
    layouts.truncate(labels / "0006R0_train00001.png")
    layouts.truncate(images / "0006R0_train00004.png")
    report = check_data(CamVid(root, "train"))
    fragments = [
        "annot/0001TP_train00000.png: label value 99 outside",
        "annot/0001TP_train00003.png has 6x9 pixels, its image",
        "annot/0006R0_train00001.png cannot be decoded",
        "train/0006R0_train00004.png cannot be decoded",
    ]
    assert len(report.problems) == 4
    for fragment, problem in zip(fragments, report.problems, strict=True):
        assert fragment in problem
    assert "4 problems:" in str(report)
    assert len(check_data(CamVid(root, "train"), decode_images=False).problems) == 3


def test_masks_of_0_and_255_in_many_classes_are_a_problem(tmp_path):
    root = layouts.cityscapes(tmp_path)
    labels = sorted(tmp_path.rglob("*labelIds.png"))
    for path in labels:
        layouts.write_label(path, layouts.striped([0, 255]))
    (problem,) = check_data(Cityscapes(root, "train")).problems
    assert "all labels hold only the values 0 and 255. It looks like the mask of one obj" in problem
    layouts.write_label(labels[0], layouts.filled(7))
    report = check_data(Cityscapes(root, "train"))
    assert report.problems == []
    assert "3 images are void throughout: aachen_000000_000001, bonn" in str(report)


def test_weights_are_inverse_proportions():
    weights = inverse_proportions(np.array([60, 30, 0, 10]))
    np.testing.assert_allclose(weights, [1 / (3 * 0.6), 1 / (3 * 0.3), 0, 1 / (3 * 0.1)])
    assert np.array([0.6, 0.3, 0, 0.1]) @ weights == pytest.approx(1)


def test_weights_are_measured_once_and_kept(root, tmp_path):
    dataset = CamVid(root, "train")
    weights = class_weights(dataset, tmp_path / "kept")
    assert weights.dtype == torch.float32
    report = check_data(dataset)
    share = torch.from_numpy(report.pixels / report.pixels.sum()).float()
    assert float(share @ weights) == pytest.approx(1, abs=1e-6)

    dataset.read_raw_label = None  # a second measurement would fail
    assert torch.equal(class_weights(dataset, tmp_path / "kept"), weights)
    layouts.write_label(root / "trainannot/0001TP_train00000.png", layouts.filled(3))
    assert not torch.equal(class_weights(CamVid(root, "train"), tmp_path / "kept"), weights)
    assert len(list((tmp_path / "kept").glob("*.json"))) == 2


def test_weights_of_bad_or_empty_labels_are_refused(root, tmp_path):
    for path in (root / "valannot").iterdir():
        layouts.write_label(path, layouts.filled(11))
    with pytest.raises(ValueError, match="camvid, split 'val': no label holds a labelled pixel"):
        class_weights(CamVid(root, "val"), tmp_path)
    for path in (root / "testannot").iterdir():
        layouts.write_label(path, layouts.filled(77))
    with pytest.raises(
        ValueError, match=r"label value 77 outside .* \(4 such problems in all; --che"
    ):
        class_weights(CamVid(root, "test"), tmp_path)


def test_nothing_is_kept_of_labels_from_elsewhere(tmp_path):
    root, made = layouts.camvid(tmp_path / "camvid"), {"value": 1}

    def source(item):
        """What was made last, but for one pixel."""
        label = torch.full(layouts.SIZE, made["value"], dtype=torch.uint8)
        label[0, 0] = 2
        return label

    dataset = CamVid(root, "train", label_source=source)
    for value in (1, 3):
        made["value"] = value
        weights = class_weights(dataset, tmp_path)
        assert weights.nonzero().flatten().tolist() == sorted([2, value])
        found = find_centroids(dataset, 3, tmp_path)
        assert [index for index, rows in enumerate(found) if len(rows)] == sorted([2, value])


def test_class_weights_are_those_of_damaged_labels(tmp_path):
    root, damage = layouts.camvid(tmp_path / "camvid"), DamagedLabels(1.0, dilate=1)
    dataset = CamVid(root, "train", damage=damage)
    pixels = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        pixels += np.bincount(dataset[index]["label"].numpy().ravel(), minlength=256)
    assert not np.array_equal(pixels[:11], check_data(CamVid(root, "train")).pixels)
    expected = inverse_proportions(pixels[:11]).astype(np.float32)
    np.testing.assert_array_equal(class_weights(dataset, tmp_path / "kept"), expected)
    found = find_centroids(dataset, 4, tmp_path / "kept")
    assert [len(rows) > 0 for rows in found] == (pixels[:11] > 0).tolist()
