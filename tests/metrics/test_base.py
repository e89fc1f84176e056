import pickle
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from metrics.base import StreamingMetric
from metrics.bootstrap import Bootstrap
from metrics.segmentation import SegmentationMetrics
from metrics.selective import Misclassification
from tests.metrics.conftest import CLASSES, make_batch, part
from utils.types import Prediction, Score


class MeanLogit(StreamingMetric):
    """Mean of the logits and, with members, of theirs; a metric with sums that are no counts."""

    units: ClassVar = {"mean": "logit"}

    def sums_of(self, batch, prediction):
        values = prediction.logits if prediction.member_logits is None else prediction.member_logits
        return {
            "total": values.double().sum(),
            "count": torch.tensor(values.numel()),
        }

    def finish(self, sums):
        return {"mean": (sums["total"] / sums["count"]).item()}


def measured(parts, metric=None):
    metric = metric or SegmentationMetrics(CLASSES, per_scene=True)
    for batch, prediction in parts:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def whole_and_parts(*splits):
    batch, prediction = make_batch()
    return [(batch, prediction)], [part(batch, prediction, images) for images in splits]


@pytest.mark.parametrize(
    "splits",
    [
        ([0, 1, 2], [3, 4, 5]),
        ([0], [1], [2], [3], [4], [5]),
        ([5, 3], [1, 0], [4, 2]),
        ([2, 5, 0, 3, 1, 4],),
    ],
)
def test_results_do_not_depend_on_batches_or_order(splits):
    whole, parts = whole_and_parts(*splits)
    assert measured(parts) == measured(whole)
    found, expected = measured(parts, MeanLogit()), measured(whole, MeanLogit())
    assert found["total"]["mean"] == pytest.approx(expected["total"]["mean"], rel=1e-12)


def test_each_condition_equals_its_images_alone():
    batch, prediction = make_batch()
    found = measured([(batch, prediction)])
    assert list(found["condition"]) == ["fog", "night", "rain"]
    for index, name in enumerate(found["condition"]):
        alone = measured([part(batch, prediction, [index, index + 3])])
        assert found["condition"][name] == alone["total"]
        assert "condition" not in alone
    assert "dataset" not in found


def test_conditions_of_several_data_sets_are_told_apart():
    batch, prediction = make_batch()
    batch["dataset"] = ["acdc", "acdc", "acdc", "streets", "streets", "streets"]
    found = measured([(batch, prediction)])
    assert list(found["dataset"]) == ["acdc", "streets"]
    assert list(found["condition"])[:4] == ["acdc/fog", "acdc/night", "acdc/rain", "streets/fog"]
    assert found["condition"]["acdc/fog"] == measured([part(batch, prediction, [0])])["total"]


def test_members_and_features_follow_their_images():
    batch, _ = make_batch(count=4)
    members = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(3, 4, 5, 9, 11)
    prediction = Prediction(members[0], member_logits=members, features=torch.zeros(4, 2))
    found = measured([(batch, prediction)], MeanLogit())
    assert {name: values["mean"] for name, values in found["condition"].items()} == {
        "fog": 1.5,  # images 0 and 3
        "night": 1.0,
        "rain": 2.0,
    }


def test_batches_without_names_form_one_group():
    batch, prediction = make_batch()
    bare = {"label": batch["label"]}
    assert measured([(bare, prediction)]) == {"total": measured([(batch, prediction)])["total"]}


def test_no_image_gives_no_results():
    assert measured([]) == {}


def ranked():
    """A metric whose sums hold more than tensors, with resamples."""
    score = Score("first", lambda prediction: prediction.logits[:, 0])
    return Misclassification(CLASSES, [score], bootstrap=Bootstrap(10))


def run_process(rank, folder, shares):
    """One process of a gloo group: measure its images, and write the results."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares)
    )
    batch, prediction = make_batch()
    parts = [part(batch, prediction, [index]) for index in shares[rank]]
    results = [measured(parts), measured(parts, MeanLogit()), measured(parts, ranked())]
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(results))
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [([0, 2, 4], [1, 3, 5]), ([0, 1, 2, 3, 4, 5], [])])
def test_two_processes_give_the_numbers_of_one(tmp_path, shares):
    multiprocessing.spawn(run_process, (str(tmp_path), shares), nprocs=2)
    whole, _ = whole_and_parts()
    expected = [measured(whole), measured(whole, MeanLogit()), measured(whole, ranked())]
    for rank in range(2):
        segmentation, mean, ranking = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert segmentation == expected[0]
        assert ranking == expected[2]
        assert mean["total"]["mean"] == pytest.approx(expected[1]["total"]["mean"], rel=1e-12)
        assert mean.keys() == expected[1].keys()
