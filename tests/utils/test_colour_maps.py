import json

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from utils.colour_maps import (
    Scale,
    colour_indices,
    colour_table,
    coloured,
    map_png,
    read_scale,
)

NATS = Scale(0, 1.5, "nats", "the maximum is log 19 = 2.94", clipped=True)


def luminance(table):
    return table.astype(float) @ (0.2126, 0.7152, 0.0722)


def test_the_table_is_matplotlib_s_and_grows_brighter():
    table = colour_table()
    expected = np.array([mpl.colormaps["inferno"](i / 255)[:3] for i in range(256)])
    np.testing.assert_allclose(table, 255 * expected, atol=1)
    assert table.dtype == np.uint8
    assert np.diff(luminance(table)).min() > -1
    assert len(np.unique(table, axis=0)) > 250


def test_the_shared_table_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        colour_table()[0] = 7


def test_values_go_to_their_place_in_the_table_and_stop_at_its_ends():
    values = np.float32([[-1, 0, 0.75], [1.5, 2.9, 1.5 * 100.4 / 255]])
    indices = colour_indices(values, NATS)
    np.testing.assert_array_equal(indices, [[0, 0, 128], [255, 255, 100]])
    np.testing.assert_array_equal(coloured(values, NATS), colour_table()[indices])
    assert colour_indices(np.float32(-5), Scale(-10, 0, "")) == 128


def test_a_map_s_file_holds_its_colours_its_indices_and_its_scale(tmp_path):
    values = np.random.default_rng(0).uniform(0, 2, (9, 13)).astype(np.float32)
    path = tmp_path / "x_entropy.png"
    path.write_bytes(map_png(values, NATS))
    with Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), colour_indices(values, NATS))
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), coloured(values, NATS))
        assert json.loads(picture.text["Scale"])["high"] == 1.5
    assert read_scale(path) == NATS


def test_other_pictures_have_no_scale(tmp_path):
    for name in ("x.png", "x.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        assert read_scale(tmp_path / name) is None


@pytest.mark.parametrize(
    ("scale", "most", "texts"),
    [
        (NATS, 3, ["0", "0.5", "1", "≥ 1.5"]),
        (NATS, 5, ["0", "0.3", "0.6", "0.9", "1.2", "≥ 1.5"]),
        (Scale(0, 1, "probability"), 3, ["0", "0.5", "1"]),
        (Scale(0, 1, "probability"), 1, ["0", "1"]),
        (Scale(-14.57, -2.56, ""), 2, ["-14.6", "-8.57", "-2.56"]),
    ],
)
def test_ticks_show_both_ends_and_short_numbers_between(scale, most, texts):
    ticks = scale.ticks(most)
    assert [text for _, text in ticks] == texts
    values = [value for value, _ in ticks]
    assert values == pytest.approx(np.linspace(scale.low, scale.high, len(texts)))
