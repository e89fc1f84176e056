from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from datasets.auto_augment import SUB_POLICIES, Step, apply, auto_augment

PHOTOS = [  # a dark gradient and blotches
    np.linspace((10, 0, 40), (140, 90, 200), 48 * 64).reshape(48, 64, 3).astype(np.uint8),
    np.asarray(
        Image.fromarray(
            np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        ).resize((64, 48), Image.Resampling.BICUBIC)
    ),
]
BY_PILLOW = {
    "solarize": lambda image, magnitude, _: ImageOps.solarize(image, magnitude),
    "autocontrast": lambda image, *_: ImageOps.autocontrast(image),
    "equalize": lambda image, *_: ImageOps.equalize(image),
    "posterize": lambda image, magnitude, _: ImageOps.posterize(image, int(magnitude)),
    "invert": lambda image, *_: ImageOps.invert(image),
    "colour": lambda image, _, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, _, factor: ImageEnhance.Contrast(image).enhance(factor),
    "sharpness": lambda image, _, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
STEPS = sorted({step._replace(probability=1.0) for pair in SUB_POLICIES for step in pair})


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("photo", PHOTOS, ids=["gradient", "blotches"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_step_is_that_of_pillow_up_to_rounding(step, sign, photo):
    ours = apply(tensor(photo), step, sign)
    factor = 1 + sign * step.magnitude
    theirs = tensor(BY_PILLOW[step.operation](Image.fromarray(photo), step.magnitude, factor))
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert ours.dtype == torch.uint8


# As published: operation, probability and magnitude, with the step of its ten-step table.
TABLE = {
    "solarize": np.linspace(256, 0, 10),
    "posterize": np.round(np.linspace(8, 4, 10)),
    **dict.fromkeys(("colour", "contrast", "sharpness"), np.linspace(0, 0.9, 10)),
}
PUBLISHED = """\
solarize 0.6 5 autocontrast 0.6 5; equalize 0.8 8 equalize 0.6 3
posterize 0.6 7 posterize 0.6 6; equalize 0.4 7 solarize 0.2 4
solarize 0.6 3 equalize 0.6 7; posterize 0.8 5 equalize 1.0 2
equalize 0.6 8 posterize 0.4 6; equalize 0.0 7 equalize 0.8 8
invert 0.6 4 equalize 1.0 8; colour 0.6 4 contrast 1.0 8
colour 0.8 8 solarize 0.8 7; sharpness 0.4 7 invert 0.6 8
colour 0.4 0 equalize 0.6 3; equalize 0.4 7 solarize 0.2 4
solarize 0.6 5 autocontrast 0.6 5; invert 0.6 4 equalize 1.0 8
colour 0.6 4 contrast 1.0 8; equalize 0.8 8 equalize 0.6 3"""


def test_the_policy_is_the_published_one():
    expected = []
    for text in PUBLISHED.replace("\n", ";").split(";"):
        words = text.split()
        expected.append([(words[i], float(words[i + 1]), int(words[i + 2])) for i in (0, 3)])
    assert len(SUB_POLICIES) == len(expected) == 18
    for steps, published in zip(SUB_POLICIES, expected, strict=True):
        for step, (name, probability, place) in zip(steps, published, strict=True):
            assert (step.operation, step.probability) == (name, probability)
            if name in TABLE:
                assert step.magnitude == pytest.approx(TABLE[name][place], rel=1e-9)


def test_an_image_follows_from_the_generator_alone():
    image = tensor(PHOTOS[0])
    kept, state = image.clone(), torch.random.get_rng_state()
    first, again = (
        [auto_augment(image, rng) for _ in range(40)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))
    assert torch.equal(image, kept)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len({each.numpy().tobytes() for each in first}) > 10


def test_sub_policies_steps_and_signs_come_as_often_as_they_should(monkeypatch):
    seen = Counter()

    def noted(image, step, sign):
        """Count a step instead of doing it."""
        seen[step, sign] += 1
        return image

    monkeypatch.setattr("datasets.auto_augment.apply", noted)
    rng, draws = np.random.default_rng(0), 18_000
    for _ in range(draws):
        auto_augment(torch.zeros(3, 1, 1, dtype=torch.uint8), rng)
    expected = Counter()
    for steps in SUB_POLICIES:
        for step in steps:
            for sign in (1, -1):
                expected[step, sign] += draws / 18 * step.probability / 2
    assert Step("equalize", 0.0) not in {step for step, _ in seen}
    for key, count in expected.items():
        assert abs(seen[key] - count) < 5 * np.sqrt(count + 1)
