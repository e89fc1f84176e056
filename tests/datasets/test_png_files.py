import io

import numpy as np
import pytest
from PIL import Image

from datasets.png_files import DamagedMapError, begins_with, decode_png, encode_png, inspect_png

TEXT = b"SegDoubt test, value\0seven"
LEVELS = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_levels_and_text_come_back_and_other_programs_open_it(dtype, smooth):
    levels = LEVELS.astype(dtype) * (1 if dtype == np.uint8 else 257)
    content = encode_png(levels, TEXT, smooth=smooth)
    assert inspect_png(content, 8 * np.dtype(dtype).itemsize, "test") == ((5, 7), TEXT)
    np.testing.assert_array_equal(decode_png(content, (5, 7), dtype), levels)
    image = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(np.asarray(image), levels)
    assert image.text == {"SegDoubt test, value": "seven"}


def test_another_depth_size_or_colour_is_refused():
    content = encode_png(LEVELS, TEXT)
    with pytest.raises(DamagedMapError, match="it is no test of this program"):
        inspect_png(content, 16, "test")
    for size, dtype in (((7, 5), np.uint8), ((5, 7), np.uint16)):
        with pytest.raises(DamagedMapError, match="cannot be decoded"):
            decode_png(content, size, dtype)
    coloured = io.BytesIO()
    Image.fromarray(LEVELS).convert("RGB").save(coloured, "PNG")
    with pytest.raises(DamagedMapError, match="it is no test of this program"):
        inspect_png(coloured.getvalue(), 8, "test")


def test_a_file_of_another_tool_has_no_text():
    other = io.BytesIO()
    Image.fromarray(LEVELS).save(other, "PNG")
    assert inspect_png(other.getvalue(), 8, "test") == ((5, 7), b"")


def test_files_are_known_by_their_beginning(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(encode_png(LEVELS, TEXT))
    assert begins_with(path, b"SegDoubt test, value\0")
    assert not begins_with(path, b"SegDoubt tent, value\0")
    path.write_bytes(b"")
    assert not begins_with(path, b"SegDoubt test, value\0")


def test_a_slope_takes_less_room_when_it_is_called_smooth():
    slope = np.add.outer(np.arange(128), np.arange(128)).astype(np.uint8)
    rough = slope + np.random.default_rng(0).integers(0, 2, slope.shape, dtype=np.uint8)
    assert len(encode_png(rough, TEXT, smooth=True)) < 0.8 * len(encode_png(rough, TEXT))
