import io
import zipfile

import numpy as np
import pytest

from datasets.cam_files import (
    decode_cams,
    encode_cams,
    inspect_cams,
    is_cam,
    read_arrays,
    read_classes,
)
from datasets.png_files import DamagedMapError

CLASSES = np.array([1, 7, 300], np.int64)


def some_maps(count=3, size=(5, 6), seed=0):
    return np.random.default_rng(seed).random((count, *size)).astype(np.float32)


def test_what_is_read_is_what_was_written_in_half_precision():
    maps = some_maps()
    maps[0, 0, :2] = 0, 1
    classes, found = decode_cams(encode_cams(CLASSES, maps))
    np.testing.assert_array_equal(classes, CLASSES)
    assert (classes.dtype, found.dtype) == (np.int64, np.float16)
    np.testing.assert_array_equal(found, maps.astype(np.float16))
    assert (found[0, 0, 0], found[0, 0, 1]) == (0, 1)


def test_an_image_without_foreground_has_a_size():
    content = encode_cams(np.zeros(0, np.int64), np.zeros((0, 4, 9), np.float16))
    classes, maps = decode_cams(content)
    assert (classes.shape, maps.shape, inspect_cams(content)) == ((0,), (0, 4, 9), (4, 9))


def test_the_bytes_follow_from_the_arrays_alone(monkeypatch):
    first = encode_cams(CLASSES, some_maps())
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 0, 0, 0))
    again = np.asfortranarray(some_maps().astype(np.float64))
    assert encode_cams(CLASSES.astype(np.uint16), again) == first
    assert encode_cams(CLASSES, some_maps(seed=1)) != first


def test_numpy_and_zip_tools_open_it():
    content = encode_cams(CLASSES, some_maps())
    with np.load(io.BytesIO(content)) as archive:
        np.testing.assert_array_equal(archive["classes"], CLASSES)
        np.testing.assert_array_equal(archive["maps"], some_maps().astype(np.float16))
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def test_no_changed_and_no_missing_byte_goes_unseen():
    content = encode_cams(CLASSES[:1], some_maps(1, (2, 3)))
    assert inspect_cams(content) == (2, 3)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(DamagedMapError):
            decode_cams(bytes(changed))
        with pytest.raises(DamagedMapError):
            decode_cams(content[:place])


def test_our_files_are_known_by_their_beginning(tmp_path):
    content = encode_cams(CLASSES, some_maps())
    other = io.BytesIO()
    np.savez(other, classes=CLASSES, maps=some_maps())
    for name, written, ours in (
        ("ours", content, True),
        ("cut", content[:-9], True),
        ("other", other.getvalue(), False),
        ("empty", b"", False),
    ):
        (tmp_path / name).write_bytes(written)
        assert is_cam(tmp_path / name) is ours
    with pytest.raises(DamagedMapError, match="no class activation map of this program"):
        inspect_cams(other.getvalue())


def test_archives_with_code_or_without_the_arrays_are_refused():
    for arrays in ({"maps": some_maps()}, {"classes": np.array([{}]), "maps": some_maps()}):
        file = io.BytesIO()
        np.savez(file, **arrays)
        with pytest.raises(DamagedMapError, match=r"no \.npz file with classes and maps"):
            read_arrays(file.getvalue())
    with pytest.raises(DamagedMapError):
        read_arrays(b"PK\x03\x04 and nothing else")
    with pytest.raises(DamagedMapError):
        read_arrays(b"")


def test_a_changed_byte_of_another_program_s_archive_is_damage_or_read(tmp_path):
    file = io.BytesIO()
    np.savez_compressed(file, classes=CLASSES, maps=some_maps().astype(np.float64))
    content = file.getvalue()
    damaged = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 0x5A
        try:
            read_arrays(bytes(changed))
        except DamagedMapError:
            damaged += 1
    assert damaged > 30


def test_the_classes_are_read_without_the_maps(tmp_path):
    (tmp_path / "own.npz").write_bytes(encode_cams(CLASSES, some_maps()))
    np.savez(tmp_path / "other.npz", classes=CLASSES)
    for name in ("own", "other"):
        np.testing.assert_array_equal(read_classes(tmp_path / f"{name}.npz"), CLASSES)
    with pytest.raises(DamagedMapError):
        read_classes(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("classes", "maps"),
    [
        ([2, 1], np.zeros((2, 3, 3))),
        ([1, 1], np.zeros((2, 3, 3))),
        ([1], np.zeros((2, 3, 3))),
        ([1], np.full((1, 3, 3), 1.5)),
        ([1], np.full((1, 3, 3), np.nan)),
    ],
)
def test_nothing_is_written_that_no_reader_could_use(classes, maps):
    with pytest.raises(AssertionError):
        encode_cams(np.array(classes), maps)
