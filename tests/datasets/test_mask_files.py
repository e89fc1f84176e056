import io

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.mask_files import (
    LEVELS,
    decode_mask,
    encode_mask,
    inspect_mask,
    is_mask,
)
from datasets.png_files import DamagedMapError

SCALE = float(np.log(19))


def random_mask(size=(5, 7), seed=0):
    return np.random.default_rng(seed).uniform(0, SCALE, size).astype(np.float32)


@pytest.fixture
def content():
    return encode_mask(random_mask(), SCALE)


def test_a_mask_comes_back_but_for_the_rounding(content):
    again = decode_mask(content)
    assert again.dtype == np.float32
    assert again.shape == (5, 7)
    assert np.abs(again - random_mask()).max() <= SCALE / LEVELS / 2 + 1e-6
    assert inspect_mask(content) == ((5, 7), SCALE)


def test_both_ends_of_the_range_are_kept_and_rounding_errors_beyond_are_cut():
    mask = np.array([[0, SCALE, -1e-7, SCALE + 1e-6]], np.float32)
    found = decode_mask(encode_mask(mask, SCALE))
    np.testing.assert_allclose(found, [[0, SCALE, 0, SCALE]], rtol=1e-7)


def test_a_mask_read_and_written_again_is_the_same_file(content):
    assert encode_mask(decode_mask(content), SCALE) == content


def test_other_programs_open_it(content):
    image = Image.open(io.BytesIO(content))
    assert image.mode == "I;16"
    np.testing.assert_allclose(
        np.asarray(image) * (SCALE / 65535), random_mask(), atol=SCALE / 131070 + 1e-6
    )
    assert repr(SCALE) in image.text.values()


def test_every_changed_byte_is_found(content):
    for place in range(len(content)):
        for flipped in (1, 128):
            changed = bytearray(content)
            changed[place] ^= flipped
            with pytest.raises(DamagedMapError):
                decode_mask(bytes(changed))


def test_every_truncation_and_every_addition_is_found(content):
    for length in range(len(content)):
        with pytest.raises(DamagedMapError):
            inspect_mask(content[:length])
    for more in (b"\0", b"\0" * 12, content):
        with pytest.raises(DamagedMapError):
            inspect_mask(content + more)


def test_other_images_are_no_masks(tmp_path, content):
    for image in (np.zeros((5, 7), np.uint16), np.zeros((5, 7, 3), np.uint8)):
        other = cv2.imencode(".png", image)[1].tobytes()
        with pytest.raises(DamagedMapError, match="no mask of this program"):
            decode_mask(other)
        (tmp_path / "other.png").write_bytes(other)
        assert not is_mask(tmp_path / "other.png")
    (tmp_path / "mask.png").write_bytes(content)
    assert is_mask(tmp_path / "mask.png")
    (tmp_path / "empty.png").write_bytes(b"")
    assert not is_mask(tmp_path / "empty.png")


def test_a_mask_of_some_hundred_instances_is_small():
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(size=(768, 768)), None, 20) for _ in range(19)]
    classes = np.argmax(noise, axis=0).astype(np.uint8)
    mask = np.zeros((768, 768), np.float32)
    instances = 0
    for index in range(19):
        count, labels = cv2.connectedComponents((classes == index).astype(np.uint8))
        values = rng.uniform(0, SCALE, count).astype(np.float32)
        values[0] = 0
        mask += values[labels]
        instances += count - 1
    assert instances > 400
    assert len(encode_mask(mask, SCALE)) < 60_000
