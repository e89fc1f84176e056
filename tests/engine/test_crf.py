"""A dense CRF on predictions equals the CRF on their probabilities, image by image."""

import json

import pytest
import torch

from datasets.taxonomy import CAMVID
from datasets.transforms import normalize
from engine.crf import RefinedByCrf
from main import main
from network import build_model
from tests.datasets import layouts
from uncertainty.dense_crf import RESPONSE_CRF, DenseCRF, unary_of
from utils.types import Prediction


def test_an_ensemble_is_tested_by_a_crf_without_its_members(tmp_path):
    root = layouts.camvid(tmp_path / "camvid")
    argv = ["--model", "deep_ensemble", "--test_only", "--dataset", "camvid", "--num_workers", "0"]
    for seed in (1, 2):
        torch.manual_seed(seed)
        path = tmp_path / f"best_deeplabv3plus_mobilenet_camvid_os16_seed{seed}.pth"
        network = build_model("deeplabv3plus_mobilenet", 11)
        content = {"model_state": network.state_dict(), "classes": [one.name for one in CAMVID]}
        content["colours"] = [list(one.colour) for one in CAMVID]
        torch.save(content, path)
        argv += ["--weight", str(path)]
    argv += ["--data_root", str(root), "--eval_crf", "--output_dir", str(tmp_path)]
    assert main([*argv, "--run_name", "refined"]) == 0
    result = json.loads((tmp_path / "results/refined.json").read_text())["results"]
    assert "members" not in result
    assert result["total"]["pixels"] > 0


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 12, 16), generator=generator, dtype=torch.uint8)


@pytest.fixture
def predicted():
    logits = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    members = torch.stack([logits, logits])
    return Prediction(logits, member_logits=members, features=torch.ones(2, 5))


def test_every_image_has_the_marginals_of_its_own_crf(pictures, predicted):
    refined = RefinedByCrf(lambda images, needs: predicted, RESPONSE_CRF)(normalize(pictures))
    for index, picture in enumerate(pictures):
        probabilities = predicted.logits[index].softmax(0)
        expected = DenseCRF(picture, RESPONSE_CRF)(unary_of(probabilities[None]))[0]
        torch.testing.assert_close(refined.logits[index].softmax(0), expected)
    assert not torch.allclose(refined.logits.softmax(1), predicted.logits.softmax(1), atol=1e-3)


def test_only_the_distribution_and_the_features_are_left(pictures, predicted):
    refined = RefinedByCrf(lambda images, needs: predicted, RESPONSE_CRF)(normalize(pictures))
    assert refined.member_logits is None
    assert refined.features is predicted.features
    assert refined.logits.isfinite().all()


def test_without_iterations_nothing_changes_but_rounding(pictures, predicted):
    settings = RESPONSE_CRF._replace(iterations=0)
    refined = RefinedByCrf(lambda images, needs: predicted, settings)(normalize(pictures))
    torch.testing.assert_close(refined.logits.softmax(1), predicted.logits.softmax(1))
