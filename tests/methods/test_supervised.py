"""Supervised training: the loss, the rates of the groups, the weights of the classes."""

from argparse import Namespace

import pytest
import torch
from torch.nn import functional as F

from datasets import build_dataset
from methods import METHODS
from options import parse
from utils.types import FEATURES

CLASSES = 19


def options(*argv) -> Namespace:
    return parse(["--pretrained_backbone", "none", "--crop_size", "40x56", *argv])


def method(*argv, num_classes=CLASSES):
    torch.manual_seed(0)
    return METHODS["supervised"](options(*argv), num_classes)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, CLASSES, (2, 40, 56), generator=generator).to(torch.uint8)
    label[:, :5] = 255
    return {"image": torch.randn(2, 3, 40, 56, generator=generator), "label": label}


def test_the_step_is_the_loss_of_the_logits(batch):
    trained = method().eval()
    out = trained.training_step(batch, 0)
    logits = trained.network(batch["image"]).logits
    expected = F.cross_entropy(logits, batch["label"].long(), ignore_index=255)
    torch.testing.assert_close(out.losses["network"], expected)


def test_a_weight_map_scales_the_pixels(batch):
    trained = method("--loss_normalize", "all").eval()
    half = {**batch, "weight": torch.full((2, 40, 56), 0.5)}
    whole, scaled = (trained.training_step(b, 0).losses["network"] for b in (batch, half))
    torch.testing.assert_close(scaled, whole / 2)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_backbone_learns_at_a_tenth(name):
    trained = method("--optimizer", name, "--lr", "0.02", "--backbone_lr_factor", "0.1")
    optimizer = trained.optimizers()["network"]
    backbone, head = optimizer.param_groups
    assert (backbone["lr"], head["lr"]) == pytest.approx((0.002, 0.02))
    counted = sum(len(group["params"]) for group in optimizer.param_groups)
    assert counted == len(list(trained.parameters()))
    assert type(optimizer).__name__.lower() == name


def test_two_steps_change_backbone_and_head(batch):
    trained = method("--optimizer", "sgd", "--lr", "0.1")
    optimizer = trained.optimizers()["network"]
    before = {name: p.clone() for name, p in trained.named_parameters()}
    for step in range(2):
        optimizer.zero_grad()
        trained(batch, step).losses["network"].backward()
        optimizer.step()
    moved = {name for name, p in trained.named_parameters() if not torch.equal(p, before[name])}
    assert {
        "network.backbone.low_level_features.0.0.weight",
        "network.classifier.classifier.3.weight",
    } <= moved


def test_dice_is_refused_for_more_than_two_classes():
    with pytest.raises(
        ValueError, match="--loss_type dice is for two classes; this data set has 19"
    ):
        method("--loss_type", "dice")


def test_class_weights_are_the_inverse_proportions_of_the_training_labels(tmp_path, batch):
    trained = method("--loss_type", "class_weighted_cross_entropy").eval()
    dataset = build_dataset("streets", None, "val")
    trained.prepare(dataset, tmp_path)
    counts = torch.zeros(256, dtype=torch.int64)
    for index in range(len(dataset)):
        counts += torch.bincount(dataset[index]["label"].flatten(), minlength=256)
    share = counts[:CLASSES] / counts[:CLASSES].sum()
    expected = torch.where(share > 0, 1 / ((share > 0).sum() * share), 0.0)
    torch.testing.assert_close(trained.loss.class_weights, expected, rtol=1e-5, atol=0)
    logits = trained.network(batch["image"]).logits
    torch.testing.assert_close(
        trained.training_step(batch, 0).losses["network"],
        F.cross_entropy(logits, batch["label"].long(), expected, ignore_index=255),
    )
    assert "class_weights" not in trained.state_dict()


def test_prediction_has_logits_and_pooled_features_on_request(batch):
    trained = method().eval()
    with torch.no_grad():
        plain, pooled = (trained.predict(batch["image"], n) for n in (frozenset(), {FEATURES}))
    assert plain.logits.shape == (2, CLASSES, 40, 56)
    assert plain.features is None
    assert pooled.features.shape == (2, 320)
    assert trained.deployable() is trained.network
