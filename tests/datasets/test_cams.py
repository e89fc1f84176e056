import json
import pickle

import numpy as np
import pytest
import torch

from datasets.cam_files import CAM_ENDING, encode_cams
from datasets.cams import CAMS, CamReader
from datasets.camvid import CamVid
from datasets.map_folders import MANIFEST, origin
from tests.datasets import layouts

COMMAND = "python main.py --make_cams --ckpt cam.pth"


def maps_of(index):
    """Train ids and maps of an image: as many as its place says, three at most."""
    rng = np.random.default_rng(index)
    classes = np.sort(rng.permutation(11)[: index % 4])
    return classes.astype(np.int64), rng.random((len(classes), *layouts.SIZE)).astype(np.float16)


def write_cams(directory, dataset, /, **changes):
    """A folder as ``--make_cams`` leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(dataset.items):
        (directory / f"{item.id}{CAM_ENDING}").write_bytes(encode_cams(*maps_of(index)))
    manifest = {
        "format": 1,
        "content": "class activation maps",
        **origin(CAMS, dataset),
        "classes": [{"name": one.name, "colour": list(one.colour)} for one in dataset.classes],
        "command": COMMAND,
    }
    (directory / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    return directory


@pytest.fixture
def dataset(tmp_path):
    return CamVid(layouts.camvid(tmp_path / "camvid"), "train", labelled=False)


@pytest.fixture
def directory(tmp_path, dataset):
    return write_cams(tmp_path / "cams", dataset)


@pytest.fixture
def foreign(tmp_path, dataset):
    """Maps of another program, in no order and with other types."""
    directory = tmp_path / "foreign"
    directory.mkdir()
    for index, item in enumerate(dataset.items):
        classes, maps = maps_of(index)
        classes, maps = classes[::-1].astype(np.uint8), maps[::-1].astype(np.float64)
        np.savez(directory / f"{item.id}{CAM_ENDING}", classes=classes, maps=maps)
    return directory


def replace_cams(directory, item, classes, maps):
    np.savez(directory / f"{item.id}{CAM_ENDING}", classes=classes, maps=maps)
    return directory / f"{item.id}{CAM_ENDING}"


@pytest.mark.parametrize("folder", ["directory", "foreign"])
def test_classes_and_maps_are_read_in_ascending_order(request, folder, dataset):
    reader = CamReader(request.getfixturevalue(folder))
    reader.check(dataset)
    reader = pickle.loads(pickle.dumps(reader))
    for index, item in enumerate(dataset.items):
        classes, maps = reader(item)
        expected = maps_of(index)
        assert (classes.dtype, maps.dtype) == (torch.int64, torch.float32)
        np.testing.assert_array_equal(classes, expected[0])
        np.testing.assert_array_equal(maps, expected[1].astype(np.float32))
    assert reader.classes == dataset.classes


def test_a_folder_without_a_manifest_is_warned_of(foreign, dataset, caplog):
    CamReader(foreign).check(dataset)
    assert f"the maps in {foreign} have no manifest.json" in caplog.text


def test_a_folder_without_maps_says_how_they_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, what in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "is empty")):
        with pytest.raises(ValueError, match=f"{folder} {what}.*--cam_dir"):
            CamReader(folder)


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"dataset": "voc"}, "are of dataset voc, training is on camvid"),
        ({"split": "val"}, "are of split val"),
        ({"fingerprint": "0"}, "are stale"),
        ({"classes": [{"name": "a", "colour": [0, 0, 0]}]}, "are of 1 classes that are not the 11"),
    ],
)
def test_maps_of_other_images_or_classes_are_refused(tmp_path, dataset, changes, wording):
    reader = CamReader(write_cams(tmp_path / "other", dataset, **changes))
    with pytest.raises(ValueError, match=wording) as caught:
        reader.check(dataset)
    assert "python main.py --make_cams --ckpt CHECKPOINT --dataset camvid" in str(caught.value)


@pytest.mark.parametrize("changes", [{"classes": None}, {"classes": [1]}, {"classes": [{}]}])
def test_a_manifest_without_classes_is_damaged(tmp_path, dataset, changes):
    folder = write_cams(tmp_path / "other", dataset, **changes)
    with pytest.raises(ValueError, match=f"{folder / MANIFEST} is damaged"):
        CamReader(folder)


def test_a_manifest_of_other_maps_is_refused(tmp_path, dataset):
    folder = write_cams(tmp_path / "other", dataset, content="pseudo labels")
    with pytest.raises(ValueError, match=f"{folder / MANIFEST} is no manifest of class act"):
        CamReader(folder)


@pytest.mark.parametrize("folder", ["directory", "foreign"])
def test_missing_and_damaged_files_are_named(request, folder, dataset):
    directory = request.getfixturevalue(folder)
    reader = CamReader(directory)
    path = directory / f"{dataset.items[3].id}{CAM_ENDING}"
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    for read in (lambda: reader.check(dataset), lambda: reader(dataset.items[3])):
        with pytest.raises(ValueError, match=f"the class activation map {path} is damaged"):
            read()
    path.unlink()
    with pytest.raises(ValueError, match=f"1 of 6 class activation maps.*{path.name}"):
        reader.check(dataset)
    with pytest.raises(ValueError, match=f"{path} does not exist"):
        reader(dataset.items[3])


@pytest.mark.parametrize(
    ("classes", "maps", "wording"),
    [
        ([1.0], np.zeros((1, *layouts.SIZE)), "not whole numbers"),
        ([1], np.zeros(layouts.SIZE), "not whole numbers"),
        ([1, 2], np.zeros((1, *layouts.SIZE)), "not whole numbers"),
        ([1], np.zeros((1, *layouts.SIZE), np.uint8), "not whole numbers"),
        ([1, 1], np.zeros((2, *layouts.SIZE)), "two maps of one class"),
        ([1], np.full((1, *layouts.SIZE), 1.5), "outside"),
        ([1], np.full((1, *layouts.SIZE), np.nan), "outside"),
        ([11], np.zeros((1, *layouts.SIZE)), "a map of class 11"),
        ([-1], np.zeros((1, *layouts.SIZE)), "a map of class -1"),
        ([1], np.zeros((1, 2, 3)), "has 2x3 pixels"),
    ],
)
def test_what_another_program_wrote_is_checked(foreign, dataset, classes, maps, wording):
    path = replace_cams(foreign, dataset.items[2], np.array(classes), maps)
    with pytest.raises(ValueError, match=wording) as caught:
        CamReader(foreign).check(dataset)
    assert str(path) in str(caught.value)


def test_the_command_names_the_folder_and_the_data(directory, dataset):
    words = CamReader(directory).making_command(dataset).split()
    assert words[:3] == ["python", "main.py", "--make_cams"]
    for flag, value in (
        ("--dataset", "camvid"),
        ("--train_split", "train"),
        ("--data_root", str(dataset.root)),
        ("--cam_dir", str(directory)),
    ):
        assert words[words.index(flag) + 1] == value


def tagged(dataset, index=None, extra=()):
    """Tags that are the classes of the maps; an item is tagged with more."""
    places = {item.id: place for place, item in enumerate(dataset.items)}

    def tags(item):
        shown = torch.zeros(dataset.num_classes)
        shown[maps_of(places[item.id])[0].tolist()] = 1
        if places[item.id] == index:
            shown[list(extra)] = 1
        return shown

    dataset.tags = tags
    return dataset


@pytest.mark.parametrize("folder", ["directory", "foreign"])
def test_maps_that_lack_a_tag_are_named(request, folder, dataset):
    reader = CamReader(request.getfixturevalue(folder))
    reader.check_tags(tagged(dataset))
    absent = next(index for index in range(11) if index not in maps_of(2)[0])
    name = dataset.class_names[absent]
    with pytest.raises(ValueError, match=rf"{dataset.items[2].id}_cam.npz has no map of {name}"):
        reader.check_tags(tagged(dataset, 2, [absent]))


def test_a_map_of_the_background_is_refused(foreign, dataset):
    reader = CamReader(foreign)
    reader.check(dataset)
    reader.background = int(maps_of(1)[0][0])
    with pytest.raises(ValueError, match=f"a map of class {reader.background}, the background"):
        reader(dataset.items[1])
