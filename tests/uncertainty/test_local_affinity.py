from itertools import permutations

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import torch

import uncertainty.local_affinity as module
from tests.uncertainty.maps import smooth_logits
from uncertainty.local_affinity import PUBLISHED_AFFINITY, AffinitySettings, LocalAffinity

SIZE = (13, 17)
FEW = AffinitySettings(distances=(1, 3), iterations=3)


def random_image(size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def random_maps(count=4, size=SIZE, seed=1):
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(seed))


def step_matrix(image, settings):
    """One averaging as a sparse matrix (H W, H W), pixel by pixel, in float64."""
    _, height, width = image.shape
    colours = image.double().numpy()
    matrix = scipy.sparse.lil_matrix((height * width, height * width))
    for y in range(height):
        for x in range(width):
            places, samples = [], []
            for distance in settings.distances:
                for down in (-distance, 0, distance):
                    for right in (-distance, 0, distance):
                        row = min(max(y + down, 0), height - 1)
                        column = min(max(x + right, 0), width - 1)
                        samples.append(colours[:, row, column])
                        if down or right:
                            places.append((row, column))
            spread = np.std(samples, axis=0, ddof=1)
            own = colours[:, y, x]
            apart = [
                np.mean(np.abs(colours[:, row, column] - own) / (settings.bandwidth * spread))
                for row, column in places
            ]
            alike = np.exp(-(np.array(apart) - min(apart)))
            for (row, column), weight in zip(places, alike / alike.sum(), strict=True):
                matrix[y * width + x, row * width + column] += weight
    return matrix.tocsr()


@pytest.mark.parametrize(
    "settings", [FEW, FEW._replace(bandwidth=2.0), PUBLISHED_AFFINITY._replace(iterations=2)]
)
def test_the_means_are_those_of_a_sparse_matrix(settings):
    image, maps = random_image(), random_maps()
    step = step_matrix(image, settings)
    expected = maps.flatten(1).double().numpy().T
    for _ in range(settings.iterations):
        expected = step @ expected
    found = LocalAffinity(image, settings)(maps)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.flatten(1).T, expected, atol=1e-5)


def test_of_one_colour_all_neighbours_count_the_same():
    image, maps = torch.full((3, *SIZE), 7, dtype=torch.uint8), random_maps()
    found = LocalAffinity(image, AffinitySettings((2,), iterations=1))(maps)
    kernel = np.zeros((5, 5))
    kernel[::2, ::2] = 1 / 8
    kernel[2, 2] = 0
    for one, expected in zip(found, maps, strict=True):
        smooth = scipy.ndimage.convolve(expected.numpy(), kernel, mode="nearest")
        np.testing.assert_allclose(one, smooth, atol=1e-6)


def test_a_mean_stays_within_its_map_and_probabilities_add_up_to_1():
    likely = smooth_logits(2, num_classes=5, size=SIZE)[0].softmax(0)
    affinity = LocalAffinity(random_image())
    found = affinity(likely)
    assert (found.amax((1, 2)) <= likely.amax((1, 2)) + 1e-6).all()
    assert (found.amin((1, 2)) >= likely.amin((1, 2)) - 1e-6).all()
    torch.testing.assert_close(found.sum(0), torch.ones(SIZE))
    torch.testing.assert_close(affinity(torch.full((1, *SIZE), 0.3)), torch.full((1, *SIZE), 0.3))


def test_maps_are_refined_alone():
    image, maps = random_image(), random_maps()
    affinity = LocalAffinity(image)
    whole = affinity(maps)
    for one, expected in zip(maps, whole, strict=True):
        assert torch.equal(affinity(one[None])[0], expected)
    torch.testing.assert_close(affinity(2 * maps[:1] - maps[1:2]), 2 * whole[:1] - whole[1:2])


def test_light_contrast_and_the_order_of_channels_do_not_matter():
    image, maps = random_image() // 2, random_maps()
    expected = LocalAffinity(image)(maps)
    torch.testing.assert_close(LocalAffinity(image * 2 + 1)(maps), expected)
    for order in permutations(range(3)):
        torch.testing.assert_close(LocalAffinity(image[list(order)])(maps), expected)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_a_mirrored_image_has_mirrored_means(axes):
    image, maps = random_image(), random_maps()
    found = LocalAffinity(image.flip(axes))(maps.flip(axes)).flip(axes)
    torch.testing.assert_close(found, LocalAffinity(image)(maps))


def test_noise_goes_and_the_border_of_two_colours_stays():
    left = torch.arange(40).expand(30, 40) < 17
    image = torch.where(left, 60, 190).to(torch.uint8).expand(3, 30, 40).contiguous()
    noise = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    found = LocalAffinity(image)((left + 0.5 * noise)[None])[0]
    wrong = (left + 0.5 * noise > 0.5) != left
    assert 0.1 < wrong.float().mean() < 0.2
    assert torch.equal(found > 0.5, left)


def test_half_precision_is_averaged_in_float32():
    image, maps = random_image(), random_maps().half()
    assert torch.equal(LocalAffinity(image)(maps), LocalAffinity(image)(maps.float()))


def test_no_iterations_change_nothing():
    maps = random_maps()
    assert torch.equal(LocalAffinity(random_image(), FEW._replace(iterations=0))(maps), maps)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distances": ()}, "distances are one or more pixels"),
        ({"distances": (4, 0)}, "distances are one or more pixels, not"),
        ({"bandwidth": 0.0}, r"the bandwidth is 0\.0, but must be greater than 0"),
        ({"bandwidth": float("nan")}, "the bandwidth is nan"),
        ({"iterations": -1}, "there are -1 iterations, but it takes 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        LocalAffinity(random_image(), PUBLISHED_AFFINITY._replace(**change))


def test_what_does_not_fit_is_refused():
    for image in (random_image()[:1], random_image()[0], random_image().float()):
        with pytest.raises(ValueError, match=r"need a uint8 image \(3, H, W\), not torch"):
            LocalAffinity(image)
    affinity = LocalAffinity(random_image())
    for maps in (random_maps(size=(13, 16)), random_maps()[0]):
        with pytest.raises(ValueError, match=r"maps of the image are \(M, 13, 17\), not \("):
            affinity(maps)


def test_maps_in_parts(monkeypatch):
    image, maps = random_image(), random_maps(5)
    whole = LocalAffinity(image)(maps)
    monkeypatch.setattr(module, "CHUNK_VALUES", 2 * maps[0].numel())
    assert torch.equal(LocalAffinity(image)(maps), whole)
    monkeypatch.setattr(module, "CHUNK_VALUES", 1)
    assert torch.equal(LocalAffinity(image)(maps), whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (30, 2)])
def test_images_smaller_than_the_neighbourhood(size):
    found = LocalAffinity(random_image(size))(torch.ones(2, *size))
    torch.testing.assert_close(found, torch.ones(2, *size))


def test_the_maps_that_are_given_stay():
    maps = random_maps()
    LocalAffinity(random_image())(maps)
    assert torch.equal(maps, random_maps())


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [FEW, PUBLISHED_AFFINITY])
def test_means_of_a_gpu_are_those_of_the_cpu(settings):
    image, maps = random_image(), random_maps()
    image[:, :, 12:] = 7  # neighbours of one colour
    expected = LocalAffinity(image, settings)(maps)
    found = LocalAffinity(image.cuda(), settings)(maps.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)
