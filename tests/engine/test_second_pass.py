"""Thresholds of the first pass, and what the second one makes of them."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.joined import Joined
from engine.ood_pictures import OODPictures
from engine.second_pass import (
    component_sizes,
    found_thresholds,
    second_consumers,
    typed_thresholds,
)
from metrics import MetricSettings
from metrics.components import Components
from metrics.ood import OutOfDistribution
from tests.datasets.toys import Toy
from uncertainty import build_score
from utils.types import Prediction

NAMES = ("road", "sky", "car")
SCORES = [build_score(name) for name in ("abet", "msp")]
SIZE = (20, 24)


def flags(**changes):
    values = {"metrics": ["ood", "components"], "ood_threshold": None, "save_val_results": False}
    return Namespace(**{**values, "dataset": "toy", "component_sizes": None, **changes})


def batches():
    """Two batches of two images, with unknown rectangles that most scores see."""
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        ood = torch.zeros(2, *SIZE, dtype=torch.uint8)
        ood[0, 3:9, 4:10], ood[0, 12:18, 12:20], ood[1, 5:9, 2:20] = 1, 1, 1
        ood[:, :, -2:] = 255
        logits = torch.randn(2, 3, *SIZE, generator=generator)
        logits[:, 0] += torch.where(ood == 1, 0.0, 4.0)
        texts = [""] * 2
        names = {"id": [f"{number}a", f"{number}b"], "dataset": ["toy"] * 2}
        batch = {"ood": ood, "label": torch.zeros_like(ood), **names}
        yield {**batch, "scene": texts, "condition": texts}, Prediction(logits)


def passed(*consumers):
    """The results of consumers that see all batches."""
    results = {}
    for consumer in consumers:
        for batch, prediction in batches():
            consumer.update(batch, prediction)
        consumer.all_reduce()
        results |= consumer.compute()["total"]
    return {"total": results}


@pytest.fixture(scope="module")
def first():
    return passed(OutOfDistribution(NAMES, SCORES))


def second(opts, first, folder, **settings):
    chosen = MetricSettings(ood_scores=SCORES, **settings)
    return second_consumers(opts, chosen, NAMES, first, folder)


def pixels(score):
    """Scores and truth of the pixels that count."""
    values = torch.cat([score.function(prediction) for _, prediction in batches()])
    truth = torch.cat([batch["ood"] for batch, _ in batches()])
    return values.numpy(), truth.numpy()


def best_threshold(score):
    """The highest of the scores at which the F1 is best, by trying them all."""
    values, truth = pixels(score)
    known = truth != 255

    def f1(threshold):
        predicted = (values >= threshold) & known
        hits = (predicted & (truth == 1)).sum()
        return 2 * hits / (predicted.sum() + (truth == 1).sum())

    return max(np.unique(values[known]), key=f1)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_components_are_those_of_all_pixels_of_the_best_f1(first, tmp_path, score):
    """Counted apart: the pixels with at least the best threshold, in 8-connected groups."""
    (components,) = second(flags(), first, tmp_path)
    found = passed(components)["total"]["components"][score.name]
    best = best_threshold(score)
    assert first["total"]["ood"][score.name]["f1_threshold"] == best
    assert found["threshold"] < best
    values, truth = pixels(score)
    predicted = [
        ndimage.label((one >= best) & (mask != 255), np.ones((3, 3)))[1]
        for one, mask in zip(values, truth, strict=True)
    ]
    assert found["predicted_components"] == sum(predicted)
    assert found["gt_components"] == 6


def test_the_second_pass_equals_one_with_thresholds_known_before(first, tmp_path):
    settings = {"component_sizes": (4, 30)}
    (components,) = second(flags(), first, tmp_path, **settings)
    known = {score.name: float(best_threshold(score)) for score in SCORES}
    below = {name: np.nextafter(np.float32(best), np.float32(-9)) for name, best in known.items()}
    direct = Components(NAMES, SCORES, below, smallest_prediction=4, smallest_truth=30)
    assert passed(components) == passed(direct)


def test_typed_thresholds_take_the_place_of_the_found_ones(first, tmp_path):
    (components,) = second(flags(ood_threshold=[-3.5, 0.25]), first, tmp_path)
    direct = Components(NAMES, SCORES, {"abet": -3.5, "msp": 0.25})
    expected = passed(direct)
    assert passed(components) == expected
    (alone,) = second(flags(metrics=["components"], ood_threshold=[-3.5, 0.25]), {}, tmp_path)
    assert passed(alone) == expected, "no first pass is needed"
    assert typed_thresholds(flags(ood_threshold=[0.5]), ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert typed_thresholds(flags(ood_threshold=[1, 2]), ["a", "b"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize("best", [-1e4, -0.75, 0.0, 1e-30, 0.1, 1.0, 54321.5])
def test_above_the_threshold_is_at_least_the_best(best):
    level = np.float32(best)
    results = {"total": {"ood": {"s": {"f1_threshold": float(level), "tpr95_threshold": 0.5}}}}
    found = found_thresholds(results)
    around = [level, *(np.nextafter(level, np.float32(end)) for end in (-np.inf, np.inf))]
    assert [value > found.best_f1["s"] for value in around] == [value >= level for value in around]
    assert found.tpr95 == {"s": 0.5}


def test_what_a_second_pass_is_made_for(first, tmp_path):
    def kinds(**changes):
        return [type(each) for each in second(flags(**changes), first, tmp_path)]

    assert kinds(metrics=["ood"]) == []
    assert kinds(metrics=["segmentation"], save_val_results=True) == []
    assert kinds() == [Components]
    assert kinds(metrics=["ood"], save_val_results=True) == [OODPictures]
    assert kinds(save_val_results=True) == [Components, OODPictures]


def test_pictures_start_where_95_percent_are_found(first, tmp_path):
    (writer,) = second(flags(metrics=["ood"], save_val_results=True), first, tmp_path)
    for score in SCORES:
        values, truth = pixels(score)
        unknown = np.sort(values[truth == 1])[::-1]
        enough = int(np.ceil(0.95 * len(unknown)))
        assert writer.thresholds[score.name] == unknown[enough - 1]


def sized(split, least):
    toy = Toy(split)
    toy.component_sizes = least
    return toy


def test_least_sizes_are_typed_or_those_of_the_data():
    one, same, other = sized("train", (5, 6)), sized("val", (5, 6)), sized("val", (0, 7))
    assert component_sizes(flags(), one) == (5, 6)
    assert component_sizes(flags(component_sizes=[1, 2]), one) == (1, 2)
    assert component_sizes(flags(component_sizes=[0, 0]), one) == (0, 0)
    same.name = other.name = "toy2"
    assert component_sizes(flags(), Joined([one, same])) == (5, 6)
    assert component_sizes(flags(), Joined([one, other])) == (0, 0)
    assert component_sizes(flags(), SimpleNamespace(component_sizes=(500, 100))) == (500, 100)
