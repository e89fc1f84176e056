"""URN's training cut: fitting into limits, no class that dominates, padding last."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.fit_crop import CornerPadding, FitCrop, fit_size, is_mixed
from datasets.photometric import PhotometricDistortion
from datasets.transforms import RandomFlip, Transform, normalize, train_transform
from tests.datasets.places import check_alignment, photo, placed, rng, sample_of


@pytest.mark.parametrize(
    ("size", "ratio", "fitted"),
    [
        ((375, 500), 1.0, (512, 683)),  # 512 / 375
        ((375, 500), 0.5, (256, 341)),
        ((500, 375), 2.0, (1365, 1024)),
        ((100, 900), 1.0, (228, 2048)),  # the longer side's limit is reached first
        ((500, 375), 0.7, (477, 358)),  # the limit is int(358.4)
        ((1, 900), 0.5, (1, 1024)),
    ],
)
def test_sizes_fit_into_the_published_limits(size, ratio, fitted):
    assert fit_size(size, 512, ratio) == fitted


def test_sizes_are_rounded_to_the_nearest_pixel_and_keep_the_aspect_ratio():
    for seed in range(300):
        draw = rng(seed)
        height, width = draw.integers(5, 700, 2).tolist()
        base, ratio = int(draw.integers(8, 600)), draw.uniform(0.5, 2)
        found = fit_size((height, width), base, ratio)
        limits = sorted((int(base * ratio), int(4 * base * ratio)))
        scale = min(limits[0] / min(height, width), limits[1] / max(height, width))
        assert np.abs(np.array(found) - scale * np.array((height, width))).max() <= 0.5 + 1e-9
        assert min(found) <= limits[0]
        assert max(found) <= limits[1]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_every_pixel_keeps_its_label_and_weight_and_the_padding_comes_last(flip):
    """At ratio 1 and a base size of the image's own nothing is resampled."""
    seen = set()
    for seed in range(60):
        size = tuple(rng(seed).integers(6, 15, 2).tolist())
        transform = train_transform(
            "fit_crop", (10, 11), flip=flip, base_size=min(size), scale_range=(1.0, 1.0)
        )
        shown = check_alignment(transform(placed(size), rng(seed)), fill=1)
        assert shown.shape == (10, 11)
        height, width = min(size[0], 10), min(size[1], 11)
        assert (shown[:height, :width] != 255).all()
        assert (shown[height:] == 255).all()
        assert (shown[:, width:] == 255).all()
        steps = np.diff(shown[:height, :width].astype(int), axis=1)
        assert (steps == (-1 if flip else 1)).all()
        assert (np.diff(shown[:height, :width].astype(int), axis=0) == 16).all()
        seen.add((height < 10, width < 11))
    assert len(seen) == 4


@pytest.mark.parametrize("seed", range(6))
def test_it_is_a_window_of_the_resized_image(seed):
    image, label = photo((41, 61), seed), rng(seed).integers(0, 9, (41, 61), dtype=np.uint8)
    cut = FitCrop((24, 30), 33, (0.5, 2.0))
    out = cut(sample_of(image, label), rng(seed))
    draws = rng(seed)
    height, width = fit_size((41, 61), 33, draws.uniform(0.5, 2.0))
    top = int(draws.integers(max(0, height - 24) + 1))
    left = int(draws.integers(max(0, width - 30) + 1))
    box = (left, top, min(width, left + 30), min(height, top + 24))
    whole = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    difference = out["image"].permute(1, 2, 0).numpy().astype(int) - np.asarray(whole.crop(box))
    assert np.abs(difference).max() <= 2
    rows = ((np.arange(box[1], box[3]) + 0.5) * 41 / height).astype(int)
    columns = ((np.arange(box[0], box[2]) + 0.5) * 61 / width).astype(int)
    assert (out["label"].numpy() == label[np.ix_(rows, columns)]).all()
    assert torch.equal(out["weight"], 1 + torch.Tensor(out["label"]))


def counts(*pixels):
    """A label of one row with so many pixels of each value."""
    values = np.repeat([value for value, _ in pixels], [count for _, count in pixels])
    return torch.from_numpy(values.astype(np.uint8))[None]


@pytest.mark.parametrize(
    ("label", "mixed"),
    [
        (counts((3, 100)), False),
        (counts((255, 9)), False),
        (counts((0, 74), (5, 26)), True),
        (counts((0, 75), (5, 25)), False),
        (counts((0, 76), (5, 24)), False),
        (counts((0, 30), (254, 20), (255, 900)), True),  # void does not count
        (counts((0, 80), (1, 20), (255, 20)), False),
        (counts((0, 40), (1, 30), (2, 30)), True),
    ],
)
def test_a_class_dominates_from_three_quarters_on(label, mixed):
    assert is_mixed(label) is mixed


def test_the_first_place_without_a_dominating_class_is_taken_or_the_eleventh():
    """Of a label with two small objects; the places are drawn again here."""
    label = np.zeros((60, 80), np.uint8)
    label[5:15, 5:15], label[30:42, 55:70], label[:, 40:44] = 1, 2, 255
    image = photo((60, 80))
    tries = Counter()
    for seed in range(120):
        out = FitCrop((16, 18), 60, (1.0, 1.0))(sample_of(image, label), rng(seed))
        draws = rng(seed)
        draws.uniform(1.0, 1.0)
        attempts = 0
        while attempts < 11:
            attempts += 1
            top, left = int(draws.integers(45)), int(draws.integers(63))
            shown = np.s_[top : top + 16, left : left + 18]
            part = label[shown]
            _, shares = np.unique(part[part != 255], return_counts=True)
            if len(shares) > 1 and shares.max() / shares.sum() < 0.75:
                break
        tries[attempts] += 1
        assert (out["label"].numpy() == part).all()
        assert (out["image"].permute(1, 2, 0).numpy() == image[shown]).all()
    assert tries[1] > 5
    assert tries[4] > 1
    assert tries[11] > 5


def test_weights_have_no_say_in_the_place():
    label = np.zeros((40, 40), np.uint8)
    label[:12, :12] = 1
    for seed in range(30):
        places = []
        for weight in (0.0, 1.0, 7.0):
            sample = sample_of(photo((40, 40)), label)
            sample["weight"] = torch.full((40, 40), weight)
            places.append(FitCrop((12, 12), 40, (1.0, 1.0))(sample, rng(seed))["image"])
        assert torch.equal(places[0], places[1])
        assert torch.equal(places[0], places[2])


def test_the_padding_is_nothing_once_normalised():
    out = CornerPadding((9, 8))(placed((5, 6)), rng())
    assert normalize(out["image"])[:, 5:].abs().max() < 0.01
    assert normalize(out["image"])[:, :, 6:].abs().max() < 0.01
    full = placed((9, 8))
    assert torch.equal(CornerPadding((9, 8))(full, rng())["image"], full["image"])


def test_all_of_urns_augmentation_in_its_order():
    """Flip and distortion can change places: the one moves pixels, the other changes each alone."""
    transform = train_transform("fit_crop", (512, 512), flip=0.5, distortion=True)
    assert transform == Transform(
        None,
        (
            FitCrop((512, 512), None, (0.5, 2.0)),
            PhotometricDistortion(),
            RandomFlip(0.5),
            CornerPadding((512, 512)),
        ),
    )
    assert transform.random[0].base == 512
    out = transform(sample_of(photo((60, 80)), np.zeros((60, 80), np.uint8)), rng(1))
    assert out["image"].shape[1:] == out["label"].shape == out["weight"].shape == (512, 512)
    assert out["image"].dtype == torch.uint8


def test_a_base_size_that_leaves_nothing_is_refused():
    with pytest.raises(
        ValueError, match="a base size of 3 times 0.1 are empty: the base size must"
    ):
        train_transform("fit_crop", (8, 8), base_size=3, scale_range=(0.1, 1.0))
