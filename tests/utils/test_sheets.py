import numpy as np
import pytest
from PIL import ImageDraw

from utils.colour_maps import Scale, colour_table
from utils.sheets import Row, Tile, contact_sheet

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NATS = Scale(0, 1.5, "nats", "the maximum is log 19 = 2.94", clipped=True)
SHARES = Scale(0, 1, "probability")


def picture(colour, height=30, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def box(sheet, colour):
    """Number of pixels of a colour, and the first column and row that has one."""
    ys, xs = np.where((sheet == colour).all(-1))
    return len(ys), xs.min(), ys.min()


def bars(sheet):
    """First column and width of each stretch of the table's colours, such as a colour bar."""
    codes = sheet.astype(np.int64) @ (65536, 256, 1)
    inside = np.isin(codes, colour_table().astype(np.int64) @ (65536, 256, 1)).astype(np.int8)
    runs = set()
    for row in np.unique(inside, axis=0):
        edges = np.flatnonzero(np.diff(np.pad(row, 1))).tolist()
        runs |= {(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 60}
    return sorted(runs)


@pytest.fixture
def texts(monkeypatch):
    """The texts that are drawn, with their places in the strip and their right ends."""
    drawn = []
    draw = ImageDraw.ImageDraw.text

    def record(self, place, text, fill, font):
        right = place[0] + font.getlength(text)
        assert right <= self.im.size[0] + 1, f"{text} is cut off"
        drawn.append(text)
        draw(self, place, text, fill, font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return drawn


def test_every_picture_has_its_place():
    rows = [
        Row([Tile("image", picture(RED)), Tile("target", picture(GREEN))]),
        Row([Tile("image", picture(BLUE, 60)), Tile("target", picture(RED, 60))]),
    ]
    sheet = contact_sheet(rows, tile_width=80)
    assert box(sheet, GREEN)[0] == 80 * 60
    assert box(sheet, BLUE)[0] == 80 * 120
    assert box(sheet, RED)[0] == 80 * 60 + 80 * 120
    assert box(sheet, GREEN)[1] > box(sheet, BLUE)[1] == box(sheet, RED)[1]
    assert box(sheet, BLUE)[2] > box(sheet, GREEN)[2] == box(sheet, RED)[2]


def test_rows_may_differ_in_length():
    rows = [
        Row([Tile("image", picture(RED))]),
        Row([Tile("entropy", picture(GREEN)), Tile("instance", picture(BLUE))]),
    ]
    sheet = contact_sheet(rows, tile_width=80)
    assert [box(sheet, colour)[0] for colour in (RED, GREEN, BLUE)] == [80 * 60] * 3


def test_labels_stay_crisp_when_enlarged_and_images_are_averaged_when_shrunk():
    label = np.zeros((2, 2, 3), np.uint8)
    label[0, 0], label[1, 1] = RED, GREEN
    enlarged = contact_sheet([Row([Tile("", label)])], tile_width=64)
    colours = {tuple(colour) for colour in np.unique(enlarged.reshape(-1, 3), axis=0).tolist()}
    assert colours == {RED, GREEN, (0, 0, 0), (255, 255, 255)}
    stripes = picture((0, 0, 0), 256, 256)
    stripes[:, ::2] = (200, 100, 60)
    assert box(contact_sheet([Row([Tile("", stripes)])], tile_width=64), (100, 50, 30))[0] == 64**2


def test_captions_stand_where_they_change(texts):
    tiles = [Tile("image", picture(RED)), Tile("target", picture(GREEN))]
    contact_sheet([Row(tiles, "night"), Row(tiles, "Zürich"), Row([Tile("entropy", picture(RED))])])
    assert texts == ["image", "target", "night", "Zürich", "entropy"]


def test_texts_grow_with_the_tiles():
    def caption_height(tile_width):
        sheet = contact_sheet([Row([Tile("image", picture(RED))])], tile_width=tile_width)
        dark = (sheet < 128).all(-1).any(axis=1)
        return int(dark.sum())

    assert caption_height(320) < caption_height(640) < caption_height(1280)
    assert caption_height(320) > 8


def test_the_legend_shows_every_colour_and_makes_room(texts):
    rows = [Row([Tile("image", picture((9, 9, 9)))])]
    legend = {f"class {index}": (200, index, 7) for index in range(12)}
    plain, explained = contact_sheet(rows), contact_sheet(rows, legend=legend)
    assert explained.shape[0] > plain.shape[0]
    assert explained.shape[1] == plain.shape[1]
    assert texts == ["image", "image", *legend]
    for colour in legend.values():
        assert box(explained, colour)[0] > 100


def test_one_bar_for_the_adjacent_tiles_of_a_scale(texts):
    plain = picture((9, 200, 9))
    tiles = [Tile("image", plain), Tile("entropy", plain, NATS), Tile("instance", plain, NATS)]
    sheet = contact_sheet([Row([*tiles, Tile("msp", plain, SHARES)])], tile_width=200)
    (left, width), (second, its_width) = bars(sheet)
    gap = (sheet.shape[1] - 2 * 13 - 4 * 200) // 3
    assert left == 13 + 200 + gap
    assert 380 < width < 2 * 200 + gap
    assert (second, its_width) == (13 + 3 * (200 + gap), 200)
    bar = sheet[np.argmax((sheet[:, left] == colour_table()[0]).all(-1))]
    np.testing.assert_array_equal(bar[left + width - 1], colour_table()[255])
    middle = bar[left + width // 2].astype(int)
    assert abs(middle - colour_table()[128]).max() <= 4
    shown = ["≥ 1.5", "nats; the maximum is log 19 = 2.94", "1", "probability"]
    assert [text for text in texts if text in shown] == shown


def test_rows_of_one_scale_share_a_bar(texts):
    first, other = ([Tile("energy", picture(RED), Scale(0, high, "", "h"))] for high in (3, 7))
    contact_sheet([Row(first), Row(first), Row(other)], tile_width=200)
    assert texts.count("energy") == 1
    assert [text for text in texts if text in {"3", "7"}] == ["3", "7"]


def test_a_long_note_is_broken_and_never_cut_off(texts):
    scale = Scale(0, 1, "variance of probabilities", "below 1 / 19 for any number of members")
    text = f"{scale.unit}; {scale.note}"
    contact_sheet([Row([Tile("variance", picture(RED), scale)])], tile_width=120)
    lines = texts[texts.index("1") + 1 :]
    assert len(lines) > 2
    assert " ".join(lines) == text
