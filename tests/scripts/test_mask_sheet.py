import re
import sys

import numpy as np
import pytest
from PIL import Image

from datasets.camvid import CamVid
from datasets.damage import DamagedLabels
from datasets.map_folders import MANIFEST, origin
from datasets.pseudo_labels import LABELS
from datasets.response_weights import RESPONSE_WEIGHTS
from datasets.taxonomy import ROAD as ROAD_CLASSES
from datasets.taxonomy import palette_of
from engine.pictures import full_palette, overlay
from scripts.mask_sheet import DIMMED, VOID, main
from tests.datasets import layouts
from tests.engine.cam_runs import write_images
from utils.colour_maps import colour_table
from utils.files import write_json

TILE, GAP, MARGIN = 240, 5, 13
ROAD, CAR = 3, 8


def first_mask(size):
    """Void above, car below."""
    mask = layouts.filled(CAR, size)
    mask[: size[0] // 2] = 255
    return mask


@pytest.fixture(scope="module")
def folders(new_folder):
    """Images of two sizes with maps, masks and weights of other programs."""
    folder = new_folder("sheet")
    dataset = CamVid(write_images(folder / "data"), "train", labelled=False)
    for name in ("cams", "masks", "weights"):
        (folder / name).mkdir()
    for index, item in enumerate(dataset.items):
        size = dataset.native_size(index)
        maps = np.stack([np.full(size, 0.4), np.full(size, 1)]).astype(np.float32)
        maps[1, :, : size[1] // 2] = 0
        np.savez(folder / "cams" / f"{item.id}_cam.npz", classes=np.array([ROAD, CAR]), maps=maps)
        layouts.write_label(folder / "masks" / f"{item.id}.png", first_mask(size))
        layouts.write_label(folder / "weights" / f"{item.id}.png", layouts.filled(ROAD, size))
        levels = layouts.striped((0, 113, 255), size)
        Image.fromarray(levels).save(folder / "weights" / f"{item.id}_weight.png")
    return folder


@pytest.fixture
def sheet(monkeypatch, folders, tmp_path):
    """The sheet of some flags."""

    def draw(*flags, data=folders / "data"):
        argv = ["mask_sheet", tmp_path / "sheet.png", "--dataset", "camvid", "--data_root", data,
                "--tile_width", TILE, *flags]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(one) for one in argv])
        assert main() == 0
        return np.asarray(Image.open(tmp_path / "sheet.png"))

    return draw


def first_row(picture, dataset, columns):
    """The tiles of the first row, shrunk to the images' own pixels."""
    height, width = dataset.native_size(0)
    wanted = dataset.read(0)[0].permute(1, 2, 0).numpy()
    factor = TILE // width
    top = next(
        top
        for top in range(len(picture) - height * factor)
        if (picture[top : top + height * factor : factor, MARGIN : MARGIN + TILE : factor]
            == wanted).all()
    )  # fmt: skip
    lefts = [MARGIN + column * (TILE + GAP) for column in range(columns)]
    rows = slice(top, top + height * factor, factor)
    return [picture[rows, left : left + TILE : factor] for left in lefts]


def everything(folders):
    return ("--cam_dir", folders / "cams", "--pseudo_dir", folders / "masks", "--weight_dir",
            folders / "weights", "--labels")  # fmt: skip


def test_each_stage_stands_in_its_column(sheet, folders):
    picture = sheet(*everything(folders))
    dataset = CamVid(folders / "data", "train")
    assert picture.shape[1] == 6 * TILE + 5 * GAP + 2 * MARGIN
    image, activation, mask, cyclic, doubt, label = first_row(picture, dataset, 6)
    height, width = image.shape[:2]
    colours = colour_table()
    assert (activation[:, : width // 2] == colours[102]).all(), "0.4"
    assert (activation[:, width // 2 :] == colours[255]).all(), "the greater of two maps"
    values = np.array([255, 142, 0])[np.arange(width) % 3]
    assert (doubt == colours[values]).all(), "1 - level / 255"
    palette = full_palette(dataset.palette)
    palette[255] = VOID
    dim = (DIMMED * image).astype(np.uint8)
    size = (height, width)
    for shown, ids in (
        (mask, first_mask(size)),
        (cyclic, layouts.filled(ROAD, size)),
        (label, dataset.read(0)[1].numpy()),
    ):
        np.testing.assert_array_equal(shown, overlay(dim, ids, palette))


def test_damaged_labels_stand_beside_the_files(sheet, folders):
    flags = ("--labels", "--label_damage", "1", "--random_seed", "4")
    image, damaged, label = first_row(sheet(*flags), CamVid(folders / "data", "train"), 3)
    dataset = CamVid(folders / "data", "train", damage=DamagedLabels(1.0, seed=4))
    palette = full_palette(dataset.palette)
    palette[255] = VOID
    dim = (DIMMED * image).astype(np.uint8)
    for shown, ids in ((damaged, dataset[0]["label"]), (label, dataset.read(0)[1])):
        np.testing.assert_array_equal(shown, overlay(dim, ids.numpy(), palette))
    assert not np.array_equal(damaged, label)


def test_the_legend_has_the_classes_of_the_masks_and_void(sheet, folders):
    colours = CamVid(folders / "data", "train").palette.tolist()

    def explained(picture):
        """Train ids whose colour fills a box of the legend."""
        return {i for i, rgb in enumerate([*colours, VOID]) if (picture == rgb).all(-1).sum() > 90}

    assert explained(sheet("--pseudo_dir", folders / "masks")) == {CAR, 11}
    assert explained(sheet("--weight_dir", folders / "weights")) == {ROAD}
    assert explained(sheet("--cam_dir", folders / "cams")) == set()


def test_maps_of_chosen_classes_stand_apart(sheet, folders):
    picture = sheet("--cam_dir", folders / "cams", "--cam_classes", "car", "sky", "road")
    dataset = CamVid(folders / "data", "train")
    _, car, sky, road = first_row(picture, dataset, 4)
    colours = colour_table()
    half = car.shape[1] // 2
    assert (car[:, :half] == colours[0]).all()
    assert (car[:, half:] == colours[255]).all()
    assert (sky == colours[0]).all(), "not tagged with it"
    assert (road == colours[102]).all()


def test_an_image_of_each_pattern_is_shown(sheet, folders):
    names = [item.id for item in CamVid(folders / "data", "train").items]
    alone = sheet("--weight_dir", folders / "weights")
    both = sheet("--weight_dir", folders / "weights", "--images", names[0], f"{names[4][:3]}*")
    assert both.shape[1] == alone.shape[1]
    assert both.shape[0] > alone.shape[0] + TILE // 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "c*"], r"--images c\* matches no image of split train of camvid, the first"),
        (["--cam_classes", "car"], "--cam_classes chooses among activation maps: add --cam_dir"),
        (["--cam_dir", "cams", "--cam_classes", "cars"], r"no class is cars \(did you mean 'car'"),
        (["--cam_dir", "masks"], "class activation maps are needed: masks"),
        (["--pseudo_dir", "nothing"], "nothing"),
        (["--train_split", "trian"], "trian"),
        (["--cam_dirs", "cams"], "--cam_dirs"),
    ],
)
def test_what_is_missing_is_named(sheet, folders, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(folders)
    with pytest.raises(SystemExit, match="2"):
        sheet(*flags)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "change", [{"split": "val"}, {"classes": [{"name": "a", "colour": [1, 2, 3]}]}]
)
def test_maps_of_other_images_or_classes_are_refused(sheet, folders, tmp_path, capsys, change):
    dataset = CamVid(folders / "data", "train", labelled=False)
    classes = [{"name": one.name, "colour": one.colour} for one in dataset.classes]
    manifest = {"format": 1, "content": "response weights", "classes": classes,
                **origin(RESPONSE_WEIGHTS, dataset)}  # fmt: skip
    write_json(tmp_path / MANIFEST, {**manifest, **change})
    with pytest.raises(SystemExit, match="2"):
        sheet("--weight_dir", tmp_path)
    said = capsys.readouterr().err
    assert f"the response weights in {tmp_path} are of" in said
    assert "--make_response_weights" in said


def test_pseudo_labels_of_other_classes_are_shown_alone(sheet, folders, tmp_path, capsys):
    dataset = CamVid(folders / "data", "train", labelled=False)
    (tmp_path / "labels").mkdir()
    for path in (folders / "masks").iterdir():
        (tmp_path / "labels" / path.name).write_bytes(path.read_bytes())
    palette = full_palette(palette_of(ROAD_CLASSES))
    classes = [{"name": one.name, "colour": one.colour} for one in ROAD_CLASSES]
    manifest = {"format": 1, "content": "pseudo labels", "classes": classes, "threshold": 0.0,
                "scores": False, "command": "", **origin(LABELS, dataset)}  # fmt: skip
    write_json(tmp_path / "labels" / MANIFEST, manifest)
    _, mask = first_row(sheet("--pseudo_dir", tmp_path / "labels"), dataset, 2)
    image = dataset.read(0)[0].permute(1, 2, 0).numpy()
    palette[255] = VOID
    dimmed = (DIMMED * image).astype(np.uint8)
    assert (mask == overlay(dimmed, first_mask(image.shape[:2]), palette)).mean() > 0.95
    with pytest.raises(SystemExit, match="2"):
        sheet("--pseudo_dir", tmp_path / "labels", "--labels")
    assert "are of other classes than the data set" in capsys.readouterr().err
