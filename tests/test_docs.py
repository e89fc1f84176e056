"""The examples of docs/adding.md run and do what they say."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import losses
import methods
from network.backbone import build_backbone
from network.deeplab import SegmentationModel
from options import parse
from utils.types import Prediction

PAGE = Path(__file__).parents[1] / "docs" / "adding.md"


@pytest.fixture(scope="module")
def examples():
    """What the page's code defines, block by block."""
    defined = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), defined)
    return defined


def test_every_path_on_the_page_exists():
    text = PAGE.read_text()
    root = PAGE.parents[1]
    paths = re.findall(r"`((?:tests|datasets|network)/[\w/]+(?:\.py)?)`", text)
    assert len(paths) > 3
    assert [path for path in paths if not (root / path).exists()] == []


def test_data_set(examples, tmp_path):
    for split in ("train", "val"):
        for folder in ("frames", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
        image = np.full((6, 8, 3), 90, np.uint8)
        Image.fromarray(image).save(tmp_path / "frames" / split / "a.png")
        Image.fromarray(image[..., 0] % 3).save(tmp_path / "masks" / split / "a.png")
    dataset = examples["Tracks"](tmp_path, "val")
    image, label = dataset.read(0)
    assert (tuple(image.shape), tuple(label.shape)) == ((3, 6, 8), (6, 8))
    assert dataset.class_names == ("track", "plants", "sky")
    with pytest.raises(ValueError, match=r"frames/train/a\.jpg"):
        examples["Tracks"](tmp_path / "elsewhere", "train")


def test_head(examples):
    backbone = build_backbone("mobilenet", 16)
    channels = {name: tap.channels for name, tap in backbone.taps.items()}
    model = SegmentationModel(backbone, examples["FCNHead"](channels, 5, (6, 12, 18))).eval()
    assert tuple(model(torch.randn(1, 3, 65, 97)).logits.shape) == (1, 5, 65, 97)


def test_loss(examples, monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "poly_loss", examples["entry"])
    loss = losses.build_loss("poly_loss")
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    probability = logits.softmax(1).gather(1, labels[:, None])
    expected = F.cross_entropy(logits, labels) + (1 - probability).mean()
    torch.testing.assert_close(loss(logits, labels), expected)
    assert loss(logits, torch.full_like(labels, 255)) == 0


def test_score(examples):
    logits = torch.tensor([[[3.0, 1.0]], [[0.0, 1.0]], [[2.0, 1.0]]])[..., None, None]
    prediction = Prediction(logits.softmax(2).mean(0).log(), member_logits=logits)
    score = examples["score"]
    assert score.function(prediction).item() == pytest.approx(1 / 3)
    assert "member_logits" in score.needs


def test_metric(examples):
    metric = examples["Confidence"]()
    logits = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 2, 2)
    label = torch.tensor([[[0, 1], [255, 255]]], dtype=torch.uint8)
    metric.update({"label": label, "id": ["a"]}, Prediction(logits))
    assert metric.compute()["total"]["confidence"] == pytest.approx(75)


def test_method(examples, monkeypatch, capsys):
    monkeypatch.setitem(methods.METHODS, "flip_consistency", examples["FlipConsistency"])
    flags = ["--method", "flip_consistency", "--pretrained_backbone", "none"]
    opts = parse([*flags, "--flip_weight", "0.5"])
    method = examples["FlipConsistency"](opts, 3)
    label = torch.randint(0, 3, (2, 33, 33)).to(torch.uint8)
    out = method.training_step({"image": torch.randn(2, 3, 33, 33), "label": label}, 0)
    assert out.logs["consistency"] > 0
    out.losses["network"].backward()
    assert all(p.grad is not None for p in method.optimizers()["network"].param_groups[0]["params"])
    for wrong in (["--flip_weight", "-1"], ["--method", "supervised", "--flip_weight", "1"]):
        with pytest.raises(SystemExit):
            parse([*flags, *wrong])
        assert "--flip_weight" in capsys.readouterr().err
