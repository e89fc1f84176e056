"""The cut of classifiers for CAMs: a random long side, a crop at a random place of the padding."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.long_side_crop import PlacedCrop, RandomLongSide
from datasets.photometric import ColourJitter
from datasets.transforms import RandomFlip, Transform, train_transform
from tests.datasets.places import check_alignment, photo, placed, rng, sample_of


def test_all_of_pmms_augmentation():
    transform = train_transform("long_side_crop", (448, 448), flip=0.5, colour_jitter=0.3, hue=0.1)
    assert transform == Transform(
        None,
        (
            RandomLongSide((448, 768)),
            ColourJitter(0.3, 0.1),
            RandomFlip(0.5),
            PlacedCrop((448, 448)),
        ),
    )
    out = transform(sample_of(photo((60, 80)), np.zeros((60, 80), np.uint8)), rng())
    assert out["image"].shape == (3, 448, 448)
    assert out["image"].dtype == torch.uint8


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (30, 1)])
def test_the_longer_side_is_uniform_and_the_aspect_ratio_is_kept(size):
    sample = sample_of(photo(size), np.zeros(size, np.uint8))
    seen = Counter()
    for seed in range(300):
        height, width = RandomLongSide((40, 43))(sample, rng(seed))["label"].shape
        longer, shorter = max(height, width), min(height, width)
        assert (height > width) == (size[0] > size[1])
        assert shorter == max(1, round(min(size) * longer / max(size)))
        seen[longer] += 1
    assert sorted(seen) == [40, 41, 42, 43]
    assert min(seen.values()) > 45


def test_the_image_is_pillows_bicubic_resize():
    image = photo((30, 40), 3)
    out = RandomLongSide((57, 57))(sample_of(image, np.zeros((30, 40), np.uint8)), rng())
    expected = Image.fromarray(image).resize((57, 43), Image.Resampling.BICUBIC)
    assert (out["image"].permute(1, 2, 0).numpy() == np.asarray(expected)).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_every_pixel_keeps_its_label_and_weight(flip):
    for seed in range(40):
        size = tuple(rng(seed).integers(4, 15, 2).tolist())
        transform = train_transform(
            "long_side_crop", (9, 10), flip=flip, long_side=(max(size), max(size))
        )
        shown = check_alignment(transform(placed(size), rng(seed)), fill=0)
        assert shown.shape == (9, 10)
        assert (shown != 255).sum() == min(size[0], 9) * min(size[1], 10)


def test_a_small_image_lies_anywhere_in_the_window_and_a_window_anywhere_in_a_large_one():
    seen = Counter()
    for seed in range(600):
        shown = PlacedCrop((6, 5))(placed((4, 8)), rng(seed))["label"].numpy()
        rows = np.flatnonzero((shown != 255).all(1))
        assert len(rows) == 4
        seen[int(rows[0]), int(shown[rows[0], 0])] += 1
    assert sorted(seen) == [(row, column) for row in range(3) for column in range(4)]
    assert min(seen.values()) > 25


def test_image_labels_are_those_of_the_whole_image():
    tags = torch.tensor([1.0, 0.0, 1.0])
    transform = train_transform("long_side_crop", (4, 4), long_side=(30, 50))
    out = transform(placed((9, 12), image_labels=tags), rng())
    assert torch.equal(out["image_labels"], tags)


@pytest.mark.parametrize("sides", [(0, 5), (9, 8)])
def test_sides_in_the_wrong_order_are_refused(sides):
    with pytest.raises(ValueError, match="the long side must have 1 <= least <= greatest, not"):
        train_transform("long_side_crop", (8, 8), long_side=sides)
