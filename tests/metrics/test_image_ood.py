import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import distributed as dist
from torch import multiprocessing

from metrics.image_ood import ImageOutOfDistribution
from tests.metrics.conftest import make_batch, part
from uncertainty.scores import SCORES

HOME = {("cityscapes", "clear")}
NAMES = ("msp", "energy")


def four_places():
    """Twelve images: cityscapes, two conditions of acdc and idd, ever less certain."""
    batch, prediction = make_batch(count=12)
    batch["dataset"] = ["cityscapes", "acdc", "acdc", "idd"] * 3
    batch["condition"] = ["clear", "fog", "night", "clear"] * 3
    factor = torch.tensor([1.0, 0.98, 0.9, 0.8] * 3) + 0.03 * torch.randn(
        12, generator=torch.Generator().manual_seed(3)
    )
    return batch, prediction._replace(logits=prediction.logits * factor.view(-1, 1, 1, 1))


def metric_of(in_domain=HOME, names=NAMES):
    return ImageOutOfDistribution([SCORES[name] for name in names], in_domain)


def measured(parts, in_domain=HOME):
    metric = metric_of(in_domain)
    for batch, prediction in parts:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute(), metric.image_scores()


def chosen(images):
    return part(*four_places(), images)


def test_agrees_with_scikit_learn_against_every_group():
    batch, prediction = four_places()
    results, _ = measured([(batch, prediction)])
    places = np.array(
        [f"{d}/{c}" for d, c in zip(batch["dataset"], batch["condition"], strict=True)]
    )
    groups = {
        "acdc": ["acdc/fog", "acdc/night"],
        "acdc/fog": ["acdc/fog"],
        "acdc/night": ["acdc/night"],
        "idd": ["idd/clear"],
        "all": ["acdc/fog", "acdc/night", "idd/clear"],
    }
    for name in NAMES:
        means = SCORES[name].function(prediction).double().mean((1, 2)).numpy()
        found = results["image_ood"][name]
        assert found["in_domain"] == "cityscapes"
        assert found["against"].keys() == groups.keys()
        for group, members in groups.items():
            others = np.isin(places, members)
            mine = others | (places == "cityscapes/clear")
            truth, scores = others[mine], means[mine]
            fpr, tpr, _ = sklearn.roc_curve(truth, scores, drop_intermediate=False)
            assert found["against"][group] == {
                "images": others.sum(),
                "auroc": pytest.approx(100 * sklearn.roc_auc_score(truth, scores)),
                "aupr_out": pytest.approx(100 * sklearn.average_precision_score(truth, scores)),
                "aupr_in": pytest.approx(100 * sklearn.average_precision_score(~truth, -scores)),
                "fpr95": pytest.approx(100 * fpr[tpr >= 0.95].min()),
            }


def test_void_pixels_count_and_equal_means_are_ties():
    batch, prediction = four_places()
    batch["label"][:] = 255
    assert measured([(batch, prediction)])[0] == measured([four_places()])[0]
    same = prediction._replace(logits=torch.zeros_like(prediction.logits))
    for group in measured([(batch, same)])[0]["image_ood"]["msp"]["against"].values():
        assert group["auroc"] == 50
        assert group["fpr95"] == 100


@pytest.mark.parametrize(
    "splits", [([*range(6)], [*range(6, 12)]), ([11, 3, 7], [0, 1, 2, 4, 5, 6, 8, 9, 10])]
)
def test_results_do_not_depend_on_batches_or_order(splits):
    whole = measured([four_places()])
    assert measured([chosen(images) for images in splits]) == whole
    assert measured([chosen([index]) for index in range(12)]) == whole


def test_several_places_can_be_in_domain():
    batch = four_places()[0]
    places = {
        (dataset, condition)
        for dataset, condition in zip(batch["dataset"], batch["condition"], strict=True)
        if condition != "night"
    }
    found, _ = measured([four_places()], places)
    msp = found["image_ood"]["msp"]
    assert msp["in_domain"] == "acdc/fog + cityscapes + idd"
    assert list(msp["against"]) == ["acdc/night", "all"]
    assert msp["against"]["all"]["images"] == 3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([0, 4, 8], r"only in-domain images given \(3 of cityscapes\).* --eval_on"),
        ([1, 3, 5], r"only out-of-distribution images given \(3 of acdc, idd\).* --eval_on"),
    ],
)
def test_one_kind_of_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        measured([chosen(images)])


def test_a_score_that_is_not_finite_is_refused_with_the_image():
    batch, prediction = four_places()
    prediction.logits[5, :, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="image5: the mean of the score msp is nan"):
        measured([(batch, prediction)])


def test_image_scores_are_sorted_and_named():
    batch, prediction = four_places()
    _, scores = measured([(batch, prediction)])
    order = sorted(
        range(12), key=lambda i: (batch["dataset"][i], batch["condition"][i], batch["id"][i])
    )
    for key in ("dataset", "condition", "id"):
        assert scores[key] == [batch[key][index] for index in order]
    assert scores["in_domain"] == [name == "cityscapes" for name in scores["dataset"]]
    means = SCORES["msp"].function(prediction).double().mean((1, 2))[order]
    assert scores["scores"]["msp"] == pytest.approx(means.tolist(), rel=1e-12)
    assert list(scores["scores"]) == list(NAMES)


def test_no_image_gives_no_results():
    results, scores = measured([])
    assert results == {}
    assert scores["id"] == []


def run_process(rank, folder, shares):
    """One process of a gloo group: measure its images, and write the results."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares)
    )
    found = measured([chosen([index]) for index in shares[rank]])
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path):
    shares = ([0, 7, 2, 9, 4, 11, 6, 1], [8, 3, 10, 5])
    multiprocessing.spawn(run_process, (str(tmp_path), shares), nprocs=2)
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert found == measured([four_places()])
