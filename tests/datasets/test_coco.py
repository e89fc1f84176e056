import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from datasets.coco import COCO14
from datasets.statistics import check_data
from datasets.taxonomy import VOC, names_of
from datasets.taxonomy_coco import COCO, COCO_80, COCO_UNUSED_IDS
from tests.datasets import layouts


def test_the_classes_are_the_categories_by_id():
    meta = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert len(COCO) == len(meta) == 91
    names = names_of(COCO)
    unused = tuple(index for index, name in enumerate(meta) if name == "N/A")
    assert unused == COCO_UNUSED_IDS
    for index, name in enumerate(meta):
        assert index in (0, *unused) or names[index] == name
    assert len(set(names)) == 91
    assert names[0] == "background"
    assert len({entry.colour for entry in COCO}) == 91
    assert COCO[:21] != VOC  # other classes, the same palette
    assert [entry.colour for entry in COCO[:21]] == [entry.colour for entry in VOC]


def test_the_eighty_classes_that_are_annotated():
    assert len(COCO_80) == 80
    assert COCO_80[:3] == ("person", "bicycle", "car")
    assert COCO_80[-1] == "toothbrush"
    assert not {"street sign", "mirror", "background"} & set(COCO_80)


def test_the_layout_of_weak_supervision(tmp_path):
    layouts.coco14(tmp_path)
    for split in ("train", "val"):
        dataset = COCO14(tmp_path, split)
        assert [item.id for item in dataset.items] == [
            f"COCO_{split}2014_{index:012d}" for index in range(2)
        ]
        assert dataset.num_classes == 91
        assert dataset[1]["label"][0, :4].tolist() == [0, 1, 90, 255]
        assert {item.label.parent.name for item in dataset.items} == {"class_labels"}
    assert not check_data(dataset).problems


def test_images_may_lie_in_the_folders_of_the_archives(tmp_path):
    layouts.coco14(tmp_path)
    flat = COCO14(tmp_path, "val")
    (tmp_path / "images/val2014").mkdir()
    for path in tmp_path.glob("images/*val*.jpg"):
        path.rename(path.parent / "val2014" / path.name)
    moved = COCO14(tmp_path, "val")
    assert [item.id for item in moved.items] == [item.id for item in flat.items]
    assert torch.equal(moved[0]["image"], COCO14(tmp_path, "val")[0]["image"])
    assert len(COCO14(tmp_path, "train")) == 2


def test_what_is_missing_is_named(tmp_path):
    layouts.coco14(tmp_path)
    (tmp_path / "voc_format/class_labels/COCO_val2014_000000000001.png").unlink()
    with pytest.raises(ValueError, match=r"val\.txt lists COCO_val2014_0+1, but .* no such label"):
        COCO14(tmp_path, "val")
    assert len(COCO14(tmp_path, "val", labelled=False)) == 2
    (tmp_path / "voc_format/val.txt").unlink()
    with pytest.raises(ValueError, match=r"voc_format/val\.txt does not exist; .* train\.txt"):
        COCO14(tmp_path, "val")


def test_a_value_above_the_ids_is_named(tmp_path):
    layouts.coco14(tmp_path, ids=(0, 91))
    with pytest.raises(ValueError, match="label value 91 outside the classes of coco14"):
        COCO14(tmp_path, "train")[0]
