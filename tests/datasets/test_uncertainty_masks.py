import json
import logging
import pickle

import numpy as np
import pytest
import torch

from datasets.camvid import CamVid
from datasets.cityscapes import Cityscapes
from datasets.loaders import eval_batches
from datasets.map_folders import MANIFEST
from datasets.mask_files import LEVELS, encode_mask
from datasets.transforms import eval_transform, train_transform
from datasets.uncertainty_masks import (
    UncertaintyMasks,
    making_command,
    mask_path,
    published_path,
)
from tests.datasets import layouts
from tests.datasets.toys import Toy

SCALE = float(np.log(11))
COMMAND = "python main.py --ckpt best.pth --make_uncertainty_masks"


def mask_of(index, size=layouts.SIZE):
    return np.random.default_rng(index).uniform(0, SCALE, size).astype(np.float32)


def manifest_of(dataset):
    size = dataset.transform.size
    return {
        "format": 1,
        "content": "uncertainty masks",
        "dataset": dataset.name,
        "split": dataset.split,
        "size": list(size) if size else "native",
        "fingerprint": dataset.fingerprint(),
        "command": COMMAND,
    }


def write_masks(directory, dataset, masks=None):
    for index, item in enumerate(dataset.items):
        path = mask_path(directory, item)
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = mask_of(index, dataset.size(index)) if masks is None else masks[index]
        path.write_bytes(encode_mask(mask, SCALE))
    (directory / MANIFEST).write_text(json.dumps(manifest_of(dataset)))
    return UncertaintyMasks(directory)


def write_published(directory, dataset):
    directory.mkdir()
    for index, item in enumerate(dataset.items):
        np.save(published_path(directory, item), mask_of(index, dataset.size(index)))
    return UncertaintyMasks(directory)


@pytest.fixture
def root(tmp_path):
    return layouts.camvid(tmp_path / "camvid")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "masks"


@pytest.fixture
def dataset(root):
    return CamVid(root, "train")


def test_every_item_gets_its_mask(directory, dataset):
    masks = write_masks(directory, dataset)
    masks.check(dataset)
    for index, item in enumerate(dataset.items):
        mask = masks(item)
        assert mask.dtype == torch.float32
        assert np.abs(mask.numpy() - mask_of(index)).max() <= SCALE / LEVELS


def test_worker_processes_load_them_with_the_images(directory, dataset):
    dataset.weight = write_masks(directory, dataset)
    assert pickle.loads(pickle.dumps(dataset.weight)).manifest == dataset.weight.manifest
    seen = [batch["weight"] for batch in eval_batches(dataset, batch_size=4, num_workers=1)]
    expected = torch.stack([dataset.weight(item) for item in dataset.items])
    assert torch.equal(torch.cat(seen), expected)


@pytest.mark.parametrize("kind", ["resize", "scale_crop"])
def test_masks_follow_every_augmentation(directory, kind):
    """The labels are the witness: a mask that is a function of the label stays that function."""
    transform = train_transform(kind, (9, 7), flip=0.5, colour_jitter=0.3, scale_range=(0.4, 2.5))
    source = Toy(sizes=((12, 16),) * 8, transform=eval_transform(transform.size))
    labels = [source[index]["label"].numpy() for index in range(len(source))]
    masks = write_masks(directory, source, [np.float32(label + 1) / 10 for label in labels])
    dataset = Toy(sizes=((12, 16),) * 8, transform=transform)
    masks.check(dataset)
    dataset.weight = masks
    padded = changed = 0
    for epoch in range(6):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            label, weight = sample["label"].numpy(), sample["weight"].numpy()
            assert weight.shape == (9, 7)
            inside = label != 255
            np.testing.assert_allclose(weight[inside], (label[inside] + 1) / 10, atol=1e-4)
            assert not weight[~inside].any(), "padding is certain"
            padded += (~inside).sum()
            changed += not np.array_equal(label, labels[index])
    assert changed > 10
    assert padded or kind == "resize"


def test_a_missing_folder_names_the_command(directory, dataset):
    with pytest.raises(ValueError, match="does not exist") as caught:
        UncertaintyMasks(directory).check(dataset)
    assert making_command(dataset, directory) in str(caught.value)


def test_an_empty_folder_is_refused(directory, dataset):
    directory.mkdir()
    with pytest.raises(ValueError, match=r"is empty.*--mask_dir"):
        UncertaintyMasks(directory).check(dataset)


@pytest.mark.parametrize("write", [write_masks, write_published])
def test_missing_masks_are_counted_and_the_first_is_named(directory, dataset, write):
    masks = write(directory, dataset)
    for item in dataset.items[2:5]:
        masks.path(item).unlink()
    first = masks.path(dataset.items[2])
    with pytest.raises(ValueError, match=f"3 of 6 uncertainty masks are missing.*{first.name}"):
        masks.check(dataset)
    with pytest.raises(ValueError, match=f"{first} does not exist"):
        masks(dataset.items[2])


def test_masks_of_another_split_are_refused(directory, root, dataset):
    masks = write_masks(directory, dataset)
    with pytest.raises(ValueError, match="are of split train, training is on train_day"):
        masks.check(CamVid(root, "train_day"))


def test_masks_of_another_data_set_are_refused(directory, dataset):
    masks = write_masks(directory, dataset)
    with pytest.raises(ValueError, match="are of dataset camvid, training is on toy"):
        masks.check(Toy())


def test_masks_of_another_size_are_refused(directory, root, dataset):
    resized = CamVid(root, "train", transform=train_transform("resize", (3, 4), flip=0.5))
    masks = write_masks(directory, dataset)
    with pytest.raises(ValueError, match="are of size native, training is on 3x4"):
        masks.check(resized)
    small = write_masks(directory, resized)
    small.check(resized)
    with pytest.raises(ValueError, match="are of size 3x4, training is on native"):
        small.check(dataset)


def test_a_single_mask_of_another_size_is_named(directory, dataset):
    masks = write_masks(directory, dataset)
    path = masks.path(dataset.items[3])
    path.write_bytes(encode_mask(mask_of(0, (3, 4)), SCALE))
    with pytest.raises(ValueError, match=f"{path} has 3x4 pixels, training sees 6x8"):
        masks.check(dataset)


def test_masks_are_stale_once_the_images_have_changed(directory, root, dataset):
    masks = write_masks(directory, dataset)
    layouts.write_image(dataset.items[0].image, size=(6, 8), seed=77)
    with dataset.items[0].image.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="are stale: the files of camvid train have changed"):
        masks.check(CamVid(root, "train"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_mask_is_named_with_the_command_that_remakes_it(directory, dataset, damage):
    masks = write_masks(directory, dataset)
    path = masks.path(dataset.items[4])
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes({"flip": content, "truncate": content[:-30], "empty": b""}[damage])
    for read in (lambda: masks.check(dataset), lambda: masks(dataset.items[4])):
        with pytest.raises(ValueError, match=f"uncertainty mask {path} is damaged") as caught:
            read()
        assert COMMAND in str(caught.value)


@pytest.mark.parametrize("content", ["{", '{"format": 1}', "[]", '{"format": 99}'])
def test_a_manifest_that_is_none_is_refused(directory, content):
    directory.mkdir()
    (directory / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=rf"{directory}/{MANIFEST} is "):
        UncertaintyMasks(directory)


class TestPublishedForm:
    def test_is_read_and_said_to_be_of_unknown_origin(self, directory, dataset, caplog):
        masks = write_published(directory, dataset)
        with caplog.at_level(logging.INFO, "segdoubt"):
            masks.check(dataset)
        assert [record.message.count("unknown") for record in caplog.records] == [1]
        for index, item in enumerate(dataset.items):
            np.testing.assert_array_equal(masks(item), mask_of(index))

    def test_names_follow_the_image_files(self, directory, tmp_path):
        dataset = Cityscapes(layouts.cityscapes(tmp_path / "data"), "train")
        name = published_path(directory, dataset.items[0]).name
        assert name == "aachen_000000_000000_leftImg8bit_uncertainty_mask.npy"

    def test_leading_axes_of_length_one_are_dropped(self, directory, dataset):
        masks = write_published(directory, dataset)
        np.save(masks.path(dataset.items[0]), mask_of(0)[None])
        masks.check(dataset)
        assert masks(dataset.items[0]).shape == layouts.SIZE

    def test_another_size_is_refused(self, directory, root, dataset):
        masks = write_published(directory, dataset)
        with pytest.raises(ValueError, match="has 6x8 pixels, training sees 3x4"):
            masks.check(CamVid(root, "train", transform=eval_transform((3, 4))))

    @pytest.mark.parametrize(
        "values", [np.zeros((2, 6, 8), np.float32), np.zeros((6, 8), np.int64), np.float32(3)]
    )
    def test_other_arrays_are_refused(self, directory, dataset, values):
        masks = write_published(directory, dataset)
        np.save(masks.path(dataset.items[1]), values)
        with pytest.raises(ValueError, match=r"is damaged, it holds .* not floats \(H, W\)"):
            masks.check(dataset)

    @pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
    def test_values_that_are_no_uncertainty_are_refused(self, directory, dataset, value):
        masks = write_published(directory, dataset)
        values = mask_of(1)
        values[2, 3] = value
        np.save(masks.path(dataset.items[1]), values)
        with pytest.raises(ValueError, match="below 0 or not finite"):
            masks(dataset.items[1])

    @pytest.mark.parametrize("kept", [0, 50, 200])
    def test_a_truncated_file_is_named(self, directory, dataset, kept):
        masks = write_published(directory, dataset)
        path = masks.path(dataset.items[1])
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            masks.check(dataset)
