"""Boxes that cover an image at several scales, and what of its labels a box keeps."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from datasets.multi_crop import (
    MULTI_CROP_SCALES,
    MultiCrop,
    Stretch,
    crop_boxes,
    kept_labels,
    usual_stride,
)
from datasets.photometric import ColourJitter
from datasets.transforms import RandomFlip, train_transform
from tests.datasets.places import placed, rng, sample_of
from tests.datasets.toys import Toy


def test_an_image_of_voc_has_87_boxes():
    for size in ((375, 500), (500, 375)):
        by_scale = [len(crop_boxes(size, scale)) for scale in MULTI_CROP_SCALES]
        assert by_scale == [1, 2, 4, 6, 6, 9, 12, 12, 15, 20]
        assert sum(by_scale) == 87


def test_boxes_of_one_scale_by_hand():
    """500 x 1.25 = 625 columns, 375 x 1.25 = 468 rows: two boxes along each."""
    columns, rows = ((0, 240), (141, 500)), ((0, 240), (16, 374))
    assert crop_boxes((375, 500), 1.25) == [
        (top, left, bottom, right) for top, bottom in rows for left, right in columns
    ]
    assert crop_boxes((375, 500), 0.75) == [(0, 0, 374, 500)]  # int(int(375 * 0.75) / 0.75)


def test_boxes_are_the_formula_and_cover_the_image():
    for seed in range(200):
        draw = rng(seed)
        size = tuple(draw.integers(2, 90, 2).tolist())
        crop = int(draw.integers(4, 50))
        stride = int(draw.integers(4, crop + 1))
        scale = float(draw.choice([0.5, 0.75, 1.0, 1.5, 2.0, 3.0]))
        expected = []
        for length in size:
            scaled, spans = int(length * scale), []
            count = 1 + math.ceil(max(0, scaled - crop) / stride)
            for place in range(count):
                start, end = stride * place, min(scaled, stride * (place + 1))
                if place == count - 1:
                    start, end = max(0, scaled - crop), scaled
                spans.append((int(start / scale), int(end / scale)))
            expected.append(spans)
        boxes = crop_boxes(size, scale, crop, stride)
        assert boxes == [(t, x, b, y) for t, b in expected[0] for x, y in expected[1]]
        covered = np.zeros(size, int)
        for top, left, bottom, right in boxes:
            assert 0 <= top < bottom <= size[0]
            assert 0 <= left < right <= size[1]
            covered[top:bottom, left:right] += 1
        missing = np.argwhere(covered == 0)
        if scale == int(scale):
            assert len(missing) == 0
        # At another scale, at most the pixels at the far end that the rounding costs.
        assert (np.array(size) - missing <= math.ceil(1 / scale)).any(1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 8), 0.0, 4, 2), "every 2 at scale 0 do not cover an image"),
        (((8, 8), 3.0, 4, 2), "must be 0 < scale <= stride <= crop"),
        (((8, 8), 1.0, 4, 5), "boxes of 4 pixels every 5 at scale 1"),
        (((8, 1), 0.5, 4, 2), "an image of 8x1 pixels is empty at scale 0.5"),
    ],
)
def test_boxes_that_cover_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        crop_boxes(*arguments)


def test_the_usual_stride_is_the_published_share():
    assert [usual_stride(crop) for crop in (448, 224, 48, 1)] == [300, 150, 32, 1]


def test_a_box_keeps_an_object_by_either_share():
    hot = torch.zeros(4, 20, 20, dtype=torch.bool)  # the last object is nowhere
    hot[0] = True  # 10 pixels of 400 are no share of it, but the whole box
    hot[1, 0, 0] = True  # 1 of the box's 10 pixels, not more than a tenth, but all of the object
    hot[2, 0] = True
    hot[2, 5] = True
    assert kept_labels(hot, (0, 0, 1, 10)).tolist() == [True, True, True, False]
    assert kept_labels(hot, (0, 1, 2, 11)).tolist() == [True, False, True, False]
    exact = torch.zeros(1, 20, 20, dtype=torch.bool)
    exact[0, 0, :10], exact[0, 10:19, :10] = True, True  # 100 pixels, 10 in the box of 100
    assert not kept_labels(exact, (0, 0, 10, 10))[0]
    exact[0, 1, 0] = True
    assert kept_labels(exact, (0, 0, 10, 10))[0]


SIZE = (30, 40)
TAGS = torch.tensor([1.0, 1.0, 0.0, 1.0])


def heat(*objects):
    """A reader of heat maps from (train id, rows, columns) of each object."""

    def read(item):
        assert item.id == "a"
        maps = torch.full((len(objects), *SIZE), 0.3)
        for each, (_, rows, columns) in zip(maps, objects, strict=True):
            each[rows, columns] = 0.95
        return torch.tensor([one for one, _, _ in objects]), maps

    return read


LEFT_AND_RIGHT = heat((1, slice(0, 30), slice(8, 16)), (3, slice(0, 30), slice(22, 30)))


def boxes_of(reader=LEFT_AND_RIGHT, **more):
    return MultiCrop(reader, **{"background": 0, "crop": 20, "scales": (0.75, 1.0, 1.5), **more})


def whole_sample():
    label = np.tile(np.arange(40, dtype=np.uint8), (30, 1))  # the column
    label[:, :] += (np.arange(30) * 5).astype(np.uint8)[:, None]  # and the row
    return sample_of(label[..., None].repeat(3, 2), label, image_labels=TAGS)


def test_a_box_is_cut_out_of_every_part_and_keeps_what_it_shows():
    sizes, kept = Counter(), Counter()
    whole = whole_sample()
    for seed in range(200):
        out = boxes_of()(whole, rng(seed))
        assert torch.equal(out["image"][0], out["label"].as_subclass(torch.Tensor))
        assert torch.equal(out["weight"], 1 + torch.Tensor(out["label"]))
        first = int(out["label"][0, 0])
        found = [
            box
            for scale in (0.75, 1.0, 1.5)
            for box in crop_boxes(SIZE, scale, 20, usual_stride(20))
            if (box[2] - box[0], box[3] - box[1]) == tuple(out["label"].shape)
            and 5 * box[0] + box[1] == first
        ]
        assert found
        _, maps = LEFT_AND_RIGHT(type("Item", (), {"id": "a"}))
        shown = {tuple(kept_labels(maps > 0.9, box).tolist()) for box in found}
        one, three = out["image_labels"][[1, 3]].bool().tolist()
        assert (one, three) in shown
        assert out["image_labels"][[0, 2]].tolist() == [1.0, 0.0]
        sizes[tuple(out["label"].shape)] += 1
        kept[one, three] += 1
    assert len(sizes) > 4
    assert min(kept[True, False], kept[False, True], kept[True, True]) > 5
    assert kept[False, False] == 0  # a box at every scale shows an object
    assert torch.equal(whole["image_labels"], TAGS)


def test_a_threshold_on_the_heat_and_no_labels_but_those_of_the_image():
    """Class 2 has heat and is not in the image; class 3 is never hot enough."""
    where = (slice(0, 30), slice(0, 40))

    def read(item):
        maps = torch.full((3, *SIZE), 0.9)
        maps[0][where], maps[1][where] = 0.91, 1.0
        return torch.tensor([1, 2, 3]), maps

    for seed in range(20):
        out = boxes_of(read)(whole_sample(), rng(seed))
        assert out["image_labels"].tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("background", [0, None])
def test_a_box_without_an_object_shows_the_background_alone(background):
    tags = TAGS if background == 0 else torch.tensor([0.0, 1.0, 0.0, 1.0])
    nothing = heat((1, slice(0, 0), slice(0, 0)), (3, slice(0, 0), slice(0, 0)))
    sample = whole_sample()
    sample["image_labels"] = tags
    out = boxes_of(nothing, background=background)(sample, rng())
    assert out["image_labels"].tolist() == [float(background == 0), 0.0, 0.0, 0.0]


def test_boxes_are_drawn_until_one_keeps_a_label():
    """One box of the largest scale shows the object; it is found whatever is drawn first."""
    corner = heat((1, slice(0, 2), slice(0, 2)), (3, slice(0, 0), slice(0, 0)))
    for seed in range(30):
        out = boxes_of(corner, scales=(2.0,))(whole_sample(), rng(seed))
        assert out["label"][0, 0] == 0
        assert out["image_labels"].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_scales_are_equally_often():
    sizes = Counter()
    everywhere = heat((1, slice(0, 30), slice(0, 40)), (3, slice(0, 0), slice(0, 0)))
    for seed in range(400):
        cut = boxes_of(everywhere, crop=60, scales=(0.5, 1.0, 2.0), stride=40)
        shape = cut(whole_sample(), rng(seed))["label"].shape
        sizes[tuple(shape)] += 1
    # At scales 0.5 and 1 the whole image is one box.
    assert 230 < sizes[30, 40] < 300


def test_all_of_the_multi_crop_training():
    reader = LEFT_AND_RIGHT
    transform = train_transform(
        "multi_crop", (20, 20), flip=0.5, colour_jitter=0.3, hue=0.1, heat_maps=reader, background=0
    )
    assert transform.random == (
        MultiCrop(reader, 0, 20, None, MULTI_CROP_SCALES),
        ColourJitter(0.3, 0.1),
        RandomFlip(0.5),
        Stretch((20, 20)),
    )
    first, again = (transform(whole_sample(), rng(3)) for _ in range(2))
    assert first["image"].shape == (3, 20, 20)
    assert first["label"].shape == first["weight"].shape == (20, 20)
    for key in ("image", "label", "weight", "image_labels"):
        assert torch.equal(first[key], again[key])


def test_a_stretch_moves_every_part_alike():
    out = Stretch((12, 24))(placed((6, 8)), rng())
    assert torch.equal(out["weight"], 1 + torch.Tensor(out["label"]))
    assert torch.equal(out["label"][::2, ::3], placed((6, 8))["label"])


def test_a_data_set_with_tags_gives_the_labels_of_the_box():
    tags = {f"item{index}": torch.tensor([1.0, index % 2, 1.0]) for index in range(12)}

    def read(item):
        maps = torch.zeros(2, 6, 8)
        maps[:, :, :4] = 1
        return torch.tensor([1, 2]), maps

    transform = train_transform(
        "multi_crop", (4, 4), heat_maps=read, background=0, crop_scales=(2.0,), crop_stride=3
    )
    toy = Toy(transform=transform, tags=lambda item: tags[item.id])
    for index in range(12):
        sample = toy[index]
        assert sample["image"].shape == (3, 4, 4)
        assert sample["image_labels"].tolist() == [1.0, index % 2, 1.0]
        assert sample["image_labels"].dtype == torch.float32


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="multi_crop finds the labels of a box by heat maps"):
        train_transform("multi_crop", (8, 8))
    with pytest.raises(ValueError, match="multi_crop cuts squares, not 8x9: give one number"):
        train_transform("multi_crop", (8, 9), heat_maps=LEFT_AND_RIGHT)
    with pytest.raises(ValueError, match="boxes need at least one scale"):
        train_transform("multi_crop", (8, 8), heat_maps=LEFT_AND_RIGHT, crop_scales=())
    with pytest.raises(ValueError, match="boxes of 8 pixels every 5 at scale 6 do not cover"):
        train_transform("multi_crop", (8, 8), heat_maps=LEFT_AND_RIGHT, crop_scales=(1.0, 6.0))
    with pytest.raises(ValueError, match="heat maps of a have 30x40 pixels, its image 6x8"):
        boxes_of()(placed((6, 8), image_labels=TAGS), rng())
    with pytest.raises(ValueError, match="a is labelled with the train id 3, of which there is no"):
        boxes_of(heat((1, slice(0, 9), slice(0, 9))))(whole_sample(), rng())
