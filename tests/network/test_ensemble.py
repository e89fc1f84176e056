"""An ensemble answers with the mean softmax of its members, as any model does."""

import pytest
import torch

from losses.cross_entropy import cross_entropy
from metrics.segmentation import SegmentationMetrics
from network import DeepEnsemble, build_model, log_mean_softmax
from utils.types import Prediction

CLASSES = 5


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(0)
    return [build_model("deeplabv3plus_mobilenet", CLASSES).eval() for _ in range(3)]


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_one_member_is_that_model(members, images):
    alone = members[0](images).logits
    together = DeepEnsemble(members[:1])(images).logits
    torch.testing.assert_close(together.softmax(1), alone.softmax(1), rtol=0, atol=1e-6)
    assert torch.equal(together.argmax(1), alone.argmax(1))


@torch.no_grad()
def test_three_members_give_their_mean_softmax(members, images):
    mean = torch.stack([member(images).logits.softmax(1) for member in members]).mean(0)
    logits = DeepEnsemble(members)(images).logits
    torch.testing.assert_close(logits.softmax(1), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.logsumexp(1), torch.zeros(2, 40, 56), rtol=0, atol=1e-5)


@torch.no_grad()
def test_losses_and_metrics_take_it_like_any_model(members, images):
    labels = torch.randint(0, CLASSES, (2, 40, 56)).to(torch.uint8)
    logits = DeepEnsemble(members)(images).logits
    mean = torch.stack([member(images).logits.softmax(1) for member in members]).mean(0)
    expected = -mean.gather(1, labels.long()[:, None]).log().mean()
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    metric = SegmentationMetrics("abcde")
    batch = {
        "label": labels,
        "id": ["x", "y"],
        **{name: ["", ""] for name in ("dataset", "scene", "condition")},
    }
    metric.update(batch, Prediction(logits))
    right = (mean.argmax(1) == labels).float().mean()
    assert metric.compute()["total"]["overall_accuracy"] == pytest.approx(100 * right.item())


def test_members_move_and_switch_modes_with_the_ensemble(members):
    ensemble = DeepEnsemble(members)
    names = {name.split(".")[1] for name in ensemble.state_dict()}
    assert names == {"0", "1", "2"}
    ensemble.train()
    assert all(member.training for member in members)
    ensemble.eval()
    assert not any(module.training for member in members for module in member.modules())
    ensemble.double()
    assert members[2].backbone.high_level_features[0].conv[0][0].weight.dtype == torch.float64
    ensemble.float()


def test_confident_members_do_not_overflow():
    sure = torch.tensor([[[[1e4]], [[0.0]]], [[[0.0]], [[1e4]]]])[:, None]
    torch.testing.assert_close(log_mean_softmax(sure).softmax(1), torch.full((1, 2, 1, 1), 0.5))


@torch.no_grad()
def test_features_are_joined_on_request(members, images):
    own = [member(images, pooled_features=True).features for member in members]
    joined = DeepEnsemble(members)(images, pooled_features=True).features
    torch.testing.assert_close(joined, torch.cat(own, 1))
    assert DeepEnsemble(members)(images).features is None
