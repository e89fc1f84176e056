import io

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.files import (
    by_key,
    image_files,
    image_size,
    listing,
    pair,
    read_ids,
    read_image,
)
from tests.datasets.layouts import filled, striped, truncate, write_image, write_label


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_an_image_is_decoded_to_rgb(tmp_path, suffix):
    pixels = write_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), pixels)


def test_a_jpeg_is_decoded_like_pillow_and_not_turned(tmp_path):
    path = tmp_path / "a.jpg"
    smooth = cv2.resize(write_image(tmp_path / "a.png"), (80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned by a quarter
    Image.fromarray(smooth).save(path, quality=95, exif=exif)
    found = read_image(path)
    assert found.shape[:2] == image_size(path) == (60, 80)
    difference = found.astype(int) - np.asarray(Image.open(path)).astype(int)
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_image(path, (60, 80))
    truncate(path)
    with pytest.raises(ValueError, match=rf"a\.{suffix} cannot be decoded: truncated or not an im"):
        read_image(path)


def test_a_truncated_label_is_named(tmp_path):
    write_label(tmp_path / "grey.png", striped(range(200), (60, 200)))
    write_label(tmp_path / "palette.png", striped(range(200), (60, 200)), palette=True)
    for path in sorted(tmp_path.iterdir()):
        truncate(path)
        with pytest.raises(ValueError, match=f"{path.name} cannot be"):
            read_ids(path)


def test_a_missing_file_is_named(tmp_path):
    for read in (read_image, read_ids):
        with pytest.raises(ValueError, match=r"gone\.png does not exist"):
            read(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image"):
        image_size(tmp_path / "text.png")


def test_grey_and_palette_labels_hold_the_same_ids(tmp_path):
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    write_label(tmp_path / "grey.png", ids)
    write_label(tmp_path / "palette.png", ids, palette=True)
    np.testing.assert_array_equal(read_ids(tmp_path / "grey.png"), ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "palette.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_stretched(tmp_path, bits):
    """Grey PNG files of 1, 2 and 4 bits, as cv2 and Pillow would stretch them to 0..255."""
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    (tmp_path / "few.png").write_bytes(grey_png(ids, bits))
    np.testing.assert_array_equal(read_ids(tmp_path / "few.png"), ids)
    packed = Image.fromarray(ids, mode="P")
    packed.putpalette([9 * i % 256 for i in range(3 * 2**bits)])
    packed.save(tmp_path / "packed.png", bits=bits)
    np.testing.assert_array_equal(read_ids(tmp_path / "packed.png"), ids)


def grey_png(ids, bits):
    """Encode by hand: Pillow writes grey images of eight bits only."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = ids.shape
    rows = b""
    for row in ids:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    out = io.BytesIO(b"")
    out.write(b"\x89PNG\r\n\x1a\n")
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return out.getvalue()


def test_sixteen_bit_labels_are_read_unless_their_ids_do_not_fit(tmp_path):
    cv2.imwrite(str(tmp_path / "fits.png"), filled(200).astype(np.uint16))
    assert (read_ids(tmp_path / "fits.png") == 200).all()
    cv2.imwrite(str(tmp_path / "large.png"), filled(200).astype(np.uint16) + 100)
    with pytest.raises(ValueError, match=r"large\.png holds ids up to 300; .* 0\.\.255"):
        read_ids(tmp_path / "large.png")


def test_a_grey_label_stored_in_colour_is_read_and_a_colour_label_refused(tmp_path):
    Image.fromarray(np.repeat(filled(3)[..., None], 3, 2)).save(tmp_path / "grey.png")
    assert (read_ids(tmp_path / "grey.png") == 3).all()
    write_image(tmp_path / "colour.png")
    with pytest.raises(ValueError, match=r"colour\.png is a colour image; .* one class id per pix"):
        read_ids(tmp_path / "colour.png")


def test_pairs_are_made_by_name(tmp_path):
    for name in ("b.jpg", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    images = by_key(image_files(tmp_path), tmp_path)
    assert list(images) == ["a", "b"]
    labels = {key: tmp_path / f"{key}_gt.png" for key in ("b", "a")}
    assert [key for key, _, _ in pair(images, labels)] == ["a", "b"]


def test_what_has_no_partner_is_named(tmp_path):
    images = {key: tmp_path / f"{key}.jpg" for key in "abc"}
    labels = {"b": tmp_path / "b.png"}
    with pytest.raises(ValueError, match=r"image without label: .*/a\.jpg \(and 1 more\); .* 3 im"):
        pair(images, labels)
    with pytest.raises(ValueError, match=r"label without image: .*/b\.png; there are 0 images"):
        pair({}, labels)


def test_two_files_of_one_name_are_refused(tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "a.png"]
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png have the same name"):
        by_key(paths, tmp_path)


def test_names_end_where_the_suffix_begins(tmp_path):
    paths = [tmp_path / "x" / name for name in ("a_ids.png", "a_color.png", "b_ids.png")]
    assert list(by_key(paths, tmp_path, "_ids")) == ["x/a", "x/b"]


def test_a_folder_is_described(tmp_path):
    assert listing(tmp_path / "gone").endswith("gone does not exist")
    assert listing(tmp_path).endswith("is empty")
    for index in range(10):
        (tmp_path / f"{index}.png").touch()
    assert listing(tmp_path).endswith(
        "holds 0.png, 1.png, 2.png, 3.png, 4.png, 5.png, 6.png, 7.png and 2 more"
    )
