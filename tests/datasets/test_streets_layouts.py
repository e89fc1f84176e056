import numpy as np
import pytest
from PIL import Image

from datasets.acdc import ACDC
from datasets.cityscapes import Cityscapes
from datasets.streets import write_layout
from datasets.streets.render import render
from datasets.streets.towns import TOWNS
from datasets.taxonomy import VOC as VOC_CLASSES
from datasets.voc import VOC

SIZE = (64, 128)


def test_cityscapes(tmp_path):
    write_layout("cityscapes", tmp_path, images_per_split=3, size=SIZE, seed=4)
    first = tmp_path / "leftImg8bit/train/altbruck/altbruck_000000_000019_leftImg8bit.png"
    label = tmp_path / "gtFine/train/altbruck/altbruck_000000_000019_gtFine_labelIds.png"
    picture = render(4, "train", 0, "clear", SIZE)
    assert (np.asarray(Image.open(first)) == picture.image.transpose(1, 2, 0)).all()
    with Image.open(label) as file:
        assert file.mode == "L"
        ids = np.asarray(file)
    assert (ids == picture.label_ids).all()
    assert ids.max() <= 33
    for split, towns in TOWNS.items():
        loaded = Cityscapes(tmp_path, split)
        assert len(loaded) == 3
        assert {item.scene for item in loaded.items} <= {town.name for town in towns}
    image, train_ids = Cityscapes(tmp_path, "train").read(0)
    assert (image.numpy() == picture.image).all()
    assert (train_ids.numpy() == picture.train_ids).all()
    assert (Cityscapes(tmp_path, "test").read(1)[1] == 255).all()


def test_acdc(tmp_path):
    write_layout("acdc", tmp_path, images_per_split=2, size=SIZE, seed=4)
    folder = tmp_path / "gt/night/val"
    (sequence, *_) = sorted(folder.iterdir())
    names = sorted(path.name for path in sequence.iterdir())
    assert names == [
        f"{sequence.name}_frame_000000_gt_labelIds.png",
        f"{sequence.name}_frame_000000_gt_labelTrainIds.png",
    ]
    assert not (tmp_path / "gt/fog/test").exists()
    assert len(list((tmp_path / "rgb_anon/fog/test").glob("*/*_rgb_anon.png"))) == 2
    loaded = ACDC(tmp_path, "train")
    assert sorted({item.condition for item in loaded.items}) == ["fog", "night", "rain", "snow"]
    assert len(loaded) == 8
    for index, item in enumerate(ACDC(tmp_path, "val", condition="snow").items):
        assert item.condition == "snow"
        picture = render(4, "val", index, "snow", SIZE)
        image, label = ACDC(tmp_path, "val", condition="snow").read(index)
        assert (image.numpy() == picture.image).all()
        assert (label.numpy() == picture.train_ids).all()


def test_voc(tmp_path):
    write_layout("voc", tmp_path, images_per_split=3, size=SIZE, seed=4)
    folder = tmp_path / "VOCdevkit/VOC2012"
    listed = (folder / "ImageSets/Segmentation/trainval.txt").read_text().split()
    assert listed == [f"2012_{i:06d}" for i in range(6)]
    with Image.open(folder / "SegmentationClass/2012_000000.png") as file:
        assert file.mode == "P"
        palette = np.array(file.getpalette()).reshape(-1, 3)
        ids = np.asarray(file)
    assert (palette[:21] == [entry.colour for entry in VOC_CLASSES]).all()
    picture = render(4, "train", 0, "clear", SIZE)
    by_name = {entry.name: i for i, entry in enumerate(VOC_CLASSES)}
    expected = np.zeros(SIZE, np.uint8)
    pairs = {26: "car", 24: "person", 25: "person", 28: "bus", 31: "train", 32: "motorbike"}
    for label_id, name in {**pairs, 33: "bicycle"}.items():
        expected[picture.label_ids == label_id] = by_name[name]
    inside = ids != 255
    assert (ids[inside] == expected[inside]).all()
    assert set(np.unique(ids)) >= {0, by_name["car"], 255}
    assert 0 < (~inside).mean() < 0.35
    loaded = VOC(tmp_path, "val")
    assert len(loaded) == 3
    assert loaded.read(0)[0].shape == (3, *SIZE)
    with Image.open(folder / "JPEGImages/2012_000000.jpg") as file:
        assert file.format == "JPEG"


def test_unknown_layout_and_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be written as 'kitti', only as cityscapes"):
        write_layout("kitti", tmp_path, images_per_split=1, size=SIZE)
    with pytest.raises(ValueError, match="images_per_split must be 1 or more, not 0"):
        write_layout("voc", tmp_path, images_per_split=0, size=SIZE)
