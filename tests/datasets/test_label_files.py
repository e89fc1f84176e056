import io

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.label_files import (
    decode_label,
    decode_score,
    encode_label,
    encode_score,
    first_bad_value,
    inspect_label,
    inspect_label_file,
    inspect_score,
    is_label,
    is_score,
    read_label,
)
from datasets.png_files import DamagedMapError

rng = np.random.default_rng(0)
LABEL = rng.choice(np.array([0, 1, 2, 255], np.uint8), (5, 7))
SCORE = rng.integers(0, 256, (5, 7), dtype=np.uint8)


def test_labels_and_scores_come_back():
    content = encode_label(LABEL, 3)
    np.testing.assert_array_equal(decode_label(content), LABEL)
    assert inspect_label(content) == ((5, 7), 3)
    np.testing.assert_array_equal(decode_score(encode_score(SCORE)), SCORE)
    assert inspect_score(encode_score(SCORE)) == (5, 7)


def test_files_are_read_and_inspected_as_their_contents_are(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_label(LABEL, 3))
    np.testing.assert_array_equal(read_label(path), LABEL)
    assert inspect_label_file(path) == ((5, 7), 3)
    path.write_bytes(path.read_bytes()[:-1])
    for function in (read_label, inspect_label_file):
        with pytest.raises(DamagedMapError, match="truncated"):
            function(path)


def test_other_programs_read_the_train_ids():
    image = Image.open(io.BytesIO(encode_label(LABEL, 3)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), LABEL)


@pytest.mark.parametrize(
    ("content", "inspect"),
    [(encode_label(LABEL, 3), inspect_label), (encode_score(SCORE), inspect_score)],
)
def test_every_changed_byte_and_every_truncation_is_found(content, inspect):
    inspect(content)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        for damaged in (bytes(changed), content[:place]):
            with pytest.raises(DamagedMapError):
                inspect(damaged)


def test_a_label_of_another_tool_is_one_and_another_image_is_none():
    assert inspect_label(cv2.imencode(".png", LABEL)[1].tobytes()) == ((5, 7), None)
    for image in (np.zeros((5, 7, 3), np.uint8), np.zeros((5, 7), np.uint16)):
        with pytest.raises(DamagedMapError, match="no pseudo label of this program"):
            decode_label(cv2.imencode(".png", image)[1].tobytes())
    for content in (cv2.imencode(".png", SCORE)[1].tobytes(), encode_label(LABEL, 3)):
        with pytest.raises(DamagedMapError, match="no score map of this program"):
            decode_score(content)


def test_labels_and_scores_are_told_apart_by_their_beginning(tmp_path):
    label, score = tmp_path / "a.png", tmp_path / "a_score.png"
    label.write_bytes(encode_label(LABEL, 3))
    score.write_bytes(encode_score(SCORE))
    assert (is_label(label), is_label(score)) == (True, False)
    assert (is_score(label), is_score(score)) == (False, True)


@pytest.mark.parametrize("value", [3, 100, 254])
def test_a_value_that_is_no_class_is_found(value):
    label = LABEL.copy()
    label[2, 3] = value
    assert first_bad_value(label, 3) == value
    assert first_bad_value(label, value + 1) is None
    with pytest.raises(AssertionError):
        encode_label(label, 3)


@pytest.mark.parametrize("label", [LABEL, np.full((2, 2), 255, np.uint8)])
def test_classes_and_rejected_pixels_are_good(label):
    assert first_bad_value(label, 3) is None
    assert first_bad_value(label, 255) is None
