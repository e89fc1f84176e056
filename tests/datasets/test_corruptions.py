import math
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from datasets.corruptions import CORRUPTIONS, build_corruption, parse_corruption
from datasets.corruptions.filters import (
    convolve,
    disk,
    gaussian,
    reference_size,
    resized,
    scale_of,
    streak,
)
from datasets.corruptions.kind import SEVERITIES
from datasets.corruptions.seeding import seeded_generator
from datasets.corruptions.textures import crystals, plasma

PAGE = Path(__file__).parents[2] / "docs" / "corruptions.md"
RANDOM = set(CORRUPTIONS) - {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
}
# some neighbours among their published parameters are about equal
NEARLY_EQUAL = {"glass_blur", "snow", "fog"}
SIZE_FREE = {"gaussian_noise", "shot_noise", "impulse_noise", "brightness", "contrast"}


def scene(height, width, seed=0):
    """Structure at all scales, like a photograph: (3, H, W) float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    size = (height, width)
    image = torch.zeros(3, *size)
    for cells, weight in ((3, 1.0), (9, 0.7), (28, 0.5), (56, 0.25)):
        grid = torch.rand(3, cells, cells * width // height, generator=generator) - 0.5
        image += weight * resized(grid, size)
    return (0.45 + 0.4 * image).clamp(0, 1)


def as_bytes(image):
    return (image * 255).round().to(torch.uint8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def image():
    return as_bytes(scene(56, 80))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_size_and_type_stay_and_the_input_is_not_touched(name, severity, image):
    before = image.clone()
    corrupted = build_corruption(name, severity, 0)(image, "a")
    assert corrupted.dtype == torch.uint8
    assert corrupted.shape == image.shape
    assert torch.equal(image, before)
    assert not torch.equal(corrupted, image)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("values", [0.0, 1.0])
def test_black_and_white_images_stay_within_the_range(name, values):
    out = CORRUPTIONS[name].apply(torch.full((3, 20, 30), values), 5, rng())
    assert out.dtype == torch.float32
    assert bool(torch.isfinite(out).all())
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 2)])
def test_tiny_images_are_no_problem(name, size):
    out = build_corruption(name, 5, 0)(torch.full((3, *size), 90, dtype=torch.uint8), "a")
    assert out.shape == (3, *size)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pixels_follow_from_seed_and_id_alone(name, image):
    corrupt = build_corruption(name, 3, 7)
    first = corrupt(image, "a")
    other = corrupt(image, "b")
    assert torch.equal(corrupt(image, "a"), first)  # whatever was drawn in between
    assert torch.equal(pickle.loads(pickle.dumps(corrupt))(image, "a"), first)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(corrupt(strided, "a"), first)
    assert torch.equal(other, first) == (name not in RANDOM)
    assert torch.equal(build_corruption(name, 3, 8)(image, "a"), first) == (name not in RANDOM)


def test_the_generator_is_the_same_in_every_process():
    assert seeded_generator(1, "fog", "a").initial_seed() == 2430327362
    assert seeded_generator(1, "fo", "ga").initial_seed() != 2430327362


def test_the_number_of_threads_changes_nothing(image):
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append([build_corruption(name, 4, 0)(image, "a") for name in CORRUPTIONS])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_more(name):
    images = [as_bytes(scene(224, 224, seed)) for seed in range(4)]
    changes = []
    for severity in SEVERITIES:
        corrupt = build_corruption(name, severity, 0)
        found = [
            change_of(corrupt(image, str(index)), image, name) for index, image in enumerate(images)
        ]
        changes.append(np.mean(found))
    growth = np.diff(changes) / changes[:-1]
    assert growth.min() > (-0.03 if name in NEARLY_EQUAL else 0.01)
    assert changes[4] > 1.15 * changes[0]


def change_of(corrupted, image, name):
    """Mean absolute change; where what is added hides it, the share that no longer correlates."""
    if name in {"fog", "frost"}:
        return 1 - np.corrcoef(corrupted.flatten(), image.flatten())[0, 1]
    return (corrupted.float() - image).abs().mean().item()


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - SIZE_FREE - {"jpeg_compression"}))
def test_the_effect_on_an_enlarged_image_is_alike(name):
    small = scene(224, 224)
    large = resized(small, (672, 672), "bicubic").clamp(0, 1)
    changes = []
    for image in (small, large):
        ids = range(3)
        found = [CORRUPTIONS[name].apply(image, 3, rng(index)) - image for index in ids]
        changes.append(np.mean([change.abs().mean().item() for change in found]))
    assert changes[1] == pytest.approx(changes[0], rel=0.2)


def test_the_size_rule():
    scales = [scale_of(torch.zeros(3, *size)) for size in ((224, 900), (1024, 2048), (64, 64))]
    assert scales == [1, pytest.approx(1024 / 224), 0.5]
    assert scale_of(torch.zeros(3, 5000, 3000)) == 5
    assert reference_size(torch.zeros(3, 1024, 2048)) == (224, 448)


def test_names_and_severities_are_parsed():
    assert parse_corruption("fog:3") == ("fog", 3)
    assert build_corruption("fog", 3, 0).name == "fog:3"
    assert repr(build_corruption("fog", 3, 9)) == "Corruption(kind='fog', severity=3, seed=9)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forg:3", "no corruption is called 'forg' (did you mean 'fog'?); there are gaussian"),
        ("rain", "no corruption is called 'rain'; there are gaussian_noise, shot_noise"),
        ("fog", "the severity of corruption 'fog' is missing; write fog:1 (mild) to fog:5"),
        ("fog:", "the severity of corruption 'fog:' is missing; write fog:1"),
        ("fog:6", "the severity of corruption 'fog:6' '6' is no whole number from 1 to 5"),
        ("fog:2.5", "'2.5' is no whole number from 1 to 5; write fog:1 (mild) to fog:5 (strong)"),
    ],
)
def test_what_cannot_be_parsed(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_corruption(text)


def test_a_severity_out_of_range_is_not_built():
    with pytest.raises(ValueError, match="'0' is no whole number"):
        build_corruption("snow", 0, 0)


def test_published_groups():
    groups = {}
    for name, kind in CORRUPTIONS.items():
        groups.setdefault(kind.group, []).append(name)
        assert kind.description
    assert {group: len(names) for group, names in groups.items()} == {
        "noise": 3,
        "blur": 4,
        "weather": 4,
        "digital": 4,
    }


# noise


def test_gaussian_noise_has_its_deviation():
    grey = torch.full((3, 200, 200), 0.5)
    noise = CORRUPTIONS["gaussian_noise"].apply(grey, 2, rng()) - grey
    assert noise.mean().abs() < 1e-3
    assert noise.std() == pytest.approx(0.12, rel=0.02)


def test_shot_noise_is_a_count_of_photons():
    grey = torch.full((3, 200, 200), 0.4)
    counts = CORRUPTIONS["shot_noise"].apply(grey, 2, rng()) * 25
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    assert counts.mean() == pytest.approx(10, rel=0.01)
    assert counts.var() == pytest.approx(10, rel=0.03)


def test_impulse_noise_sets_a_share_of_the_values():
    grey = torch.full((3, 200, 200), 0.5)
    noisy = CORRUPTIONS["impulse_noise"].apply(grey, 5, rng())
    assert set(noisy.unique().tolist()) == {0.0, 0.5, 1.0}
    for value in (0, 1):
        assert (noisy == value).float().mean() == pytest.approx(0.135, rel=0.05)


# blur


@pytest.mark.parametrize("kernel", [disk(4.3), gaussian(1.7), streak(9, 4, 30), streak(60, 9, -80)])
def test_convolution_agrees_with_scipy(kernel):
    image = torch.rand(2, 21, 34, generator=rng())
    expected = [ndimage.convolve(one.numpy(), kernel.numpy(), mode="mirror") for one in image]
    np.testing.assert_allclose(convolve(image, kernel), np.stack(expected), atol=2e-6)


def test_the_gaussian_agrees_with_scipy():
    image = torch.rand(1, 40, 30, generator=rng())
    # scipy rounds the reach, which is cut at four standard deviations
    expected = ndimage.gaussian_filter(image[0].numpy(), 1.5, truncate=4, mode="mirror")
    np.testing.assert_allclose(convolve(image, gaussian(1.5))[0], expected, atol=1e-5)


def test_a_disk_has_its_area():
    kernel = disk(6.0)
    assert kernel.sum() == pytest.approx(1)
    assert 1 / kernel.max() == pytest.approx(math.pi * 36, rel=0.03)


@pytest.mark.parametrize("angle", [-45, 0, 20, 90])
def test_a_streak_lies_along_its_angle_with_its_middle_in_the_middle(angle):
    kernel = streak(20, 8, angle).double()
    reach = kernel.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert kernel.sum() == pytest.approx(1)
    assert abs((kernel.numpy() * y).sum()) < 1e-5
    assert abs((kernel.numpy() * x).sum()) < 1e-5
    spread = np.array([[(kernel.numpy() * a * b).sum() for a in (x, y)] for b in (x, y)])
    values, vectors = np.linalg.eigh(spread)
    turn = math.radians(angle)
    assert abs(vectors[:, 1] @ [math.cos(turn), math.sin(turn)]) > 0.999
    assert values[1] > 20 * values[0]


def test_zoom_blur_averages_zoomed_pictures():
    image = scene(112, 112)
    level = CORRUPTIONS["zoom_blur"].levels[4]
    factors = level.greatest ** (np.arange(16) / 16)
    total = np.zeros((3, 112, 112))
    for factor in factors:
        offset = 55.5 - 55.5 / factor
        total += [
            ndimage.affine_transform(one.numpy(), [1 / factor] * 2, [offset] * 2, order=1)
            for one in image
        ]
    expected = (image.numpy() + level.pictures * total / 16) / (level.pictures + 1)
    found = CORRUPTIONS["zoom_blur"].apply(image, 5, rng()).numpy()
    assert np.abs(found - expected).mean() < 2e-3


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "elastic_transform"])
def test_what_is_in_the_middle_stays_there_on_average(name):
    image = torch.zeros(3, 224, 224)
    image[:, 80:144, 80:144] = 1
    places = torch.arange(224.0)
    total = sum(CORRUPTIONS[name].apply(image, 5, rng(seed))[0] for seed in range(6))
    assert (total.sum(1) @ places) / total.sum() == pytest.approx(111.5, abs=0.6)
    assert (total.sum(0) @ places) / total.sum() == pytest.approx(111.5, abs=0.6)


# weather


def test_brightness_agrees_with_hsv(image):
    hsv = rgb_to_hsv(image.permute(1, 2, 0).numpy() / 255)
    for severity, amount in zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        raised = hsv.copy()
        raised[..., 2] = np.clip(raised[..., 2] + amount, 0, 1)
        found = CORRUPTIONS["brightness"].apply(image / 255, severity, rng())
        np.testing.assert_allclose(found.permute(1, 2, 0), hsv_to_rgb(raised), atol=1e-5)


def test_black_gets_brighter_too():
    out = CORRUPTIONS["brightness"].apply(torch.zeros(3, 4, 4), 3, rng())
    assert torch.allclose(out, torch.tensor(0.3))


def test_fog_fades_towards_a_cloud():
    image = scene(112, 112)
    contrasts = [CORRUPTIONS["fog"].apply(image, s, rng()) for s in SEVERITIES]
    assert all(out.max() <= image.max() + 1e-6 for out in contrasts)
    # all that the image itself keeps is its own share: differences between channels show it
    colour = [(out[0] - out[1]).std().item() for out in contrasts]
    brightest = image.max().item()
    expected = [brightest / (brightest + c) for c in (1.5, 2, 2.5, 2.5, 3)]
    np.testing.assert_allclose(
        np.array(colour) / (image[0] - image[1]).std().item(), expected, 1e-3
    )


@pytest.mark.parametrize("size", [(224, 224), (150, 400)])
def test_a_slower_decay_gives_a_rougher_cloud(size):
    clouds = [plasma(size, decay, rng()) for decay in (2.0, 1.4)]
    assert all(cloud.shape == size for cloud in clouds)
    assert all((cloud.min(), cloud.max()) == (0, 1) for cloud in clouds)
    rough = [(cloud.diff(dim=0).abs().mean() / cloud.std()).item() for cloud in clouds]
    assert rough[1] > 1.5 * rough[0]


def test_snow_whitens_and_only_brightens():
    image = scene(112, 112)
    out = CORRUPTIONS["snow"].apply(image, 5, rng())
    assert bool((out >= image - 1e-5).all())
    assert (out.std(0).mean() < image.std(0).mean()).item()  # less colour


def test_ice_covers_about_half_at_every_size():
    for size in ((112, 224), (224, 224), (448, 500)):
        ice = crystals(torch.zeros(3, *size), rng())
        assert ice.shape == (3, *size)
        assert 0 <= ice.min() <= ice.max() <= 1
        assert 0.3 < ice.mean() < 0.6
        assert (ice[2] >= ice[0]).all()  # bluish


# digital


def test_contrast_keeps_the_mean_of_each_channel():
    image = scene(30, 40)
    for severity, factor in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        out = CORRUPTIONS["contrast"].apply(image, severity, rng())
        assert torch.allclose(out.mean((1, 2)), image.mean((1, 2)), atol=1e-6)
        assert torch.allclose(out.std((1, 2)), factor * image.std((1, 2)), atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_agrees_with_pillow_at_the_published_size(severity):
    image = as_bytes(scene(224, 224))
    factor = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    coarse = picture.resize((int(224 * factor),) * 2, Image.Resampling.BOX)
    expected = np.asarray(coarse.resize((224, 224), Image.Resampling.BOX)).astype(int)
    found = build_corruption("pixelate", severity, 0)(image, "a").permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1  # Pillow rounds in between


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_agrees_with_opencv(severity):
    image = as_bytes(scene(64, 96))
    quality = [cv2.IMWRITE_JPEG_QUALITY, (25, 18, 15, 10, 7)[severity - 1]]
    stored = cv2.imencode(".jpg", image.flip(0).permute(1, 2, 0).contiguous().numpy(), quality)[1]
    expected = cv2.imdecode(stored, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    found = build_corruption("jpeg_compression", severity, 0)(image, "a").permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 0.5


@pytest.mark.parametrize(("side", "scale"), [(224, 1), (448, 2)])
def test_elastic_displacements_are_small_and_scale_with_the_image(side, scale):
    ramp = torch.arange(float(side)) / side
    image = torch.stack([ramp.expand(side, side)] * 3)
    for severity, deviation in zip(SEVERITIES, (0.32, 0.57, 0.81, 1.13, 1.94), strict=True):
        out = CORRUPTIONS["elastic_transform"].apply(image, severity, rng())
        moved = (out - image)[0, :, 40:-40] * side  # in pixels
        assert abs(moved.mean().item()) < 0.1 * scale
        assert moved.std().item() == pytest.approx(scale * deviation, rel=0.12)


# the page


def test_the_page_lists_the_parameters_of_every_kind():
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            rows[cells[0].strip("`")] = cells[1:]
    assert list(rows) == list(CORRUPTIONS)
    for name, (group, _, values) in rows.items():
        kind = CORRUPTIONS[name]
        levels = [level if isinstance(level, tuple) else (level,) for level in kind.levels]
        assert group == kind.group
        expected = " / ".join(", ".join(f"{value:g}" for value in level) for level in levels)
        assert values == expected, name


def test_the_picture_is_there_and_small():
    picture = PAGE.with_suffix(".png")
    assert f"]({picture.name})" in PAGE.read_text()
    assert picture.stat().st_size <= 400_000


def test_the_code_that_draws_the_picture_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    exec(compile(code, PAGE.name, "exec"), {})
    assert Image.open("docs/corruptions.png").size == Image.open(PAGE.with_suffix(".png")).size
