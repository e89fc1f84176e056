import torch

from metrics.members import MemberMetrics
from metrics.segmentation import SegmentationMetrics
from utils.types import Prediction

NAMES = ("cat", "dog", "cow")


def batch(labels):
    texts = [""] * len(labels)
    return {"label": labels, "id": ["a", "b"], "dataset": texts, "scene": texts, "condition": texts}


def metric():
    return SegmentationMetrics(NAMES)


def test_every_member_is_scored_as_if_alone():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 6, 7), generator=generator).to(torch.uint8)
    logits = torch.randn(2, 2, 3, 6, 7, generator=generator)
    members = MemberMetrics(("one", "two"), metric)
    members.update(batch(labels), Prediction(logits.mean(0), member_logits=logits))
    members.all_reduce()
    found = members.compute()["member"]
    assert list(found) == ["one", "two"]
    for name, own in zip(found, logits, strict=True):
        alone = metric()
        alone.update(batch(labels), Prediction(own))
        assert found[name] == alone.compute()["total"]
    assert found["one"] != found["two"]


def test_samples_of_a_member_answer_with_their_mean_softmax():
    labels = torch.zeros(2, 1, 1, dtype=torch.uint8)
    sure, unsure = torch.tensor([9.0, 0, 0]), torch.tensor([0, 1.0, 0])
    samples = torch.stack([sure, unsure, unsure, unsure]).view(4, 1, 3, 1, 1).expand(4, 2, 3, 1, 1)
    members = MemberMetrics(("one", "two"), metric)
    members.update(batch(labels), Prediction(samples.mean(0), member_logits=samples))
    found = members.compute()["member"]
    assert found["one"]["overall_accuracy"] == 100  # (0.9998 + 0.21) / 2 for the first class
    assert found["two"]["overall_accuracy"] == 0
