import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from datasets import augmentation
from datasets.augmentation import FACTORS, OPERATIONS, PUBLISHED, SHIFTS, Augmentation


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def image():
    return torch.randint(256, (3, 20, 30), generator=rng(), dtype=torch.uint8)


def picture(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).int()


@pytest.fixture
def level(monkeypatch):
    """Decides which level is drawn."""

    def choose(index):
        monkeypatch.setattr(
            augmentation, "drawn_from", lambda levels, generator: float(levels[index])
        )

    return choose


def test_identity_alone_is_the_input(image):
    out = Augmentation(0, 0, names=("identity",))(image, "a")
    assert torch.equal(out, image)
    assert out is not image


@pytest.mark.parametrize("names", [PUBLISHED, *((name,) for name in OPERATIONS)])
def test_pixels_follow_from_seed_id_and_version_alone(names, image):
    before = image.clone()
    augment = Augmentation(2, 5, names=names)
    first = augment(image, "a")
    augment(image, "b")
    assert torch.equal(augment(image, "a"), first)
    assert torch.equal(pickle.loads(pickle.dumps(augment))(image, "a"), first)
    assert first.dtype == torch.uint8
    assert first.shape == image.shape
    assert torch.equal(image, before)


def test_other_images_versions_and_seeds_look_different(image):
    looks = {
        (version, seed, id): Augmentation(version, seed, names=("RGB_rand",))(image, id)
        for version in (0, 1)
        for seed in (0, 1)
        for id in "ab"
    }
    assert len({tuple(look.flatten().tolist()) for look in looks.values()}) == 8


def test_it_has_a_name_and_a_stable_repr():
    augment = Augmentation(1, 2)
    assert augment.name == "augmented"
    assert repr(augment).startswith("Augmentation(version=1, seed=2, operations=3, names=('ident")
    assert repr(augment) != repr(Augmentation(1, 2, operations=2))


def test_operations_are_drawn_with_replacement_and_applied_in_turn(image, monkeypatch):
    seen = []
    for name in ("invert", "blur"):
        monkeypatch.setitem(
            OPERATIONS, name, lambda image, generator, name=name: seen.append(name) or image
        )
    for version in range(8):
        Augmentation(version, 0, operations=2, names=("invert", "blur"))(image, "a")
    drawn = set(zip(seen[::2], seen[1::2], strict=True))
    assert drawn == {(a, b) for a in ("invert", "blur") for b in ("invert", "blur")}


def test_the_levels():
    assert (len(FACTORS), FACTORS[0], FACTORS[-1]) == (90, 0.2, 1.8)
    assert (len(SHIFTS), SHIFTS[0], SHIFTS[-1], SHIFTS[1]) == (90, 1, 120, 2)
    drawn = {augmentation.drawn_from(SHIFTS, rng(seed)) for seed in range(2000)}
    assert drawn == set(SHIFTS.tolist())


@pytest.mark.parametrize("index", [0, 40, 89])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
    ],
)
def test_enhancers_agree_with_pillow(name, enhancer, index, image, level):
    level(index)
    expected = pixels(enhancer(picture(image)).enhance(FACTORS[index]))
    # Pillow rounds the mean and the grey values, torchvision does not
    assert (OPERATIONS[name](image, rng()).int() - expected).abs().max() <= 1


def test_shifts_are_whole_numbers_per_channel_within_the_bound(level):
    level(3)
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    shifts = [OPERATIONS["RGB_rand"](grey, rng(seed)).int() - 100 for seed in range(200)]
    bound = int(SHIFTS[3])
    assert all(bool((shift == shift[:, :1, :1]).all()) for shift in shifts)
    assert {value for shift in shifts for value in shift.flatten().tolist()} == set(
        range(-bound, bound)
    )
    assert any(len(set(shift[:, 0, 0].tolist())) == 3 for shift in shifts)


def test_shifts_are_clipped(level):
    level(89)
    for value in (0, 255):
        grey = torch.full((3, 1, 1), value, dtype=torch.uint8)
        found = torch.stack([OPERATIONS["RGB_rand"](grey, rng(seed)) for seed in range(20)])
        assert (found.int() - value).abs().max() <= 120
        assert bool((found == value).any())


def test_published_grey_darkens_and_the_other_does_not(image):
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    assert OPERATIONS["black_and_white"](white, rng()).flatten().tolist() == [232] * 3
    assert OPERATIONS["black_and_white_luma"](white, rng()).flatten().tolist() == [255] * 3
    red, green, blue = image.int()
    expected = (30 * red + 50 * green + 11 * blue) // 100
    assert torch.equal(
        OPERATIONS["black_and_white"](image, rng()).int(), expected.expand(3, 20, 30)
    )


def test_the_unpublished_operations_agree_with_pillow(image, level):
    level(50)
    threshold = int(augmentation.THRESHOLDS[50])
    expected = pixels(ImageOps.solarize(picture(image), threshold))
    assert torch.equal(OPERATIONS["solarize"](image, rng()).int(), expected)
    assert torch.equal(
        OPERATIONS["invert"](image, rng()).int(), pixels(ImageOps.invert(picture(image)))
    )
    blurred = pixels(picture(image).filter(ImageFilter.BLUR))
    found = OPERATIONS["blur"](image, rng()).int()
    assert (found - blurred)[:, 2:-2, 2:-2].abs().max() <= 1  # Pillow copies the border


def test_noise_has_its_deviation(level):
    level(10)
    grey = torch.full((3, 100, 100), 128, dtype=torch.uint8)
    noise = OPERATIONS["gaussian_noise"](grey, rng()).float() - 128
    assert noise.std().item() == pytest.approx(augmentation.DEVIATIONS[10], rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("colour",)}, "no augmentation is called 'colour' (did you mean 'color'?)"),
        ({"names": ("rotate",)}, "none of which moves the label"),
        ({"names": ()}, "an augmentation of 3 operations out of 0 changes nothing"),
        ({"operations": 0}, "an augmentation of 0 operations out of 6 changes nothing"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Augmentation(0, 0, **options)
