import colorsys
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import functional as pil_functional
from torchvision.transforms.v2 import functional

import datasets.photometric
from datasets.crops import IMAGENET_MEAN, resize_image, resize_map
from datasets.photometric import ColourJitter, RandomBlur
from datasets.samples import Sample
from datasets.scale_crop import RandomScaleCrop
from datasets.transforms import (
    IMAGENET_STD,
    RandomFlip,
    Transform,
    denormalize,
    eval_transform,
    normalize,
    train_transform,
)


def smooth_image(size, seed=0):
    """Low frequencies only, so that a shift of one pixel changes little."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)).copy()


def sample_of(image, with_weight=True):
    """A sample whose label says where the red channel is bright, and its weight how bright."""
    red = torch.from_numpy(image[..., 0].copy())
    sample = Sample(
        image=tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
        label=tv_tensors.Mask((red > 127).to(torch.uint8)),
        id="a",
        dataset="d",
        scene="s",
        condition="c",
    )
    if with_weight:
        sample["weight"] = tv_tensors.Mask(1 + red.float())
        sample["ood"] = tv_tensors.Mask((red > 127).to(torch.uint8))
    return sample


def rng(seed=0):
    return np.random.default_rng(seed)


TRANSFORMS = {
    "resize": train_transform("resize", (40, 70), flip=0.5),
    "scale_crop": train_transform("scale_crop", (50, 60), flip=0.5),
    "small scales": train_transform("scale_crop", (90, 80), flip=0.5, scale_range=(0.3, 0.6)),
    "large scales": train_transform("scale_crop", (30, 40), scale_range=(1.5, 3.0)),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("seed", range(5))
def test_image_label_and_weight_move_together(transform, seed):
    """The label is a function of the image, before and after."""
    out = transform(sample_of(smooth_image((64, 96), seed)), rng(seed))
    red = out["image"][0].int()
    inside = out["label"] != 255
    assert inside.any()
    away = inside & ((red - 127).abs() > 14)  # not at the border between the classes
    assert away.sum() > 0.5 * inside.sum()
    assert torch.equal(out["label"][away], (red[away] > 127).to(torch.uint8))
    assert (out["weight"][inside] - 1 - red[inside]).abs().max() <= 14
    assert (out["weight"][~inside] == 0).all()
    assert torch.equal(out["ood"], out["label"])  # moved and padded alike
    assert [out[key] for key in ("id", "dataset", "scene", "condition")] == ["a", "d", "s", "c"]


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_types_and_sizes(transform):
    out = transform(sample_of(smooth_image((64, 96))), rng())
    image, label, weight = out["image"], out["label"], out["weight"]
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(label, tv_tensors.Mask)
    assert image.dtype == label.dtype == torch.uint8
    assert weight.dtype == torch.float32
    assert isinstance(out["ood"], tv_tensors.Mask)
    assert image.shape[1:] == label.shape == weight.shape


def test_the_resize_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (101, 83, 3), dtype=np.uint8)
    ids = np.random.default_rng(1).integers(0, 19, (101, 83), dtype=np.uint8)
    for size in ((40, 60), (150, 130), (101, 40)):
        bilinear = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        nearest = Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST)
        found = resize_image(torch.from_numpy(image).permute(2, 0, 1), size)
        difference = found.permute(1, 2, 0).int() - torch.from_numpy(np.array(bilinear)).int()
        assert difference.abs().max() <= 1
        assert (resize_map(torch.from_numpy(ids), size).numpy() == np.array(nearest)).mean() > 0.999


def test_a_resize_to_the_same_size_changes_nothing():
    sample = sample_of(smooth_image((20, 30)))
    for size in (None, (20, 30)):
        out = Transform(size)(sample, rng())
        assert all(torch.equal(out[key], sample[key]) for key in ("image", "label", "weight"))


@pytest.mark.parametrize("seed", range(8))
def test_a_scaled_crop_is_a_crop_of_the_scaled_image(seed):
    """The shortcut, which resamples only the window, against scaling everything."""
    image = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    crop = RandomScaleCrop((40, 50), (0.6, 2.0))
    found = crop(sample_of(image), rng(seed))

    draw = rng(seed)
    scale = draw.uniform(0.6, 2.0)
    size = round(70 * scale), round(90 * scale)
    top, left = (
        int(draw.integers(0, max(0, n - m) + 1)) for n, m in zip(size, (40, 50), strict=True)
    )
    whole = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[top : top + 40, left : left + 50].astype(int)
    labels = torch.from_numpy((image[..., 0] > 127).astype(np.uint8))
    ids = resize_map(labels, size)[top : top + 40, left : left + 50]
    difference = np.abs(found["image"].permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 2  # on white noise; each of two passes rounds to whole levels
    assert difference.mean() < 0.05
    assert torch.equal(found["label"], ids)


def test_a_small_image_lies_in_the_middle_of_the_padding():
    image = np.full((10, 20, 3), 200, np.uint8)
    out = RandomScaleCrop((20, 26), (1.0, 1.0))(sample_of(image), rng())
    assert (out["label"][5:15, 3:23] == 1).all()
    assert (out["label"] == 255).sum() == 20 * 26 - 10 * 20
    padding = out["image"][:, 0, 0].tolist()
    assert padding == [round(255 * mean) for mean in IMAGENET_MEAN] == [124, 116, 104]
    assert (out["image"][:, 5:15, 3:23] == 200).all()


def test_the_crop_reaches_every_corner():
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)[..., None].repeat(3, 2)
    crop = RandomScaleCrop((8, 8), (1.0, 1.0))
    corners = {int(crop(sample_of(image), rng(seed))["image"][0, 0, 0]) for seed in range(200)}
    assert corners == {10 * row + column for row in range(3) for column in range(3)}


def test_a_flip_twice_is_the_identity():
    sample = sample_of(smooth_image((20, 30)))
    flip = RandomFlip(1.0)
    once, twice = flip(sample, rng()), flip(flip(sample, rng()), rng())
    assert torch.equal(once["weight"], sample["weight"].flip(-1))
    for key in ("image", "label", "weight"):
        assert not torch.equal(once[key], sample[key])
        assert torch.equal(twice[key], sample[key])


def test_the_flip_has_its_probability():
    sample = sample_of(smooth_image((4, 6)))
    flip, draw = RandomFlip(0.25), rng()
    flipped = sum(
        not torch.equal(flip(sample, draw)["image"], sample["image"]) for _ in range(1000)
    )
    assert 200 < flipped < 300


def test_jitter_changes_the_image_alone_and_within_its_strength():
    sample = sample_of(np.full((8, 8, 3), 100, np.uint8))
    out = [ColourJitter(0.5)(sample, rng(seed)) for seed in range(50)]
    values = torch.stack([o["image"] for o in out]).float()
    assert 45 <= values.min() < 70  # on a grey image only the brightness shows
    assert 130 < values.max() <= 155
    assert all(torch.equal(o["label"], sample["label"]) for o in out)
    assert all(torch.equal(o["weight"], sample["weight"]) for o in out)


def colour(hue_degrees):
    return [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue_degrees / 360, 0.6, 0.7)]


def test_the_hue_moves_within_its_strength_and_the_rest_stays():
    image = np.tile(np.array(colour(200), np.uint8), (4, 6, 1))
    sample = sample_of(image)
    moved = []
    for seed in range(60):
        red, green, blue = ColourJitter(0.0, 0.1)(sample, rng(seed))["image"][:, 0, 0].tolist()
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        moved.append(360 * hue - 200)
        assert abs(saturation - 0.6) < 0.02
        assert abs(value - 0.7) < 0.01
    assert -37 < min(moved) < -30
    assert 30 < max(moved) < 37


def test_without_hue_the_jitter_draws_as_it_always_did():
    sample = sample_of(np.random.default_rng(4).integers(0, 256, (12, 15, 3), dtype=np.uint8))
    steps = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
    )
    for seed in range(10):
        draw, expected = rng(seed), sample["image"]
        factors = draw.uniform(0.6, 1.4, size=3)
        for which in draw.permutation(3):
            expected = steps[which](expected, float(factors[which]))
        used = rng(seed)
        assert torch.equal(ColourJitter(0.4)(sample, used)["image"], expected)
        assert used.bit_generator.state == draw.bit_generator.state


def test_the_hue_is_one_of_the_steps_in_random_order():
    """On coloured images the order of contrast and hue shows."""
    sample = sample_of(np.random.default_rng(4).integers(0, 256, (12, 15, 3), dtype=np.uint8))
    for seed in range(10):
        draw, expected = rng(seed), sample["image"]
        amounts = [*draw.uniform(0.6, 1.4, size=3), draw.uniform(-0.2, 0.2)]
        steps = (
            functional.adjust_brightness,
            functional.adjust_contrast,
            functional.adjust_saturation,
            functional.adjust_hue,
        )
        for which in draw.permutation(4):
            expected = steps[which](expected, float(amounts[which]))
        assert torch.equal(ColourJitter(0.4, 0.2)(sample, rng(seed))["image"], expected)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("gaussian", 0.15, 1.3), ("bilateral", 0.05, 0.75)]
)
def test_blur_takes_a_sigma_within_its_limits_and_leaves_the_maps(monkeypatch, kind, low, high):
    sigmas = []

    def note(image, sigma):
        sigmas.append(sigma)
        return image

    monkeypatch.setattr(datasets.photometric, f"{kind}_blur", note)
    sample = sample_of(smooth_image((8, 9)))
    out = [RandomBlur(kind)(sample, rng(seed)) for seed in range(200)]
    span = high - low
    assert low <= min(sigmas) < low + 0.05 * span
    assert high - 0.05 * span < max(sigmas) <= high
    assert all(torch.equal(out[0][key], sample[key]) for key in ("label", "weight", "ood"))


def test_all_of_abets_augmentation_in_its_order():
    transform = train_transform(
        "scale_crop", (30, 40), flip=0.5, colour_jitter=0.25, hue=0.25, blur="gaussian",
        scale_filter="bicubic",
    )  # fmt: skip
    assert transform.random == (
        RandomScaleCrop((30, 40), (0.5, 2.0), "bicubic"),
        ColourJitter(0.25, 0.25),
        RandomFlip(0.5),
        RandomBlur("gaussian"),
    )
    out = transform(sample_of(smooth_image((64, 96))), rng())
    assert isinstance(out["image"], tv_tensors.Image)
    assert out["image"].dtype == torch.uint8
    assert out["image"].shape == (3, 30, 40)


def numbered(height, width):
    """A sample whose weight is the number of each pixel, from 1 on."""
    sample = sample_of(np.zeros((height, width, 3), np.uint8))
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(height, width)
    sample["weight"] = tv_tensors.Mask(numbers)
    return sample


def test_a_crop_shows_its_centre_at_any_size_scale_and_padding():
    """Where pixels are not left out by a smaller scale, the very pixel; else one beside it."""
    draw = rng(1)
    padded = 0
    for seed in range(1500):
        height, width = draw.integers(1, 60, 2).tolist()
        size = tuple(draw.integers(1, 50, 2).tolist())
        least = draw.uniform(0.3, 2.0)
        sample = numbered(height, width)
        x, y = int(draw.integers(width)), int(draw.integers(height))
        if seed % 5 == 0:
            x, y = draw.choice([0, width - 1]).item(), draw.choice([0, height - 1]).item()
        transform = Transform(None, (RandomScaleCrop(size, (least, least + 0.5)),))
        out = transform.randomise(sample, rng(seed), (x, y))
        shown = out["weight"][out["label"] != 255].long() - 1
        padded += shown.numel() < size[0] * size[1]
        scale = rng(seed).uniform(least, least + 0.5)
        steps = [math.ceil(n / max(1, round(n * scale))) for n in (height, width)]
        near = ((shown // width - y).abs() < steps[0]) & ((shown % width - x).abs() < steps[1])
        assert near.any(), (height, width, size, scale, x, y)
        if scale >= 1:
            assert (shown == y * width + x).any(), (height, width, size, scale, x, y)
        assert "centre" not in out
    assert 200 < padded < 1300


def test_a_centre_can_be_anywhere_in_the_window_and_is_cut_off_at_the_image():
    """The start is uniform in [c - crop + 1, c] and clamped to the image."""
    crop = Transform(None, (RandomScaleCrop((8, 8), (1.0, 1.0)),))
    sample = numbered(20, 30)
    starts = [
        divmod(int(crop.randomise(sample, rng(seed), (15, 3))["weight"][0, 0]) - 1, 30)
        for seed in range(800)
    ]
    rows, columns = (Counter(each) for each in zip(*starts, strict=True))
    assert sorted(columns) == list(range(8, 16))
    assert all(60 < count < 140 for count in columns.values())
    assert sorted(rows) == [0, 1, 2, 3]
    assert rows[0] == max(rows.values())
    assert 440 < rows[0] < 560  # five of eight starts lie at or above the upper edge


def test_without_a_centre_the_crop_draws_as_it_always_did():
    for seed in range(20):
        used, draw = rng(seed), rng(seed)
        out = RandomScaleCrop((8, 9), (0.4, 2.0))(numbered(10, 12), used)
        scale = draw.uniform(0.4, 2.0)
        starts = []
        for length, total in ((10, 8), (12, 9)):
            starts.append(int(draw.integers(0, max(0, max(1, round(length * scale)) - total) + 1)))
        assert used.bit_generator.state == draw.bit_generator.state
        scaled = resize_map(numbered(10, 12)["weight"], (round(10 * scale), round(12 * scale)))
        inside = out["label"] != 255
        expected = scaled[starts[0] : starts[0] + 8, starts[1] : starts[1] + 9].flatten()
        assert torch.equal(out["weight"][inside].as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_bicubic_crop_is_a_crop_of_the_image_scaled_so(seed):
    image = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    found = RandomScaleCrop((40, 50), (0.6, 2.0), "bicubic")(sample_of(image), rng(seed))
    draw = rng(seed)
    scale = draw.uniform(0.6, 2.0)
    size = round(70 * scale), round(90 * scale)
    top, left = (
        int(draw.integers(0, max(0, n - m) + 1)) for n, m in zip(size, (40, 50), strict=True)
    )
    whole = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = np.asarray(whole)[top : top + 40, left : left + 50].astype(int)
    difference = np.abs(found["image"].permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


def test_the_same_generator_gives_the_same_sample_and_torchs_own_stays():
    transform = train_transform("scale_crop", (30, 30), flip=0.5, colour_jitter=0.5)
    sample = sample_of(smooth_image((40, 50)))
    state = torch.random.get_rng_state()
    first, second, other = (transform(sample, rng(seed))["image"] for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_transforms_leave_their_input_alone():
    sample = sample_of(smooth_image((40, 50)))
    before = {key: sample[key].clone() for key in ("image", "label", "weight")}
    train_transform("scale_crop", (30, 30), flip=1.0, colour_jitter=0.5)(sample, rng())
    assert all(torch.equal(sample[key], before[key]) for key in before)


def test_evaluation_is_not_random():
    sample = sample_of(smooth_image((40, 50)), with_weight=False)
    assert eval_transform(None)(sample, rng())["image"].shape == (3, 40, 50)
    resized = [eval_transform((20, 30))(sample, rng(seed)) for seed in (0, 1)]
    assert torch.equal(resized[0]["image"], resized[1]["image"])
    assert "weight" not in resized[0]


def test_the_middle_of_a_wide_image_is_cut_and_of_a_narrow_one_padded():
    transform = eval_transform(None, centre=(10, 8))
    assert transform.size == (10, 8)
    wide = sample_of(np.arange(40, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2) * 5)
    out = transform(wide, rng())
    whole = Image.fromarray(wide["image"].permute(1, 2, 0).numpy()).resize(
        (20, 10), Image.Resampling.BILINEAR
    )
    difference = out["image"].permute(1, 2, 0).int().numpy() - np.asarray(whole)[:, 6:14]
    assert np.abs(difference).max() <= 1
    assert torch.equal(out["label"], resize_map(wide["label"], (10, 20))[:, 6:14])

    narrow = transform(sample_of(np.full((5, 2, 3), 200, np.uint8)), rng())
    assert (narrow["image"][:, :, 2:6] == 200).all()
    assert narrow["image"][:, 0, 0].tolist() == [124, 116, 104]
    outside = torch.ones(10, 8, dtype=torch.bool)
    outside[:, 2:6] = False
    assert ((narrow["label"] == 255) == outside).all()
    assert ((narrow["ood"] == 255) == outside).all()
    assert ((narrow["weight"] == 0) == outside).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_torchvisions_and_can_be_undone(layout):
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8).contiguous(memory_format=layout)
    found = normalize(images)
    expected = pil_functional.normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(denormalize(found), images)
    torch.testing.assert_close(normalize(images[0]), found[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": 1.5}, r"probability of a flip must lie in \[0, 1\], not 1.5"),
        ({"colour_jitter": -1.0}, "strength of the colour jitter must be 0 or more"),
        ({"scale_range": (2.0, 0.5)}, "scale range must be 0 < least <= greatest"),
        ({"scale_range": (0.0, 0.5)}, "scale range must be 0 < least <= greatest"),
        ({"size": (0, 5)}, "a sample of 0x5 pixels is empty"),
        ({"hue": 0.6}, r"strength of the hue's shift must lie in \[0, 0.5\], not 0.6"),
        ({"hue": -0.1}, r"strength of the hue's shift must lie in \[0, 0.5\], not -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_transform("scale_crop", **{"size": (8, 8), **arguments})
