"""RoadAnomaly in both public layouts, on tiny files, and half of the real images."""

import numpy as np
import pytest

from datasets.road_anomaly import RoadAnomaly
from datasets.statistics import check_data
from tests.conftest import shared
from tests.datasets import layouts

NAMES = ["animals31_deer", "cones08_can"]


def test_the_authors_layout(tmp_path):
    dataset = RoadAnomaly(layouts.road_anomaly(tmp_path), "test")
    assert [item.id for item in dataset.items] == NAMES
    assert dataset[1]["ood"][0].tolist() == [0, 1] * 4
    assert dataset.items[1].label == tmp_path / "frames/cones08_can.labels/labels_semantic.png"


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_the_authors_layout_with_other_images(tmp_path, suffix):
    root = layouts.road_anomaly(tmp_path, suffix=suffix)
    assert [item.image.suffix for item in RoadAnomaly(root, "test").items] == [suffix] * 2
    (root / "frame_list.json").unlink()
    assert [item.id for item in RoadAnomaly(root, "test").items] == NAMES


def test_the_repackaged_layout(tmp_path):
    dataset = RoadAnomaly(layouts.road_anomaly_repackaged(tmp_path), "test")
    assert [item.id for item in dataset.items] == NAMES
    assert dataset[0]["ood"][0, :3].tolist() == [0, 1, 255]


def test_what_1_means_follows_from_the_layout(tmp_path):
    dataset = RoadAnomaly(layouts.road_anomaly(tmp_path, ids=(0, 1)), "test")
    with pytest.raises(ValueError, match=r"value 1 outside .* 0 = known; 2 = unknown; 255 = void"):
        dataset[0]


def test_the_list_says_which_frames_count(tmp_path):
    root = layouts.road_anomaly(tmp_path)
    (root / "frame_list.json").write_text('["cones08_can.webp"]')
    assert [item.id for item in RoadAnomaly(root, "test").items] == ["cones08_can"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["cones09.jpg"]', r"lists cones09\.jpg, which is not in .*frames: put it there"),
        ("[", "is not valid JSON"),
        ('{"a": 1}', "must be a list of names"),
        ("[1]", "must be a list of names"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, content, message):
    root = layouts.road_anomaly(tmp_path)
    (root / "frame_list.json").write_text(content)
    with pytest.raises(ValueError, match=rf"frame_list\.json {message}"):
        RoadAnomaly(root, "test")


def test_a_missing_label_or_image_is_named(tmp_path):
    frames = layouts.road_anomaly(tmp_path / "a") / "frames"
    (frames / "animals31_deer.labels/labels_semantic.png").unlink()
    with pytest.raises(
        ValueError, match=r"image without label: .*animals31_deer\.jpg; there are 2"
    ):
        RoadAnomaly(tmp_path / "a", "test")
    (frames / "animals31_deer.jpg").unlink()
    (tmp_path / "a/frame_list.json").unlink()
    assert len(RoadAnomaly(tmp_path / "a", "test")) == 1
    root = layouts.road_anomaly_repackaged(tmp_path / "b")
    (root / "original/animals31_deer.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"label without image: .*labels/animals31_deer\.png; ther"
    ):
        RoadAnomaly(root, "test")


def test_an_image_twice_is_refused(tmp_path):
    root = layouts.road_anomaly(tmp_path)
    layouts.write_image(root / "frames/cones08_can.png")
    with pytest.raises(ValueError, match="have the same name; remove one of them"):
        RoadAnomaly(root, "test")


def test_no_layout_at_all_shows_both(tmp_path):
    with pytest.raises(
        ValueError, match=r"original does not exist; .* is empty.\n(.*\n)* +or orig"
    ):
        RoadAnomaly(tmp_path, "test")


def test_the_real_images():
    dataset = RoadAnomaly(shared("data/roadanomaly"), "test")
    assert len(dataset) == 30
    report = check_data(dataset, decode_images=False)
    assert report.problems == []
    assert report.raw_values == [0, 2]
    assert report.sizes == {(360, 640): 30}
    assert report.images.tolist() == [30, 30]
    share = report.pixels[1] / report.pixels.sum()
    assert 0.08 < share < 0.13
    sample = dataset[0]
    assert sample["image"].shape == (3, 360, 640)
    assert np.unique(sample["ood"]).tolist() == [0, 1]
