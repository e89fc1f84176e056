import numpy as np
import pytest
import torch
from PIL import Image

from datasets.transforms import normalize
from engine.evaluate import run_pass
from engine.ood_pictures import (
    BORDER,
    MOST_IMAGES,
    RED,
    OODPictures,
    ood_writers,
    part_around,
    taken_for_unknown,
    tinted,
)
from engine.score_maps import ScoreMapWriter
from utils.types import ForwardVariant, Prediction, Score

SIZE = (30, 40)
GREY = np.full((*SIZE, 3), 100, np.uint8)
CLIPPED = ForwardVariant("clipped", lambda predict, network, images: predict(images))


def first_logit(prediction):
    return prediction.logits[:, 0]


def second_logit(prediction):
    return prediction.logits[:, 1]


ABET = Score("abet", first_logit)
MSP = Score("msp", second_logit)
REACT = Score("react+abet", second_logit, variant=CLIPPED)
THRESHOLDS = {"abet": 0.5, "msp": 0.0, "react+abet": 0.0}


def batch_of(names, unknown_pixels=(100,)):
    """Grey images whose first pixels are unknown, as many as given for each in turn."""
    raw = torch.full((len(names), 3, *SIZE), 100, dtype=torch.uint8)
    ood = torch.zeros(len(names), SIZE[0] * SIZE[1], dtype=torch.uint8)
    for index in range(len(names)):
        ood[index, : unknown_pixels[index % len(unknown_pixels)]] = 1
    ood = ood.view(-1, *SIZE)
    ood[:, -3:] = 255
    return {"image": normalize(raw), "ood": ood, "id": list(names), "dataset": ["anomalies"]}


def prediction_of(batch):
    generator = torch.Generator().manual_seed(0)
    return Prediction(torch.randn(len(batch["id"]), 3, *SIZE, generator=generator))


def write(writers, *batches):
    for batch in batches:
        for writer in writers:
            writer.update(batch, prediction_of(batch))
    for writer in writers:
        writer.all_reduce()
        assert writer.compute() == {}


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def rgb(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_file_for_each_image_and_variant_and_one_matrix(tmp_path):
    writers = ood_writers(tmp_path, [ABET, REACT, MSP], THRESHOLDS)
    assert [[score.name for score in writer.scores] for writer in writers] == [
        ["abet", "msp"],
        ["react+abet"],
    ]
    write(writers, batch_of(["city/a", "city/b"]), batch_of(["c"]))
    assert files_in(tmp_path) == [
        *("c_ood.png", "c_ood_clipped.png"),
        *(f"city/{image}_ood{end}.png" for image in "ab" for end in ("", "_clipped")),
        "ood_matrix.png",
    ]
    two, one = (rgb(tmp_path / f"c_ood{end}.png") for end in ("", "_clipped"))
    assert two.shape[1] > one.shape[1], "a tile for each score"
    matrix = rgb(tmp_path / "ood_matrix.png")
    assert matrix.shape[1] > 4 * 240 > two.shape[1] - 320, "image and three scores"


def test_images_with_few_unknown_pixels_are_left_out(tmp_path):
    batch = batch_of(["few", "enough", "none"], (49, 50, 0))
    write(ood_writers(tmp_path / "a", [ABET], THRESHOLDS), batch)
    assert files_in(tmp_path / "a") == ["enough_ood.png", "ood_matrix.png"]
    write(ood_writers(tmp_path / "b", [ABET], THRESHOLDS, smallest=0), batch)
    assert files_in(tmp_path / "b") == ["enough_ood.png", "few_ood.png", "ood_matrix.png"]
    write(ood_writers(tmp_path / "c", [ABET], THRESHOLDS, smallest=51), batch)
    assert not (tmp_path / "c").exists()


def test_it_is_a_consumer_of_the_pass(tmp_path):
    network = torch.nn.Conv2d(3, 2, 1)
    scores = [ABET, Score("scaled", lambda p: 2 * p.logits[:, 0], variant=CLIPPED)]
    writers = ood_writers(tmp_path, scores, {"abet": 0.0, "scaled": 0.0})
    results = run_pass(
        lambda images, needs=frozenset(): Prediction(network(images).detach()),
        network,
        [batch_of(["a", "b"])],
        writers,
        prepare=lambda batch: batch,
    )
    assert results == {}
    assert len(files_in(tmp_path)) == 2 * 2 + 1


def test_unknown_pixels_are_tinted_and_void_ones_striped():
    image = np.array([100, 240, 30], np.uint8) * np.ones((*SIZE, 1), np.uint8)
    ood = np.zeros(SIZE, np.uint8)
    ood[:5], ood[-15:] = 1, 255
    shown = tinted(image, ood)
    assert (shown[:5] == (151, 189, 0)).all(), "0.2 of the range, clipped"
    assert (shown[5:15] == image[0, 0]).all()
    void = shown[-15:].reshape(-1, 3)
    black = (void == 0).all(1)
    assert 0.2 < black.mean() < 0.5
    assert (void[~black] == image[0, 0]).all()


def test_red_follows_how_far_the_score_is_above_its_threshold():
    values = np.full(SIZE, -7.0, np.float32)
    values[0], values[1], values[2] = 3.0, 2.0, 1.0  # 2, 1 and 0 above
    ood = np.zeros(SIZE, np.uint8)
    shown = taken_for_unknown(GREY, values, 1.0, ood).astype(int)
    behind = shown[3, 0]
    assert len(set(behind.tolist())) == 1, "grey"
    assert 0 < behind[0] < 100, "dimmed"
    assert (shown[2:] == behind).all()
    assert (shown[0] == RED).all()
    np.testing.assert_allclose(shown[1], np.tile((behind + RED) / 2, (SIZE[1], 1)), atol=1)


def test_the_scale_runs_from_least_to_greatest_of_what_is_not_void():
    values = np.linspace(5, 6, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    ood = np.zeros(SIZE, np.uint8)
    ood[-1] = 255
    values[-1] = 1e9
    shown = taken_for_unknown(GREY, values, 1.0, ood).astype(int)
    assert shown[0, 0, 0] == shown[0, 0, 1], "the least has no red, although above the threshold"
    assert (shown[-2, -1] == RED).all()
    assert (shown[-1] == 0).all()


@pytest.mark.filterwarnings("error")
def test_maps_without_a_scale():
    ood = np.zeros(SIZE, np.uint8)
    below = taken_for_unknown(GREY, np.zeros(SIZE, np.float32), 1.0, ood)
    assert (below[..., 0] == below[..., 1]).all()
    above = taken_for_unknown(GREY, np.full(SIZE, 2, np.float32), 1.0, ood)
    assert (above == RED).all()
    broken = np.full(SIZE, 0, np.float32)
    broken[0], broken[1] = np.nan, np.inf
    shown = taken_for_unknown(GREY, broken, 1.0, ood)
    assert (shown[:2] == RED).all()
    assert (shown[2:, :, 0] == shown[2:, :, 1]).all()
    void = taken_for_unknown(GREY, broken, 1.0, np.full(SIZE, 255, np.uint8))
    assert (void == 0).all()


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        # 20 pixels and twice the border are 100 rows; 16:9 of that are 178 columns
        ((500, 520), (1000, 1020), ((460, 560), (921, 1099))),
        ((500, 520), (1000, 1420), ((369, 650), (960, 1460))),  # wide: the rows grow
        ((0, 20), (0, 20), ((0, 100), (0, 178))),  # moved into the corner
        ((1004, 1024), (2028, 2048), ((924, 1024), (1870, 2048))),
        ((0, 1024), (900, 950), ((0, 1024), (0, 1963))),  # cut: the image is too low
    ],
)
def test_the_part_around_objects(rows, columns, expected):
    unknown = np.zeros((1024, 2048), bool)
    unknown[slice(*rows), slice(*columns)] = True
    part = part_around(unknown)
    assert unknown[part].sum() == unknown.sum(), "nothing is cut off"
    found = tuple((axis.start, axis.stop) for axis in part)
    np.testing.assert_allclose(found, expected, atol=1)
    height, width = (axis.stop - axis.start for axis in part)
    if height < 1024:
        assert width / height == pytest.approx(16 / 9, rel=0.01)


def test_the_border_and_the_edges_of_any_image_are_kept():
    generator = np.random.default_rng(0)
    for _ in range(200):
        shape = generator.integers(2, 300, 2)
        unknown = generator.random(shape) < 3 / shape.prod()
        unknown[tuple(generator.integers(0, shape))] = True
        part = part_around(unknown)
        for axis, where, whole in zip(part, np.nonzero(unknown), shape, strict=True):
            assert 0 <= axis.start < axis.stop <= whole
            assert axis.start <= max(where.min() - BORDER, 0)
            assert axis.stop >= min(where.max() + 1 + BORDER, whole)


def test_cropped_pictures_show_less(tmp_path):
    image = torch.zeros(1, 3, 400, 600, dtype=torch.uint8)
    image[:, 1, :, 300:] = 255  # green, far away from the object
    ood = torch.zeros(1, 400, 600, dtype=torch.uint8)
    ood[:, 100:120, 100:120] = 1
    batch = {"image": normalize(image), "ood": ood, "id": ["a"]}
    logits = torch.zeros(1, 2, 400, 600)
    for crop in (False, True):
        (writer,) = ood_writers(tmp_path / str(crop), [ABET], THRESHOLDS, crop=crop)
        writer.update(batch, Prediction(logits))
        writer.all_reduce()
        shown = rgb(tmp_path / str(crop) / "a_ood.png")
        green = (shown[..., 1] > 200) & (shown[..., 0] < 50)
        assert green.any() != crop


def test_the_matrix_has_images_spread_over_the_pass_in_bounded_memory(tmp_path):
    (writer,) = ood_writers(tmp_path, [ABET], THRESHOLDS)
    names = [f"image{index:02}" for index in range(21)]
    kept = []
    for start in range(0, 21, 4):
        writer.update(batch := batch_of(names[start : start + 4]), prediction_of(batch))
        kept.append(len(writer.matrix.rows))
    writer.all_reduce()
    assert max(kept) <= MOST_IMAGES
    assert sorted(writer.matrix.rows) == [0, 4, 8, 12, 16, 20]
    assert [name for name, _ in writer.matrix.rows.values() if name == "image20"] == ["image20"]
    for _, tiles in writer.matrix.rows.values():
        assert all(tile.picture.shape[1] <= 240 for tile in tiles.values())
    writer.compute()
    rows = rgb(tmp_path / "ood_matrix.png").shape[0] / 180  # of pictures 4:3
    assert 6 < rows < 8


def test_the_matrix_shows_images_of_all_processes_and_the_main_one_writes(tmp_path, monkeypatch):
    parts = []
    for index, prefix in enumerate("ba"):
        (writer,) = ood_writers(tmp_path / prefix, [ABET], THRESHOLDS)
        names = [f"{prefix}{number}" for number in range(6)]
        writer.update(batch := batch_of(names), prediction_of(batch))
        writer.all_reduce()
        parts.append(writer.matrix.rows)
        monkeypatch.setattr("engine.ood_pictures.all_gather_object", lambda rows: parts)
        monkeypatch.setattr("engine.ood_pictures.is_main", lambda main=index == 1: main)
        drawn = []
        monkeypatch.setattr(
            "engine.ood_pictures.contact_sheet",
            lambda rows, drawn=drawn, **_: drawn.extend(row.title for row in rows) or GREY,
        )
        writer.compute()
        assert (tmp_path / prefix / "ood_matrix.png").is_file() == (index == 1)
    assert len(drawn) == MOST_IMAGES
    assert (drawn[0], drawn[-1]) == ("a0", "b5")
    assert drawn == sorted(drawn)


def test_large_images_are_kept_small(tmp_path):
    raw = torch.zeros(1, 3, 300, 900, dtype=torch.uint8)
    ood = torch.ones(1, 300, 900, dtype=torch.uint8)
    writer = OODPictures(tmp_path, [ABET], THRESHOLDS)
    logits = torch.zeros(1, 2, 300, 900)
    writer.update({"image": normalize(raw), "ood": ood, "id": ["a"]}, Prediction(logits))
    writer.all_reduce()
    ((_, tiles),) = writer.matrix.rows.values()
    assert {tile.picture.shape for tile in tiles.values()} == {(80, 240, 3)}
    writer.compute()
    assert (tmp_path / "ood_matrix.png").is_file()


def test_twelve_scores_stand_in_rows(tmp_path):
    scores = [Score(f"score_{index}", first_logit) for index in range(12)]
    thresholds = {score.name: 0.0 for score in scores}
    write(ood_writers(tmp_path, scores, thresholds), batch_of(["a"]))
    height, width, _ = rgb(tmp_path / "a_ood.png").shape
    assert 4 * 320 < width < 4 * 340
    assert height > 4 * 240, "four rows of 4:3"


def test_what_cannot_be_pictured(tmp_path):
    batch = batch_of(["a"])
    del batch["ood"]
    (writer,) = ood_writers(tmp_path, [ABET], THRESHOLDS)
    with pytest.raises(ValueError, match="anomalies says of no pixel"):
        writer.update(batch, prediction_of(batch))
    with pytest.raises(AssertionError, match="every score has a threshold"):
        OODPictures(tmp_path, [ABET], {"msp": 0.0})
    with pytest.raises(AssertionError, match="one writer for each variant"):
        OODPictures(tmp_path, [ABET, REACT], THRESHOLDS)


def test_maps_and_pictures_of_unknown_objects_do_not_share_files(tmp_path):
    batch = batch_of(["a"])
    palette = torch.zeros(3, 3, dtype=torch.uint8)
    write(
        [
            ScoreMapWriter(tmp_path, [REACT], palette),
            *ood_writers(tmp_path, [ABET, REACT], THRESHOLDS),
        ],
        batch,
    )
    assert len(files_in(tmp_path)) == 3 + 2 + 1
