import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from datasets.auto_augment import auto_augment
from datasets.resize_crop import RandomResizeCrop
from datasets.samples import Sample
from datasets.transforms import target_transform, train_transform


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(size, seed=0):
    """Low frequencies only."""
    small = rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)).copy()


def sample_of(image, label):
    return Sample(
        image=tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
        label=tv_tensors.Mask(torch.from_numpy(label)),
        weight=tv_tensors.Mask(torch.from_numpy(label).float()),
        id="a",
    )


def places(size):
    """A label that says where a pixel is, for sizes up to 15x16."""
    return (np.arange(size[0])[:, None] * 16 + np.arange(size[1])).astype(np.uint8)


def not_between(start, count, ratio):
    """Where the centre of a scaled pixel lies inside a source pixel, which Pillow rounds."""
    centres = (np.arange(start, start + count) + 0.5) * ratio
    return np.abs(centres - np.round(centres)) > 1e-6


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("native", [(41, 61), (89, 113)])
def test_it_is_pillows_resize_then_a_window(seed, native):
    image, label = photo(native, seed), rng(seed).integers(0, 9, native, dtype=np.uint8)
    cut = RandomResizeCrop((24, 30), (50, 70), (0.8, 1.2))
    out = cut(sample_of(image, label), rng(seed))
    draws = rng(seed)
    factor = draws.uniform(0.8, 1.2)
    height, width = round(50 * factor), round(70 * factor)
    top, left = int(draws.integers(height - 23)), int(draws.integers(width - 29))
    box = (left, top, left + 30, top + 24)
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC).crop(box)
    difference = np.abs(out["image"].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected))
    assert difference.max() <= 1
    nearest = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST).crop(box)
    clear = np.outer(
        not_between(top, 24, native[0] / height), not_between(left, 30, native[1] / width)
    )
    assert clear.mean() > 0.5
    assert (out["label"].numpy() == np.asarray(nearest))[clear].all()
    assert torch.equal(out["weight"].int(), out["label"].int())
    assert isinstance(out["image"], tv_tensors.Image)


def test_augmented_colours_are_those_of_the_whole_image():
    image, label = photo((40, 60), 2), np.zeros((40, 60), np.uint8)
    for seed in range(30):
        out = RandomResizeCrop((20, 30), (50, 70), autoaug=True)(sample_of(image, label), rng(seed))
        draws = rng(seed)
        draws.uniform()
        whole = np.asarray(Image.fromarray(image).resize((70, 50), Image.Resampling.BICUBIC))
        changed = auto_augment(torch.from_numpy(whole.copy()).permute(2, 0, 1), draws)
        top, left = int(draws.integers(31)), int(draws.integers(41))
        assert torch.equal(out["image"], changed[:, top : top + 20, left : left + 30])


def test_every_place_is_cut_out_equally_often():
    image, label = photo((5, 7)), places((5, 7))
    cut, draws = RandomResizeCrop((3, 4), (5, 7)), rng()
    corners = [int(cut(sample_of(image, label), draws)["label"][0, 0]) for _ in range(1200)]
    found, counts = np.unique(corners, return_counts=True)
    assert found.tolist() == places((5, 7))[:3, :4].ravel().tolist()
    assert (np.abs(counts - 100) < 50).all()


def test_crops_are_tried_until_one_shows_enough_values():
    """One column in 40 holds a second value: a crop of 8 columns shows it with odds of 1 in 4."""
    label = np.zeros((8, 40), np.uint8)
    label[:, 20] = 255  # void counts
    image = photo((8, 40))

    def share(crop_classes):
        """How often two values are shown."""
        cut, draws = RandomResizeCrop((8, 8), (8, 40), crop_classes=crop_classes), rng()
        shown = [cut(sample_of(image, label), draws)["label"].unique() for _ in range(400)]
        return np.mean([len(values) == 2 for values in shown])

    once = 8 / 33
    assert share(0) == pytest.approx(once, abs=0.08)
    assert share(1) == pytest.approx(1 - (1 - once) ** 10, abs=0.04)
    assert share(2) == pytest.approx(once, abs=0.08)  # never enough: the tenth is taken


def test_the_tenth_crop_is_taken_and_no_more_are_drawn():
    label = np.zeros((8, 40), np.uint8)
    draws, expected = rng(3), rng(3)
    RandomResizeCrop((4, 8), (8, 40), crop_classes=5)(sample_of(photo((8, 40)), label), draws)
    expected.uniform()
    for _ in range(10):
        expected.integers(5), expected.integers(33)
    assert draws.random() == expected.random()


def test_without_an_input_size_an_image_keeps_its_own():
    image, label = photo((9, 12)), places((9, 12))
    out = target_transform((9, 12), None)(sample_of(image, label), rng())
    assert (out["image"].permute(1, 2, 0).numpy() == image).all()
    assert (out["label"].numpy() == label).all()
    with pytest.raises(ValueError, match="10x12 does not fit into a as it is scaled, 9x12"):
        target_transform((10, 12), None)(sample_of(image, label), rng())


def test_target_images_are_resized_exactly_and_cut_whatever_the_label():
    image, target = photo((20, 30)), target_transform((8, 10), (10, 15), flip=0.5)
    values = rng().integers(0, 9, (20, 30), dtype=np.uint8)
    whole = Image.fromarray(image).resize((15, 10), Image.Resampling.BICUBIC)
    both = [np.asarray(whole), np.asarray(whole)[:, ::-1]]
    seen = set()
    for seed in range(40):
        one, other = (
            target(sample_of(image, label), rng(seed))
            for label in (values, np.full((20, 30), 255, np.uint8))
        )
        assert torch.equal(one["image"], other["image"])
        cut = one["image"].permute(1, 2, 0).numpy().astype(int)
        found = {
            (mirrored, top, left)
            for mirrored, shown in enumerate(both)
            for top in range(3)
            for left in range(6)
            if np.abs(shown[top : top + 8, left : left + 10] - cut).max() <= 1
        }
        assert found
        seen |= found
    assert {mirrored for mirrored, *_ in seen} == {0, 1}


def test_a_crop_larger_than_the_smallest_resize_is_refused_before_any_image():
    with pytest.raises(ValueError, match="a crop of 512x1030 does not fit into the smallest") as e:
        train_transform("resize_crop", (512, 1030), input_size=(720, 1280), scale_range=(0.8, 1.2))
    assert "576x1024, which is 720x1280 times 0.8" in str(e.value)
    train_transform("resize_crop", (576, 1024), input_size=(720, 1280), scale_range=(0.8, 1.2))
    with pytest.raises(ValueError, match="9x8 does not fit"):
        target_transform((9, 8), (8, 8))


def test_samples_follow_from_the_generator():
    image, label = photo((40, 60)), rng().integers(0, 9, (40, 60), dtype=np.uint8)
    cut = train_transform(
        "resize_crop", (20, 20), flip=0.5, colour_jitter=0.3, blur="gaussian",
        input_size=(40, 60), scale_range=(0.8, 1.2), crop_classes=8, autoaug=True,
    )  # fmt: skip
    for seed in range(5):
        first, again = (cut(sample_of(image, label), rng(seed)) for _ in range(2))
        assert torch.equal(first["image"], again["image"])
        assert torch.equal(first["label"], again["label"])
        assert first["image"].shape == (3, 20, 20)
    assert cut.size is None
