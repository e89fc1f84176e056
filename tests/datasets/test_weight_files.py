import io

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.label_files import encode_label
from datasets.mask_files import encode_mask
from datasets.png_files import DamagedMapError
from datasets.weight_files import (
    decode_published,
    decode_uncertainty,
    decode_weight,
    encode_uncertainty,
    encode_weight,
    has_channels,
    inspect_uncertainty,
    inspect_weight,
    is_response_file,
)

SIZE = (6, 8)
VOID = np.full(SIZE, 255, np.uint8)


def values(seed, choices):
    return np.random.default_rng(seed).choice(np.asarray(choices, np.uint8), SIZE)


LABEL = values(0, [0, 1, 20, 255])
LEVELS = values(1, [255, 113, 28, 0])


def as_png(*channels):
    """An image of these channels in the order in which a file holds them."""
    file = io.BytesIO()
    Image.fromarray(np.dstack(channels)).save(file, "png")
    return file.getvalue()


def test_weights_come_back_whole_and_any_tool_reads_them():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content = encode_weight(levels)
    np.testing.assert_array_equal(decode_weight(content), levels)
    assert inspect_weight(content) == (16, 16)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), levels)


def test_weights_of_another_tool_are_read():
    content = cv2.imencode(".png", LEVELS)[1].tobytes()
    np.testing.assert_array_equal(decode_weight(content), LEVELS)


def test_an_uncertainty_comes_back_within_half_a_level():
    uncertainty = np.random.default_rng(2).uniform(0, 1, SIZE).astype(np.float32)
    uncertainty[0, :3] = 0, 1, 5 / 36
    content = encode_uncertainty(uncertainty)
    assert inspect_uncertainty(content) == SIZE
    assert np.abs(decode_uncertainty(content).astype(float) - uncertainty).max() <= 0.5001 / 65535
    assert decode_uncertainty(content)[0, :2].tolist() == [0, 1]


@pytest.mark.parametrize("decode", [decode_weight, decode_uncertainty])
@pytest.mark.parametrize("place", [10, 60, -20])
def test_any_changed_byte_is_found(decode, place):
    encode = {decode_weight: encode_weight, decode_uncertainty: encode_uncertainty}[decode]
    content = bytearray(encode(LEVELS if decode is decode_weight else LEVELS / np.float32(255)))
    decode(bytes(content))
    content[place] ^= 4
    with pytest.raises(DamagedMapError):
        decode(bytes(content))


def test_an_uncertainty_is_not_a_mask_in_nats():
    with pytest.raises(DamagedMapError, match="no response uncertainty"):
        inspect_uncertainty(encode_mask(np.zeros(SIZE, np.float32), 1.0))


def test_files_of_this_program_are_known_by_their_beginning(tmp_path):
    zeros = np.zeros(SIZE, np.uint8)
    ours = [encode_label(zeros, 3), encode_weight(zeros), encode_uncertainty(zeros.astype("f4"))]
    others = [cv2.imencode(".png", zeros)[1].tobytes(), encode_mask(zeros.astype("f4"), 1.0), b""]
    path = tmp_path / "map.png"
    for contents, expected in ((ours, True), (others, False)):
        for content in contents:
            path.write_bytes(content)
            assert is_response_file(path) is expected


class TestPublishedForm:
    def test_the_writer_s_order_blue_green_red_puts_the_label_last(self):
        """As the release writes it: OpenCV with the channels label, weight, weight."""
        content = cv2.imencode(".png", np.dstack([LABEL, LEVELS, LEVELS]))[1].tobytes()
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)))[..., 2], LABEL)
        label, levels = decode_published(content)
        np.testing.assert_array_equal(label, LABEL)
        np.testing.assert_array_equal(levels, LEVELS)

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_the_two_equal_channels_are_the_weight(self, place):
        channels = [LEVELS, LEVELS, LEVELS]
        channels[place] = LABEL
        label, levels = decode_published(as_png(*channels))
        np.testing.assert_array_equal(label, LABEL)
        np.testing.assert_array_equal(levels, LEVELS)

    def test_an_image_without_any_change_of_sides_has_full_weight(self):
        label, levels = decode_published(as_png(VOID, VOID, 0 * VOID))
        assert (label == 0).all()
        assert (levels == 255).all()

    def test_equal_channels_are_no_weights_unless_all_is_void(self):
        label, levels = decode_published(as_png(VOID, VOID, VOID))
        assert (label == 255).all()
        assert (levels == 255).all()
        for one in (LABEL, 0 * VOID):
            with pytest.raises(DamagedMapError, match="three channels are equal, so it is a label"):
                decode_published(as_png(one, one, one))

    def test_channels_that_all_differ_tell_nothing(self):
        with pytest.raises(DamagedMapError, match="three channels all differ"):
            decode_published(as_png(LABEL, LEVELS, values(3, [4, 5])))

    @pytest.mark.parametrize(
        "content",
        [encode_label(LABEL, 21), as_png(LABEL, LEVELS, LEVELS, VOID), encode_weight(LEVELS)],
    )
    def test_other_images_are_refused(self, content):
        with pytest.raises(DamagedMapError, match="expected three channels of 8 bits"):
            decode_published(content)

    @pytest.mark.parametrize("place", [40, -30, -14])
    def test_damage_is_found(self, place):
        content = bytearray(as_png(LEVELS, LEVELS, LABEL))
        content[place] ^= 1
        for damaged in (bytes(content), bytes(content[:-20]), b"", b"text"):
            with pytest.raises(DamagedMapError, match="cannot be decoded"):
                decode_published(damaged)

    def test_channels_are_known_without_decoding(self, tmp_path):
        path = tmp_path / "a.png"
        for content, expected in (
            (as_png(LABEL, LEVELS, LEVELS), True),
            (as_png(LABEL, LEVELS, LEVELS, VOID), True),
            (encode_label(LABEL, 21), False),
            (b"", False),
        ):
            path.write_bytes(content)
            assert has_channels(path) is expected
