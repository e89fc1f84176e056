import hashlib
import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.camvid import CamVid
from datasets.damage import DamagedLabels, disc, find_components
from datasets.streets import StreetsObjects
from datasets.transforms import eval_transform, train_transform
from tests.datasets import layouts
from tests.datasets.toys import Toy

WIDE, NARROW = DamagedLabels(share=1.0), DamagedLabels(share=0.0)


def tensor(values):
    return torch.from_numpy(np.asarray(values, np.uint8))


def objects(seed=0, size=(96, 128)):
    """Ellipses of three classes on a background, far enough apart not to touch when dilated."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    rows, columns = np.indices(size)
    for top in range(16, size[0], 32):
        for left in range(16, size[1], 32):
            high, wide = rng.uniform(5, 9, 2)
            inside = ((rows - top) / high) ** 2 + ((columns - left) / wide) ** 2 <= 1
            label[inside] = rng.integers(1, 4)
    return label


def around(radius):
    return disc(radius).astype(bool)


def test_a_disc_holds_what_lies_within_its_radius():
    assert disc(0).tolist() == [[1]]
    assert disc(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    middle = np.ones((9, 9))
    middle[4, 4] = 0
    assert (around(4) == (ndimage.distance_transform_edt(middle) <= 4)).all()


@pytest.mark.parametrize("radius", [1, 4, 6])
def test_all_objects_too_wide(radius):
    label = objects()
    expected = label.copy()
    for train_id in (1, 2, 3):
        expected[ndimage.binary_dilation(label == train_id, around(radius))] = train_id
    damaged = DamagedLabels(1.0, dilate=radius)(tensor(label), "a", 0)
    assert (damaged.numpy() == expected).all()
    assert (damaged.numpy() != label).any()


@pytest.mark.parametrize("radius", [1, 3])
def test_all_objects_too_narrow(radius):
    label = objects()
    expected = np.zeros_like(label)
    for train_id in (1, 2, 3):
        expected[ndimage.binary_erosion(label == train_id, around(radius))] = train_id
    damaged = DamagedLabels(0.0, erode=radius)(tensor(label), "a", 0)
    assert (damaged.numpy() == expected).all()


def test_about_half_of_the_objects_are_too_wide():
    grown, shrunk = 0, 0
    for number in range(20):
        label = objects(number)
        damaged = DamagedLabels()(tensor(label), str(number), 0).numpy()
        regions, count = ndimage.label(label > 0)
        after = ndimage.label(damaged > 0)[0]
        for region in range(1, count + 1):
            before = (regions == region).sum()
            middle = np.round(ndimage.center_of_mass(regions == region)).astype(int)
            now = (after == after[tuple(middle)]).sum()
            grown, shrunk = grown + (now > before), shrunk + (now < before)
    assert grown + shrunk == 240
    assert 95 < grown < 145
    biased = DamagedLabels(share=0.75)(tensor(label), "a", 0)
    assert (biased > 0).sum() > (DamagedLabels()(tensor(label), "a", 0) > 0).sum()


def test_the_nearest_other_class_takes_over():
    """Two stripes on either side of a bar, which as a whole is narrower than its erosion."""
    label = np.full((20, 24), 1, np.uint8)
    label[:, 10:14] = 2
    label[:, 14:] = 3
    damaged = DamagedLabels(0.0, erode=3)(tensor(label), "a", background=None).numpy()
    assert 2 not in damaged
    assert (damaged[:, :9] == 1).all()
    assert (damaged[:, 15:] == 3).all()


def test_shifts_of_a_common_border_add_up():
    label = np.full((30, 40), 1, np.uint8)
    label[:, 24:] = 2
    for damage in (DamagedLabels(1.0, dilate=4), DamagedLabels(0.0, erode=4)):
        assert (damage(tensor(label), "a").numpy() == label).all()
    either = DamagedLabels(dilate=4, erode=3)
    borders = {
        int((either(tensor(label), str(number)).numpy() == 1).all(0).sum()) for number in range(20)
    }
    assert borders == {24 - 4 - 3, 24, 24 + 4 + 3}


def test_void_stays_void_and_none_is_added():
    label = objects()
    label[40:60, 20:90] = 255
    for damage in (WIDE, NARROW, DamagedLabels()):
        for background in (0, None):
            damaged = damage(tensor(label), "a", background).numpy()
            assert ((damaged == 255) == (label == 255)).all()
            assert set(np.unique(damaged)) <= set(np.unique(label))
            assert (damaged != label).any()


def test_across_a_void_border_the_next_class_takes_over():
    label = np.zeros((60, 60), np.uint8)
    label[8:52, 8:52] = 255
    label[24:36, 24:36] = 5  # 16 void pixels lie between it and the background
    damaged = DamagedLabels(0.0, erode=2)(tensor(label), "a", 0).numpy()
    assert (damaged == 5).sum() == 8 * 8
    assert (damaged[24:36, 24:36] == 0).sum() == 12 * 12 - 8 * 8


def test_what_has_no_neighbour_stays():
    for label in (np.full((9, 9), 3), np.full((9, 9), 255), np.zeros((9, 9))):
        for damage in (WIDE, NARROW):
            for background in (0, None):
                assert (damage(tensor(label), "a", background).numpy() == label).all()
    alone = np.full((30, 30), 255)
    alone[10:20, 10:20] = 4
    assert (NARROW(tensor(alone), "a").numpy() == alone).all()


def test_the_border_of_the_image_is_no_border_of_an_object():
    label = np.zeros((20, 30), np.uint8)
    label[:, :10] = 1
    narrow = NARROW(tensor(label), "a", 0).numpy()
    assert (narrow[:, :7] == 1).all()
    assert (narrow[:, 7:] == 0).all()


def test_the_background_itself_is_not_damaged():
    label = np.ones((20, 20), np.uint8)
    label[8:12, 8:12] = 0
    as_object = NARROW(tensor(label), "a", None)
    assert (as_object == 0).sum() == 0
    as_background = DamagedLabels(0.0, erode=2)(tensor(label), "a", 0).numpy()
    assert (as_background == 0).sum() > 16
    assert (as_background[8:12, 8:12] == 0).all()


def test_seed_and_id_alone_decide():
    label = tensor(objects())
    before = label.clone()
    first = DamagedLabels(seed=3)(label, "a", 0)
    assert torch.equal(label, before)
    assert torch.equal(first, DamagedLabels(seed=3)(label, "a", 0))
    assert not torch.equal(first, DamagedLabels(seed=4)(label, "a", 0))
    assert not torch.equal(first, DamagedLabels(seed=3)(label, "b", 0))
    digest = hashlib.sha256(first.numpy().tobytes()).hexdigest()
    assert (
        digest == "12005b081636dee44f38dbe973de1406baa0f54469578995ed67e7175078c616"
    )  # results of users depend on it


def test_components_agree_with_scipy():
    rng = np.random.default_rng(5)
    label = np.repeat(np.repeat(rng.integers(0, 4, (12, 16)), 3, 0), 3, 1).astype(np.uint8)
    label[label == 3] = 255
    parts = find_components(label, None)
    count = sum(ndimage.label(label == c, np.ones((3, 3)))[1] for c in range(3))
    assert len(parts.order) == count
    assert (parts.classes[parts.owners] == label).all()
    areas = np.bincount(parts.owners.ravel(), minlength=len(parts.classes))[parts.order]
    assert (np.diff(areas) >= 0).all()
    for owner in parts.order:
        rows, columns = np.nonzero(parts.owners == owner)
        box = [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]
        assert parts.boxes[owner].tolist() == box


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_no_probability_is_refused(share):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], not"):
        DamagedLabels(share)


def test_a_negative_radius_is_refused():
    with pytest.raises(ValueError, match="by 0 pixels or more, not by 4 and -1"):
        DamagedLabels(erode=-1)


def test_a_data_set_shows_damaged_labels_and_leaves_the_files_alone(tmp_path):
    dataset = StreetsObjects(None, "train", num_images=4, image_size=(48, 96))
    damage = DamagedLabels()
    other = StreetsObjects(None, "train", num_images=4, damage=damage, image_size=(48, 96))
    for index in range(4):
        image, label = dataset.read(index)
        sample = other[index]
        expected = damage(label, dataset.items[index].id, 0)
        assert torch.equal(sample["image"], image)
        assert torch.equal(sample["label"].as_subclass(torch.Tensor), expected)
        assert torch.equal(other.read(index)[1], label)
    assert (expected != label).any()


def test_damage_comes_before_the_transform(tmp_path):
    layouts.camvid(tmp_path)
    cut = train_transform("scale_crop", (4, 5), flip=0.5)
    damage = DamagedLabels(1.0, dilate=1)
    plain = CamVid(tmp_path, "train")
    labels = {item.id: plain.read(place)[1] for place, item in enumerate(plain.items)}

    def source(item):
        """The damaged label of an item."""
        return damage(labels[item.id], item.id)

    by_hand = CamVid(tmp_path, "train", labelled=False, label_source=source, transform=cut)
    damaged = CamVid(tmp_path, "train", damage=damage, transform=cut)
    for first, second in zip(by_hand, damaged, strict=True):
        assert torch.equal(first["label"], second["label"])
        assert torch.equal(first["image"], second["image"])


def test_fingerprint_key_and_cache_follow_the_damage(tmp_path):
    common = {"transform": eval_transform((6, 8)), "cache": tmp_path}
    damages = (None, DamagedLabels(), DamagedLabels(seed=1), DamagedLabels(0.75))
    toys = [Toy(damage=damage, **common) for damage in damages]
    assert len({toy.fingerprint() for toy in toys}) == 4
    assert len({toy.content_key() for toy in toys}) == 4
    assert len({toy.content_fingerprint() for toy in toys}) == 1
    assert all(re.fullmatch("[0-9a-f]{64}", toy.fingerprint()) for toy in toys)
    for toy, damage in zip(toys, damages, strict=True):
        uncached = Toy(damage=damage, transform=common["transform"])
        assert torch.equal(toy[3]["label"], uncached[3]["label"])
        assert torch.equal(toy[3]["label"], Toy(damage=damage, **common)[3]["label"])
    assert len(list(tmp_path.glob("*.bin"))) == 4


def test_only_labels_of_files_are_damaged():
    with pytest.raises(AssertionError, match="only labels of files"):
        Toy(labelled=False, damage=DamagedLabels())


@pytest.mark.parametrize("count", [255, 300])
@pytest.mark.parametrize("background", [0, 2, 3])
def test_any_number_of_objects_lies_on_any_background(count, background):
    classes = [train_id for train_id in range(4) if train_id != background]
    label = np.full((40, 40), background, np.uint8)
    rows, columns = np.divmod(np.arange(count), 20)
    label[2 * rows, 2 * columns] = np.resize(classes, count)
    parts = find_components(label, background)
    assert (parts.classes.take(parts.owners) == label).all()
    assert len(np.unique(parts.owners[label == background])) == 1
    assert len(parts.order) == count
    assert len(np.unique(parts.owners)) == count + 1
    assert (NARROW(tensor(label), "a", background) == background).all()
