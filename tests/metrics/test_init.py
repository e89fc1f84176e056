import pytest
import torch

from metrics import METRICS, MetricSettings, build_metrics
from metrics.bootstrap import Bootstrap
from tests.metrics.conftest import CLASSES, make_batch
from utils.softmax import top_class
from utils.types import ForwardVariant, Score


def doubt(prediction):
    return 1 - top_class(prediction.logits).confidence


DOUBT = Score("doubt", doubt, highest=lambda classes: 1.0)
VARIANT = ForwardVariant("clipped", lambda predict, network, images: predict(images))
CLIPPED = Score("clipped", doubt, variant=VARIANT)
SETTINGS = MetricSettings(
    scores=[DOUBT],
    ood_scores=[DOUBT],
    thresholds={"doubt": 0.5},
    in_domain={("acdc", "fog")},
    per_scene=True,
    parity=True,
    patch=2,
    bootstrap=Bootstrap(5),
)


@pytest.fixture
def batch():
    batch, prediction = make_batch()
    batch["ood"] = (batch["label"] == 0).to(torch.uint8)
    batch["dataset"] = ["acdc"] * 6
    return batch, prediction


def leaves(results, depth=0):
    """The names of the numbers, of what stands below a metric's or a score's name."""
    for name, value in results.items():
        if isinstance(value, dict) and (name in METRICS or name == DOUBT.name):
            yield from leaves(value, depth + 1)
        elif name != "intervals":
            yield name


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_built_and_names_the_units_of_its_numbers(name, batch):
    (metric,) = build_metrics([name], CLASSES, SETTINGS)
    metric.update(*batch)
    metric.all_reduce()
    results = metric.compute()
    if name == "image_ood":
        assert results["image_ood"]["doubt"]["against"]["all"]["images"] == 4
        return
    if name == "meta_classification":
        assert set(results) == {"total"}
        assert set(results["total"][name]) == set(metric.units)
        return
    assert set(leaves(results["total"])) <= {unit.split(".")[0] for unit in metric.units}
    assert set(results) == {"total", "condition", "scene"}
    assert results["total"]["intervals"]


def test_scores_of_one_forward_variant_share_a_metric():
    both = [DOUBT, CLIPPED]
    settings = MetricSettings(scores=both, ood_scores=both, in_domain={("acdc", "fog")})
    metrics = build_metrics(["calibration", "misclassification", "image_ood"], CLASSES, settings)
    names = ("calibration", "misclassification", "misclassification", "image_ood", "image_ood")
    assert [type(metric) for metric in metrics] == [METRICS[name] for name in names]
    assert [metric.variant for metric in metrics] == [None, None, VARIANT, None, VARIANT]


def test_class_names_reach_the_segmentation_metric(batch):
    settings = MetricSettings(unannotated={"acdc": {"train"}})
    (metric,) = build_metrics(["segmentation"], CLASSES, settings)
    metric.update(*batch)
    assert metric.compute()["total"]["class_iou"]["train"] is None
