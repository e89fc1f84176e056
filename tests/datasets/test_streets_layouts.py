import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.acdc import ACDC
from datasets.cityscapes import Cityscapes
from datasets.coco import COCO14
from datasets.gta5 import GTA5
from datasets.lost_and_found import LostAndFound
from datasets.mapillary import Mapillary
from datasets.road_anomaly import RoadAnomaly
from datasets.robotcar import CityscapesRobotCar, RobotCar
from datasets.smiyc import SMIYCAnomaly, SMIYCObstacle
from datasets.streets import write_layout
from datasets.streets.layouts import _MAPILLARY_NAMES
from datasets.streets.look import CONDITIONS
from datasets.streets.paints import Surface
from datasets.streets.render import render
from datasets.streets.towns import TOWNS
from datasets.synthia import SYNTHIA
from datasets.taxonomy import ROAD_LABEL_IDS
from datasets.taxonomy import VOC as VOC_CLASSES
from datasets.taxonomy_mapillary import MAPILLARY
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


def test_voc_annotations_name_the_objects_with_their_boxes(tmp_path):
    write_layout("voc", tmp_path, images_per_split=3, size=SIZE, seed=4)
    folder = tmp_path / "VOCdevkit/VOC2012"
    lists = folder / "ImageSets/Segmentation"
    assert (lists / "trainaug.txt").read_text() == (lists / "train.txt").read_text()
    kinds = {24: "person", 25: "person", 26: "car", 28: "bus", 31: "train", 32: "motorbike"}
    for index in range(3):
        root = ElementTree.parse(folder / f"Annotations/2012_{index:06d}.xml").getroot()
        picture = render(4, "train", index, "clear", SIZE)
        assert [root.findtext(f"size/{key}") for key in ("height", "width")] == ["64", "128"]
        names = {one.findtext("name") for one in root.iter("object")}
        ids = set(np.unique(picture.label_ids).tolist())
        assert names == {
            name for label_id, name in {**kinds, 33: "bicycle"}.items() if label_id in ids
        }
        boxed = np.zeros(SIZE, bool)
        for one in root.iter("object"):
            box = [int(one.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = box
            inside = slice(top - 1, bottom), slice(left - 1, right)
            boxed[inside] = True
            of_kind = [
                key
                for key, name in {**kinds, 33: "bicycle"}.items()
                if name == one.findtext("name")
            ]
            mask = np.isin(picture.label_ids[inside], of_kind)
            assert all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        assert boxed[np.isin(picture.label_ids, [*kinds, 33])].all()


def test_voc_of_objects_differs_in_its_scenes_alone(tmp_path):
    write_layout("voc_objects", tmp_path, images_per_split=2, size=SIZE, seed=4)
    loaded = VOC(tmp_path, "val", year="2012_aug")
    picture = render(4, "val", 1, "clear", SIZE, few_objects=True)
    image, label = loaded.read(1)
    assert np.abs(image.numpy().astype(int) - picture.image).mean() < 9  # a JPEG file
    is_car = picture.label_ids == 26
    assert (label.numpy()[is_car & (label.numpy() != 255)] == 7).all()


def test_coco14(tmp_path):
    write_layout("coco14", tmp_path, images_per_split=8, size=SIZE, seed=4)
    surfaces = {24: "person", 25: "person", 26: "car", 27: "truck", 28: "bus", 31: "train",
                32: "motorcycle", 33: "bicycle", 19: "traffic light"}  # fmt: skip
    seen = set()
    for split, first in (("train", 0), ("val", 8)):
        loaded = COCO14(tmp_path, split)
        assert [item.id for item in loaded.items] == [
            f"COCO_{split}2014_{first + index:012d}" for index in range(8)
        ]
        for index in range(8):
            picture = render(4, split, index, "clear", SIZE, few_objects=True)
            expected = np.zeros(SIZE, np.uint8)
            for label_id, name in surfaces.items():
                expected[picture.label_ids == label_id] = loaded.class_names.index(name)
            image, label = loaded.read(index)
            assert (label.numpy() == expected).all()
            assert np.abs(image.numpy().astype(int) - picture.image).mean() < 9
            seen |= set(np.unique(expected).tolist())
    assert {0, 1, 2, 3} <= seen
    with Image.open(loaded.items[0].label) as file:
        assert file.mode == "P"
        palette = np.array(file.getpalette()).reshape(-1, 3)
    assert (palette[:91] == loaded.palette.numpy()).all()


def test_unknown_layout_and_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be written as 'kitti', only as cityscapes"):
        write_layout("kitti", tmp_path, images_per_split=1, size=SIZE)
    with pytest.raises(ValueError, match="images_per_split must be 1 or more, not 0"):
        write_layout("voc", tmp_path, images_per_split=0, size=SIZE)


def ids_of(path):
    with Image.open(path) as file:
        return np.asarray(file)


def strewn(split, index, condition="clear"):
    return render(4, split, index, condition, SIZE, has_obstacles=True)


def assert_ood(dataset, index, picture, known):
    """The sample tells obstacles from known pixels as the picture does."""
    ood = dataset[index]["ood"].numpy()
    unknown = picture.label_ids == 40
    assert unknown.any()
    assert ((ood == 1) == unknown).all()
    assert ((ood == 0) == known).all()
    assert (dataset[index]["label"] == 255).all()


def test_mapillary(tmp_path):
    write_layout("mapillary", tmp_path, images_per_split=3, size=SIZE, seed=4)
    for split, official in (("train", "train"), ("val", "val")):
        loaded = Mapillary(tmp_path, split)
        assert len(loaded) == 3
        assert loaded[0]["image"].shape == (3, *SIZE)
        for index in range(3):
            picture, label = render(4, official, index, "clear", SIZE), loaded.read(index)[1]
            for surface, name in ((7, "Road"), (23, "Sky"), (26, "Car"), (1, "Ego Vehicle")):
                place = loaded.class_names.index(name)
                assert ((label.numpy() == place) == (picture.label_ids == surface)).all()
            assert ((label.numpy() == 255) == (picture.label_ids == 4)).all()
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(config["labels"]) == 66
    assert config["labels"][13]["readable"] == "Road"
    assert config["labels"][13]["color"] == [128, 64, 128]
    with Image.open(tmp_path / "training/labels/streets_train_000000.png") as file:
        assert file.mode == "P"
        assert file.getpalette()[3 * 13 : 3 * 14] == [128, 64, 128]


def test_every_class_of_streets_is_one_of_mapillary():
    names = {entry.name for entry in MAPILLARY}
    assert set(_MAPILLARY_NAMES.values()) <= names
    assert set(Surface) - set(_MAPILLARY_NAMES) == {Surface.STATIC, Surface.OBSTACLE}
    assert {*ROAD_LABEL_IDS} <= {int(surface) for surface in _MAPILLARY_NAMES}


def test_lost_and_found(tmp_path):
    write_layout("lost_and_found", tmp_path, images_per_split=3, size=SIZE, seed=4)
    for split in ("train", "test"):
        loaded = LostAndFound(tmp_path, split)
        assert len(loaded) == 3
        for item in loaded.items:
            index = int(item.id.split("_")[-2])
            picture = strewn(split, index)
            place = loaded.items.index(item)
            assert (loaded.read(place)[0].numpy() == picture.image).all()
            assert_ood(loaded, place, picture, picture.label_ids == 7)
        by_label_ids = LostAndFound(tmp_path, split, ood_ids=(2,))
        for place in range(3):
            assert torch.equal(by_label_ids[place]["ood"], loaded[place]["ood"])


def test_hazards_of_lost_and_found_have_ids_of_their_own(tmp_path):
    write_layout("lost_and_found", tmp_path, images_per_split=4, size=SIZE, seed=4)
    found = set()
    for path in sorted(tmp_path.glob("gtCoarse/*/*/*_labelIds.png")):
        ids = ids_of(path)
        train_ids = ids_of(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
        hazards = (ids >= 2) & (ids <= 30)
        count = cv2.connectedComponents(hazards.astype(np.uint8), connectivity=8)[0] - 1
        assert set(ids[hazards]) == set(range(2, 2 + count))
        assert ((train_ids == 2) == hazards).all()
        assert ((train_ids == 1) == (ids == 1)).all()
        assert ((train_ids == 0) == (ids == 33)).all()
        assert ((train_ids == 255) == (ids == 0)).all()
        found |= set(train_ids.ravel().tolist())
    assert found == {0, 1, 2, 255}


@pytest.mark.parametrize(("layout", "value"), [("road_anomaly", 2), ("road_anomaly_repackaged", 1)])
def test_road_anomaly(tmp_path, layout, value):
    write_layout(layout, tmp_path, images_per_split=3, size=SIZE, seed=4)
    loaded = RoadAnomaly(tmp_path, "test")
    assert len(loaded) == 3
    for index, item in enumerate(loaded.items):
        picture = strewn("test", index)
        assert set(np.unique(ids_of(item.label))) == {0, value}
        assert_ood(loaded, index, picture, picture.label_ids != 40)
        with Image.open(item.image) as file:
            assert file.format == "JPEG"
    frames = tmp_path / "frame_list.json"
    if layout == "road_anomaly":
        listed = json.loads(frames.read_text())
        assert listed == [f"obstacles0{i}_streets.jpg" for i in range(3)]
    else:
        assert not frames.exists()
        assert (tmp_path / "original/obstacles02_streets.jpg").is_file()


def test_smiyc(tmp_path):
    for kind, name in ((SMIYCAnomaly, "smiyc_anomaly"), (SMIYCObstacle, "smiyc_obstacle")):
        root = tmp_path / name
        write_layout(name, root, images_per_split=6, size=SIZE, seed=4)
        loaded, labelled = kind(root, "val"), kind(root, "labelled")
        assert len(list((root / "images").iterdir())) == 12
        assert len(list((root / "labels_masks").iterdir())) == len(loaded) == len(labelled) == 6
        for place, item in enumerate(loaded.items):
            number = int(item.id.removeprefix("validation").strip("_"))
            if kind is SMIYCAnomaly:
                picture = strewn("val", number)
                known = (picture.label_ids != 40) & (picture.label_ids != 1)
            else:
                picture = strewn("val", number - 1, CONDITIONS[(number - 1) % 5])
                known = picture.label_ids == 7
            assert_ood(loaded, place, picture, known)
            difference = loaded.read(place)[0].numpy().astype(int) - picture.image
            assert np.abs(difference).mean() < 9  # a JPEG file of the same picture


def test_gta5(tmp_path):
    write_layout("gta5", tmp_path, images_per_split=3, size=SIZE, seed=4)
    loaded = GTA5(tmp_path, "train")
    assert [item.id for item in loaded.items] == ["00001", "00002", "00003"]
    for index in range(3):
        picture = render(4, "train", index, "game", SIZE)
        image, label = loaded.read(index)
        assert (image.numpy() == picture.image).all()
        assert (label.numpy() == picture.train_ids).all()
    with Image.open(tmp_path / "labels/00002.png") as file:
        assert file.mode == "P"
        palette = np.array(file.getpalette()).reshape(-1, 3)
    assert (palette[list(ROAD_LABEL_IDS)] == loaded.palette.numpy()).all()


def test_synthia(tmp_path):
    write_layout("synthia", tmp_path, images_per_split=4, size=SIZE, seed=4)
    loaded = SYNTHIA(tmp_path, "train")
    assert [item.id for item in loaded.items] == [f"{index:07d}" for index in range(4)]
    absent = [loaded.class_names.index(name) for name in SYNTHIA.unannotated]
    seen = set()
    for index in range(4):
        picture = render(4, "train", index, "game", SIZE)
        image, label = loaded.read(index)
        assert (image.numpy() == picture.image).all()
        is_absent = np.isin(picture.train_ids, absent)
        assert (label.numpy() == np.where(is_absent, 255, picture.train_ids)).all()
        seen |= set(label.unique().tolist())
        stored = cv2.imread(str(loaded.items[index].label), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16
        assert stored.shape == (*SIZE, 3)
        assert (stored[..., 1] > 0).any()  # instances, which must not be read as classes
    assert len(seen) > 8


def test_robotcar(tmp_path):
    write_layout("robotcar", tmp_path, images_per_split=4, size=SIZE, seed=4)
    val = RobotCar(tmp_path, "val")
    assert len({item.scene for item in val.items}) == 3
    for number in range(4):
        place = next(i for i, item in enumerate(val.items) if item.id.endswith(f"{number:06d}"))
        picture = render(4, "val", number, "rain", SIZE)
        image, label = val.read(place)
        assert (image.numpy() == picture.image).all()
        wanted = CityscapesRobotCar.train_ids
        expected = np.array([wanted.get(label_id, 255) for label_id in range(256)], np.uint8)
        assert (label.numpy() == expected[picture.label_ids]).all()
        with Image.open(val.items[place].label) as file:
            assert file.mode == "RGBA"
    train = RobotCar(tmp_path, "train", labelled=False)
    assert len(train) == 4
    assert len({item.scene for item in train.items}) == 3
    assert not (tmp_path / "anno").joinpath("train").exists()
