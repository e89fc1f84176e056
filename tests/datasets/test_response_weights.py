import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.base import Item
from datasets.camvid import CamVid
from datasets.label_files import encode_label
from datasets.loaders import eval_batches
from datasets.map_folders import MANIFEST, origin
from datasets.response_weights import RESPONSE_WEIGHTS, ResponseWeights, making_command
from datasets.taxonomy import CAMVID, SegClass
from datasets.transforms import RandomFlip, Transform, eval_transform, train_transform
from datasets.weight_files import encode_weight
from tests.datasets import layouts
from tests.datasets.toys import Toy

CLASSES = (SegClass("road", (1, 2, 3)), SegClass("sky", (4, 5, 6)), SegClass("car", (7, 8, 9)))
COMMAND = "python main.py --ckpt first.pth --make_response_weights"
PUBLISHED, GREY, PALETTE = "three channels", "grey label and weight", "palette label and weight"


def label_of(index, size=layouts.SIZE):
    return np.random.default_rng(100 + index).choice(np.array([0, 1, 2, 255], np.uint8), size)


def levels_of(index, size=layouts.SIZE):
    return np.random.default_rng(index).choice(np.array([255, 113, 28, 13, 12, 0], np.uint8), size)


def write_weights(directory, dataset):
    """A folder as ``--make_response_weights`` leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(dataset.items):
        (directory / f"{item.id}.png").write_bytes(encode_label(label_of(index), len(CLASSES)))
        (directory / f"{item.id}_weight.png").write_bytes(encode_weight(levels_of(index)))
    manifest = {
        "format": 1,
        "content": "response weights",
        **origin(RESPONSE_WEIGHTS, dataset),
        "classes": [{"name": one.name, "colour": list(one.colour)} for one in CLASSES],
        "command": COMMAND,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


def write_foreign(directory, dataset, form):
    """A folder without a manifest, in one of the forms that users bring."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(dataset.items):
        label, levels = label_of(index), levels_of(index)
        path = directory / f"{item.id}.png"
        if form == PUBLISHED:
            Image.fromarray(np.dstack([levels, levels, label])).save(path)
            continue
        layouts.write_label(path, label, palette=form == PALETTE)
        Image.fromarray(levels).save(directory / f"{item.id}_weight.png")
    return directory


@pytest.fixture
def root(tmp_path):
    """Images without any label file."""
    root = layouts.camvid(tmp_path / "camvid")
    for folder in root.glob("*annot"):
        shutil.rmtree(folder)
    return root


@pytest.fixture
def images(root):
    return CamVid(root, "train", labelled=False)


@pytest.fixture
def directory(tmp_path, images):
    return write_weights(tmp_path / "weights", images)


def reader(directory, threshold=0.05, **more):
    return ResponseWeights(directory, threshold=threshold, **more)


def opened(root, weights, **common):
    return CamVid(
        root,
        "train",
        label_source=weights.label,
        classes=weights.classes,
        weight=weights,
        **common,
    )


def change_manifest(directory, **changes):
    path = directory / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_labels_and_factors_reach_the_batch(directory, root, images):
    weights = reader(directory)
    weights.check(images)
    dataset = opened(root, weights)
    assert dataset.class_names == ("road", "sky", "car")
    batches = list(eval_batches(dataset, batch_size=4, num_workers=1))
    labels = torch.cat([batch["label"] for batch in batches]).numpy()
    factors = torch.cat([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(labels, [label_of(index) for index in range(len(dataset))])
    levels = np.stack([levels_of(index) for index in range(len(dataset))])
    np.testing.assert_array_equal(factors, np.where(levels <= 12, np.float32(0.05), 1))
    assert factors.dtype == torch.float32


def test_the_factor_is_linear_on_request(directory, images):
    factors = reader(directory, weighting="linear")(images.items[2])
    np.testing.assert_allclose(factors, levels_of(2) / 255, rtol=1e-6)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(directory, threshold):
    with pytest.raises(ValueError, match="threshold"):
        reader(directory, threshold)


@pytest.mark.parametrize("form", [PUBLISHED, GREY, PALETTE])
def test_folders_without_a_manifest_say_the_same(tmp_path, directory, images, form, caplog):
    native = reader(directory)
    foreign = reader(write_foreign(tmp_path / "foreign", images, form), classes=CLASSES)
    foreign.check(images)
    assert "have no manifest.json" in caplog.text
    for item in images.items:
        assert torch.equal(foreign.label(item), native.label(item))
        assert torch.equal(foreign(item), native(item))


@pytest.mark.parametrize("form", [None, PUBLISHED, GREY])
def test_labels_are_left_alone_where_others_are_trained_on(tmp_path, images, form):
    folder = tmp_path / "weights"
    folder = write_foreign(folder, images, form) if form else write_weights(folder, images)
    if form != PUBLISHED:
        for item in images.items:
            (folder / f"{item.id}.png").unlink()
    weights = reader(folder, label_source="original")
    weights.check(images)
    assert not weights.reads_labels
    assert (weights(images.items[1]).numpy() < 1).any()
    if form != PUBLISHED:
        with pytest.raises(ValueError, match=r"missing from .*, the first is .*\.png"):
            reader(folder, classes=CLASSES).check(images)


def test_the_transforms_keep_label_and_weight_together(root):
    """The label tells the level: a crop with padding, flips and nearest neighbours keep that."""
    items = CamVid(root, "train", labelled=False).items
    numbers = {item.id: index for index, item in enumerate(items)}

    def tagged(item):
        """A label of many values."""
        size = layouts.SIZE
        return torch.from_numpy(np.random.default_rng(numbers[item.id]).integers(0, 200, size))

    cut = train_transform("scale_crop", (9, 7), flip=0.5, scale_range=(0.5, 2))
    dataset = CamVid(
        root,
        "train",
        transform=cut,
        label_source=lambda item: tagged(item).byte(),
        weight=lambda item: tagged(item).float() / 255,
    )
    padded = 0
    for epoch in range(6):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            label, weight = sample["label"], sample["weight"]
            assert torch.equal(weight[label != 255], label[label != 255].float() / 255)
            padded += int((label == 255).sum())
    assert padded


def test_a_mirrored_mirror_is_the_sample(directory, root, images):
    weights = reader(directory)
    once = Transform(random=(RandomFlip(1.0),))
    twice = Transform(random=(RandomFlip(1.0), RandomFlip(1.0)))
    plain, mirrored, back = (
        opened(root, weights, transform=transform)[1] for transform in (None, once, twice)
    )
    for name in ("image", "label", "weight"):
        assert torch.equal(back[name], plain[name])
        assert torch.equal(mirrored[name].flip(-1), plain[name])
    assert not torch.equal(mirrored["weight"], plain["weight"])


def test_they_have_the_images_own_size_whatever_training_resizes_to(directory, root, images):
    weights = reader(directory)
    weights.check(CamVid(root, "train", labelled=False, transform=eval_transform((3, 4))))
    sample = opened(root, weights, transform=eval_transform((3, 4)))[0]
    assert sample["weight"].shape == sample["label"].shape == (3, 4)


def test_a_reader_travels_to_workers(directory, images):
    weights = pickle.loads(pickle.dumps(reader(directory)))
    assert weights.classes == CLASSES
    assert torch.equal(weights(images.items[0]), reader(directory)(images.items[0]))


def test_a_missing_and_an_empty_folder_name_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)none does not exist.*--make_response_weights"):
        reader(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"(?s)empty is empty.*--weight_dir"):
        reader(tmp_path / "empty")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 1, "content": "pseudo labels"}', '{"classes": 1}']
)
def test_a_manifest_of_something_else_is_refused(directory, content):
    (directory / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=rf"{directory}/{MANIFEST} is "):
        reader(directory)


def test_a_manifest_without_classes_is_damaged(directory):
    change_manifest(directory, classes=None)
    with pytest.raises(ValueError, match=rf"{MANIFEST} is damaged \(no classes\)"):
        reader(directory)


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"dataset": "voc"}, "are of dataset voc, training is on camvid"),
        ({"split": "val"}, "are of split val, training is on train"),
        ({"fingerprint": "0"}, "are stale: the files of camvid train have changed"),
    ],
)
def test_weights_of_other_images_are_refused(directory, images, changes, wording):
    change_manifest(directory, **changes)
    with pytest.raises(ValueError, match=wording) as caught:
        reader(directory).check(images)
    assert "--make_response_weights" in str(caught.value)


@pytest.mark.parametrize("form", [None, GREY])
def test_a_label_without_its_weight_is_named(tmp_path, images, form):
    folder = tmp_path / "weights"
    folder = write_foreign(folder, images, form) if form else write_weights(folder, images)
    path = folder / f"{images.items[1].id}_weight.png"
    path.unlink()
    weights = reader(folder, classes=CLASSES)
    for read in (lambda: weights.check(images), lambda: weights(images.items[1])):
        with pytest.raises(ValueError, match=f"{path} does not exist: ") as caught:
            read()
        assert (f"ID{path.name[-11:]}" if form else COMMAND) in str(caught.value)


@pytest.mark.parametrize("ending", [".png", "_weight.png"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_named(directory, images, ending, damage):
    path = directory / f"{images.items[3].id}{ending}"
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes({"flip": content, "truncate": content[:-9], "empty": b""}[damage])
    weights = reader(directory)
    read = weights if "weight" in ending else weights.label
    for call in (lambda: weights.check(images), lambda: read(images.items[3])):
        with pytest.raises(ValueError, match=f"{path} is damaged") as caught:
            call()
        assert COMMAND in str(caught.value)


@pytest.mark.parametrize("form", [GREY, PALETTE])
def test_no_changed_and_no_missing_byte_of_a_label_without_manifest_goes_unseen(
    tmp_path, images, form
):
    weights = reader(write_foreign(tmp_path / "weights", images, form), classes=CLASSES)
    path = weights.label_path(images.items[3])
    content = path.read_bytes()
    for place in range(8, len(content), 1 + len(content) // 80):
        changed = bytearray(content)
        changed[place] ^= 1
        for written in (bytes(changed), content[:place]):
            path.write_bytes(written)
            with pytest.raises(ValueError, match=f"{path} is damaged, it"):
                weights.label(images.items[3])


@pytest.mark.parametrize("value", [3, 254])
@pytest.mark.parametrize("form", [None, PUBLISHED, GREY])
def test_a_value_that_is_no_class_is_named_with_its_file(tmp_path, images, value, form):
    folder = tmp_path / "weights"
    folder = write_foreign(folder, images, form) if form else write_weights(folder, images)
    label, levels = label_of(4), levels_of(4)
    label[1, 1] = value
    path = folder / f"{images.items[4].id}.png"
    if form is None:
        path.write_bytes(encode_label(label, 255))
    else:
        Image.fromarray(np.dstack([levels, levels, label]) if form == PUBLISHED else label).save(
            path
        )
    weights = reader(folder, classes=CLASSES)
    for read in (lambda: weights.check(images), lambda: weights.label(images.items[4])):
        with pytest.raises(ValueError, match=f"{path} holds the value {value}.* of the 3 classes"):
            read()


@pytest.mark.parametrize("form", [None, PUBLISHED, GREY])
def test_a_map_of_another_size_than_its_image_is_named(tmp_path, images, form):
    folder = tmp_path / "weights"
    folder = write_foreign(folder, images, form) if form else write_weights(folder, images)
    label, levels = label_of(5, (2, 3)), levels_of(5, (2, 3))
    name = images.items[5].id
    if form == PUBLISHED:
        Image.fromarray(np.dstack([levels, levels, label])).save(folder / f"{name}.png")
    else:
        (folder / f"{name}.png").write_bytes(encode_label(label, 3))
        (folder / f"{name}_weight.png").write_bytes(encode_weight(levels))
    with pytest.raises(ValueError, match=f"{folder / name}.png has 2x3 pixels, training sees 6x8"):
        reader(folder, classes=CLASSES).check(images)


def test_a_weight_of_another_size_than_its_label_is_named(directory, images):
    path = directory / f"{images.items[0].id}_weight.png"
    path.write_bytes(encode_weight(levels_of(0, (2, 3))))
    wording = f"{path} has 2x3 pixels, its label .*{images.items[0].id}.png has 6x8"
    with pytest.raises(ValueError, match=wording):
        reader(directory).check(images)


def test_a_mask_of_three_equal_channels_is_named(tmp_path, images):
    folder = write_foreign(tmp_path / "weights", images, PUBLISHED)
    path = folder / f"{images.items[2].id}.png"
    Image.fromarray(np.dstack([label_of(2)] * 3)).save(path)
    with pytest.raises(ValueError, match=f"{path} is damaged, its three channels are equal"):
        reader(folder, classes=CLASSES).check(images)


def test_the_slashes_of_an_id_are_folders(tmp_path):
    toy = Toy(labelled=False, sizes=((6, 8),))
    toy.originals = toy.items = [Item("city/first", None, None)]
    folder = tmp_path / "weights" / "city"
    folder.mkdir(parents=True)
    Image.fromarray(np.dstack([levels_of(0), levels_of(0), label_of(0)])).save(folder / "first.png")
    weights = reader(folder.parent, classes=CLASSES)
    weights.check(toy)
    np.testing.assert_array_equal(weights.label(toy.items[0]), label_of(0))


def test_the_classes_of_a_folder_without_manifest_are_those_of_the_data_set(tmp_path, images):
    folder = write_foreign(tmp_path / "weights", images, PUBLISHED)
    assert reader(folder, classes=CAMVID).classes == CAMVID


def test_the_command_names_the_folder_and_the_data(directory, images):
    words = making_command(images, directory).split()
    assert words[:3] == ["python", "main.py", "--make_response_weights"]
    for flag, value in (
        ("--dataset", "camvid"),
        ("--train_split", "train"),
        ("--data_root", str(images.root)),
        ("--weight_dir", str(directory)),
    ):
        assert words[words.index(flag) + 1] == value
