import pytest
import torch

from losses import LOSSES, LossSettings, build_loss
from losses.cross_entropy import cross_entropy
from losses.dice import hybrid_loss
from losses.focal import focal_loss


def test_names_of_the_published_flag_and_their_divisors():
    assert {name: entry.normalize for name, entry in LOSSES.items()} == {
        "cross_entropy": "valid",
        "class_weighted_cross_entropy": "valid",
        "focal_loss": "all",
        "uncertainty_cross_entropy": "all",
        "uce": "all",
        "image_weighted_cross_entropy": None,
        "relaxed_boundary": None,
        "dice": None,
        "hybrid": "valid",
    }
    assert [name for name, entry in LOSSES.items() if entry.binary_only] == ["dice", "hybrid"]
    assert all(entry.description for entry in LOSSES.values())


@pytest.mark.parametrize("normalize", [None, "valid", "all"])
def test_settings_reach_the_function(five_classes, two_classes, normalize):
    logits, labels, weight = five_classes
    class_weights = torch.tensor([0.1, 2.0, 1.0, 0.5, 7.0])
    chosen = {} if normalize is None else {"normalize": normalize}

    def build(name):
        settings = LossSettings(
            normalize=normalize, focal_gamma=2.0, focal_alpha=0.5, class_weights=class_weights
        )
        return build_loss(name, settings)

    found = build("focal_loss")(logits, labels, weight)
    assert found == focal_loss(logits, labels, weight=weight, gamma=2.0, alpha=0.5, **chosen)
    found = build("class_weighted_cross_entropy")(logits, labels, weight)
    assert found == cross_entropy(
        logits, labels, weight=weight, class_weights=class_weights, **chosen
    )
    assert build("cross_entropy")(logits, labels) == cross_entropy(logits, labels, **chosen)
    found = build("hybrid")(*two_classes)
    assert found == hybrid_loss(*two_classes[:2], weight=two_classes[2], **chosen)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no loss is called 'tversky'; there are cross_entropy"):
        build_loss("tversky")
    with pytest.raises(ValueError, match="needs one weight for each class"):
        build_loss("class_weighted_cross_entropy")
    with pytest.raises(ValueError, match="dice has its own divisor: leave out --loss_normalize"):
        build_loss("dice", LossSettings(normalize="all"))
