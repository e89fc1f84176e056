import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.transforms import normalize
from engine.consumers import PredictionWriter, SaveResults
from engine.score_maps import score_writers
from scripts.contact_sheet import main
from uncertainty import SCORES
from utils.colour_maps import colour_table
from utils.types import Prediction

PALETTE = torch.tensor([[128, 64, 128], [0, 0, 142], [70, 130, 180]], dtype=torch.uint8)


@pytest.fixture
def folders(tmp_path):
    """What --save_val_results and --predict write, of two images."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": normalize(torch.full((2, 3, 30, 40), 90, dtype=torch.uint8)),
        "label": torch.zeros(2, 30, 40, dtype=torch.uint8),
        "id": ["a_day", "b_night"],
    }
    prediction = Prediction(torch.randn(2, 3, 30, 40, generator=generator))
    scores = [SCORES["entropy"], SCORES["instance"]]
    writers = [
        SaveResults(tmp_path / "results", PALETTE),
        *score_writers(tmp_path / "results", scores, PALETTE),
        PredictionWriter(tmp_path / "predictions", PALETTE),
        *score_writers(tmp_path / "predictions", scores, PALETTE),
    ]
    for writer in writers:
        writer.update(batch, prediction)
        writer.all_reduce()
    return tmp_path


def sheet(monkeypatch, folder, *flags):
    path = folder.parent / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["contact_sheet", str(folder), str(path), *flags])
    assert main() == 0
    return np.asarray(Image.open(path))


def has_bar(picture):
    codes, table = (rgb.astype(np.int64) @ (65536, 256, 1) for rgb in (picture, colour_table()))
    return any(len(np.intersect1d(table, row)) > 200 for row in codes)


def test_pictures_of_a_test_stand_side_by_side(monkeypatch, folders):
    plain = sheet(monkeypatch, folders / "results")
    assert plain.shape[1] == 4 * 320 + 3 * 6 + 2 * 15
    assert (plain == 90).all(-1).sum() == 320 * 240
    assert not has_bar(plain)


def test_maps_of_scores_bring_their_colour_bar(monkeypatch, folders):
    columns = ("--columns", "image", "target", "prediction", "entropy", "instance")
    images = ("--images", "a_*", "*_night")
    found = sheet(monkeypatch, folders / "results", *columns, *images)
    assert found.shape[1] == 5 * 320 + 4 * 6 + 2 * 15
    assert (found == 90).all(-1).sum() == 2 * 320 * 240
    assert has_bar(found)
    explained = sheet(monkeypatch, folders / "results", *columns, *images, "--dataset", "camvid")
    assert explained.shape[0] > found.shape[0]
    assert (explained == (0, 128, 192)).all(-1).sum() > 100, "the colour of bicyclists"


def test_predictions_without_targets(monkeypatch, folders):
    columns = ("--columns", "overlay", "entropy", "instance")
    assert has_bar(sheet(monkeypatch, folders / "predictions", *columns, "--tile_width", "200"))


@pytest.mark.parametrize(
    ("folder", "flags", "message"),
    [
        ("predictions", [], r"has no \*_image\.png; --columns can be overlay, color, entropy, ins"),
        ("results", ["--columns", "image", "msp"], r"has no a_day_msp\.png; --columns can be"),
        ("results", ["--images", "c*"], r"has no c\*_image\.png"),
        ("nothing", [], "main.py writes pictures with --save_val_results and --predict"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, capsys, folders, folder, flags, message):
    with pytest.raises(SystemExit, match="2"):
        sheet(monkeypatch, folders / folder, *flags)
    assert re.search(message, capsys.readouterr().err)
