import numpy as np
import pytest

from metrics.component_counts import connected_components
from metrics.segment_features import feature_names, segment_features, segment_pixels

CLASSES = ("road", "car", "sky", "rider")


def image(seed, size=(12, 15), share=0.45):
    """A mask with segments of every shape, and a softmax (C, H, W)."""
    generator = np.random.default_rng(seed)
    mask = generator.random(size) < share
    mask[2:7, 3:9] = True  # with an interior
    weights = generator.random((len(CLASSES), *size)).astype(np.float32) ** 3
    return mask, weights / weights.sum(0)


def features_of(mask, likely):
    segments = connected_components(mask)
    pixels = segment_pixels(segments)
    chosen = likely.reshape(len(likely), -1)[:, pixels.places]
    table = segment_features(segments, pixels, chosen, likely.argmax(0).astype(np.uint8))
    return segments, dict(zip(feature_names(CLASSES), table.T, strict=True))


def around(row, column, size):
    """The places of the neighbours that are in the image, and how many are not."""
    places = [
        (row + down, column + right)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if (down or right) and 0 <= row + down < size[0] and 0 <= column + right < size[1]
    ]
    return places, 8 - len(places)


def by_pixel(mask, likely, ids, number):
    """The features of one segment, pixel by pixel, as the names say."""
    classes = likely.argmax(0)
    ordered = np.sort(likely.astype(np.float64), axis=0)[::-1]
    maps = {
        "entropy": -(likely * np.log(likely)).sum(0, dtype=np.float64) / np.log(len(likely)),
        "margin": 1 - ordered[0] + ordered[1],
        "variation_ratio": 1 - ordered[0],
    }
    places = list(zip(*np.nonzero(ids == number), strict=True))
    inner, outer, touched = [], [], []
    for place in places:
        neighbours, beyond = around(*place, mask.shape)
        others = [each for each in neighbours if not mask[each]]
        touched += [classes[each] for each in others]
        (outer if others or beyond else inner).append(place)
    sizes = len(places), len(inner), len(outer)
    relative, relative_interior = sizes[0] / sizes[2], sizes[1] / sizes[2]
    expected = {}
    for name, values in maps.items():
        parts = [np.array([values[each] for each in part]) for part in (places, outer, inner)]
        means = [part.mean() if part.size else 0 for part in parts]
        variances = [part.var() if part.size else 0 for part in parts]
        for statistic, (whole, edge, inside) in (("mean", means), ("variance", variances)):
            expected[f"{name}_{statistic}"] = whole
            expected[f"{name}_boundary_{statistic}"] = edge
            expected[f"{name}_interior_{statistic}"] = inside
            expected[f"{name}_relative_{statistic}"] = whole * relative
            expected[f"{name}_relative_interior_{statistic}"] = inside * relative_interior
    expected |= {"size": sizes[0], "interior_size": sizes[1], "boundary_size": sizes[2]}
    expected |= {"relative_size": relative, "relative_interior_size": relative_interior}
    for index, name in enumerate(CLASSES):
        expected[f"probability_{name}"] = np.mean([likely[(index, *each)] for each in places])
        expected[f"neighbour_{name}"] = touched.count(index) / max(len(touched), 1)
    expected["centre_row"], expected["centre_column"] = np.mean(places, axis=0)
    return expected


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_look_at_every_pixel(seed):
    mask, likely = image(seed, share=(0.45, 0.2, 0.1, 0.02)[seed])
    segments, found = features_of(mask, likely)
    assert segments.number >= 2
    for number in range(1, segments.number + 1):
        expected = by_pixel(mask, likely, segments.ids, number)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert found[name][number - 1] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_there_are_as_many_features_as_published():
    assert len(feature_names([str(index) for index in range(19)])) == 75
    assert len(set(feature_names(CLASSES))) == 37 + 2 * len(CLASSES)


def test_a_segment_of_one_pixel():
    mask, likely = np.zeros((3, 3), bool), image(0, size=(12, 15))[1][:, :3, :3]
    mask[1, 1] = True
    _, found = features_of(mask, likely)
    assert found["size"] == found["boundary_size"] == found["relative_size"] == 1
    assert found["interior_size"] == found["entropy_interior_mean"] == 0
    assert found["entropy_variance"] == 0
    assert found["centre_row"] == found["centre_column"] == 1
    shares = np.bincount(np.delete(likely.argmax(0).ravel(), 4), minlength=4) / 8
    assert [found[f"neighbour_{name}"][0] for name in CLASSES] == pytest.approx(shares.tolist())


def test_a_segment_of_the_whole_image_has_a_boundary_and_no_neighbours():
    likely = image(0)[1]
    _, found = features_of(np.ones(likely.shape[1:], bool), likely)
    assert found["boundary_size"] == 2 * (12 + 15) - 4
    assert [found[f"neighbour_{name}"][0] for name in CLASSES] == [0] * 4
    assert np.isfinite([column[0] for column in found.values()]).all()


def test_a_certain_pixel_has_no_entropy():
    likely = np.zeros((4, 3, 3), np.float32)
    likely[2] = 1
    _, found = features_of(np.eye(3, dtype=bool), likely)
    assert found["entropy_mean"] == found["margin_mean"] == found["variation_ratio_mean"] == 0
    assert found["probability_sky"] == 1


def test_no_segment_has_no_features():
    likely = image(0)[1]
    _, found = features_of(np.zeros(likely.shape[1:], bool), likely)
    assert {len(column) for column in found.values()} == {0}
