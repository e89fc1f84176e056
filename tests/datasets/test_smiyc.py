"""The tracks of SegmentMeIfYouCan on tiny files in their layout."""

import pytest

from datasets.smiyc import SMIYCAnomaly, SMIYCObstacle
from tests.datasets import layouts

BOTH = pytest.mark.parametrize("kind", [SMIYCAnomaly, SMIYCObstacle])


@BOTH
def test_validation_images_have_labels(kind, tmp_path):
    dataset = kind(layouts.smiyc(tmp_path), "val")
    assert [item.id for item in dataset.items] == ["validation0000", "validation0001"]
    assert dataset[0]["ood"][0, :3].tolist() == [0, 1, 255]
    assert (dataset[0]["label"] == 255).all()


@BOTH
def test_whoever_has_more_labels_uses_them(kind, tmp_path):
    labelled = ("validation_1", "airplane0000")
    root = layouts.smiyc(tmp_path, labelled, others=("bear0001",))
    assert [item.id for item in kind(root, "labelled").items] == ["airplane0000", "validation_1"]
    assert [item.id for item in kind(root, "val").items] == ["validation_1"]


@BOTH
def test_a_validation_image_without_label_is_named(kind, tmp_path):
    root = layouts.smiyc(tmp_path, others=("validation0002",))
    with pytest.raises(ValueError, match=r"image without label: .*validation0002\.webp; there are"):
        kind(root, "val")
    assert len(kind(root, "labelled")) == 2


@BOTH
def test_a_label_without_image_is_named(kind, tmp_path):
    root = layouts.smiyc(tmp_path)
    (root / "images/validation0001.webp").unlink()
    for split in kind.splits:
        with pytest.raises(ValueError, match=r"label without image: .*0001_labels_semantic\.png"):
            kind(root, split)


@BOTH
def test_other_values_are_refused(kind, tmp_path):
    root = layouts.smiyc(tmp_path)
    path = root / "labels_masks/validation0000_labels_semantic.png"
    layouts.write_label(path, layouts.filled(2))
    with pytest.raises(ValueError, match=f"{kind.name}, whose ids are 0 = known; 1 = unknown; 255"):
        kind(root, "val")[0]


def test_the_tracks_count_objects_of_other_sizes():
    assert SMIYCAnomaly.component_sizes == (500, 100)
    assert SMIYCObstacle.component_sizes == (50, 10)
    assert SMIYCAnomaly.name != SMIYCObstacle.name


def test_test_images_have_no_public_labels(tmp_path):
    root = layouts.smiyc(tmp_path)
    with pytest.raises(ValueError, match="smiyc_anomaly has no split 'test'.*val, labelled"):
        SMIYCAnomaly(root, "test")
