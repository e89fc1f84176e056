import numpy as np
import pytest
import torch

from datasets.statistics import check_data
from datasets.streets import Streets, StreetsObjects
from datasets.streets.objects import kind_of, plan_with_few_objects
from datasets.streets.planning import plan_scene
from datasets.streets.render import render
from datasets.tags import ImageTags
from datasets.taxonomy import ROAD, ROAD_TRAIN_IDS, STREET_OBJECTS, STREET_OBJECTS_TRAIN_IDS

SIZE = (64, 128)
THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")


def test_the_classes_are_background_and_the_road_users():
    dataset = StreetsObjects(None, "val", num_images=1)
    assert dataset.class_names == ("background", *THINGS)
    assert dataset.background == 0
    assert Streets.background is None
    colours = dict(ROAD)
    assert all(colours[name] == colour for name, colour in STREET_OBJECTS[1:])
    for label_id, train_id in ROAD_TRAIN_IDS.items():
        name = ROAD[train_id].name if train_id != 255 else None
        expected = THINGS.index(name) + 1 if name in THINGS else 0
        if name is None and label_id not in (4, 5):  # furniture without a class
            expected = 255
        assert STREET_OBJECTS_TRAIN_IDS[label_id] == expected


def test_some_objects_are_missing_and_all_else_is_the_same():
    dropped = 0
    for index in range(12):
        whole, few = plan_scene(3, "train", index), plan_with_few_objects(3, "train", index)
        assert set(map(repr, few.things)) <= set(map(repr, whole.things))
        missing = [thing for thing in whole.things if thing not in few.things]
        assert all(kind_of(thing) is not None for thing in missing)
        kept = {kind_of(thing) for thing in few.things} - {None}
        near = {kind_of(thing) for thing in missing if thing.z <= 30}
        assert not kept & near  # a kind is there or is not
        assert (whole.camera, whole.street, whole.sun) == (few.camera, few.street, few.sun)
        dropped += len(missing)
    assert dropped > 20
    assert plan_with_few_objects(3, "train", 5) == plan_with_few_objects(3, "train", 5)


def test_riders_go_with_what_they_ride():
    for index in range(60):
        things = plan_with_few_objects(0, "train", index).things
        mounts = {thing.model for thing in things}
        for thing in things:
            assert thing.model != "rider" or thing.options[1] in mounts


@pytest.mark.parametrize("condition", [None, "night", "game"])
def test_labels_are_those_of_the_drawing(condition):
    dataset = StreetsObjects(None, "train", num_images=3, image_size=SIZE, condition=condition)
    for index in range(3):
        picture = render(0, "train", index, condition or "clear", SIZE, few_objects=True)
        image, label = dataset.read(index)
        assert (image.numpy() == picture.image).all()
        assert (dataset.read_raw_label(index).numpy() == picture.label_ids).all()
        expected = np.vectorize(STREET_OBJECTS_TRAIN_IDS.get)(picture.label_ids)
        assert (label.numpy() == expected).all()
    assert torch.equal(dataset.decode_label(label), label)
    report = check_data(dataset)
    assert not report.problems
    assert report.pixels[0] > report.pixels[1:].sum()


def test_the_adverse_conditions_show_the_same_objects():
    clear, snow = (
        StreetsObjects(None, "val", num_images=2, image_size=SIZE, condition=condition)
        for condition in (None, "snow")
    )
    assert torch.equal(clear.read(1)[1], snow.read(1)[1])
    assert not torch.equal(clear.read(1)[0], snow.read(1)[0])
    assert clear.origins() == Streets(None, "val", num_images=2).origins()
    assert clear.fingerprint() != Streets(None, "val", num_images=2, image_size=SIZE).fingerprint()


def test_image_level_tags_tell_images_apart():
    dataset = StreetsObjects(None, "train", num_images=120, image_size=SIZE)
    tags = ImageTags("masks", dataset)
    rows = torch.stack([tags(item) for item in dataset.items])
    shares = dict(zip(dataset.class_names, rows.mean(0).tolist(), strict=True))
    assert shares.pop("background") == 1
    assert 0.35 < shares["car"] < 0.6
    assert 0.25 < shares["person"] < 0.55
    assert all(0.02 < share < 0.6 for share in shares.values()), shares
    patterns = {tuple(row) for row in rows.tolist()}
    assert len(patterns) > 30
    assert (rows[:, 1:].sum(1) == 0).float().mean() < 0.2
