import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import distributed as dist
from torch import multiprocessing

from metrics.meta_classification import MetaClassification, held_out_probabilities
from tests.metrics.conftest import CLASSES
from utils.types import Prediction

VOID = 255
SIZE = (24, 32)
OBJECT = (slice(3, 9), slice(4, 11))
ALARM = (slice(14, 18), slice(20, 25))
CLOSE = (slice(5, 12), slice(20, 27))


def image_of(seed, uncertain, unknown, void=()):
    """Logits that are uncertain in some rectangles, and a map of unknown objects.

    Where the rectangle is an unknown object too, the entropy is a little higher.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = 0.1 * torch.randn(len(CLASSES), *SIZE, generator=generator)
    certain = torch.zeros(SIZE)
    certain += 8
    ood = torch.zeros(SIZE, dtype=torch.uint8)
    for place in uncertain:
        certain[place] = 1.2 + 0.4 * torch.rand(1, generator=generator)
    for place in unknown:
        ood[place] = 1
        certain[place] *= 0.8
    for place in void:
        ood[place] = VOID
    logits[seed % len(CLASSES)] += certain
    return logits, ood


def batch_of(images, names=None):
    logits, ood = (torch.stack(parts) for parts in zip(*images, strict=True))
    names = names or [f"image{index:03}" for index in range(len(images))]
    batch = {"label": torch.zeros_like(ood), "ood": ood, "id": names}
    return batch | {"dataset": ["animals"] * len(names)}, Prediction(logits)


def street(count=12):
    """Images with an object that is found, one that is missed or a false alarm, in turn."""
    kinds = [
        ([OBJECT, ALARM], [OBJECT], []),
        ([OBJECT], [OBJECT, CLOSE], []),
        ([ALARM, CLOSE], [], []),
        ([ALARM], [CLOSE], [OBJECT]),
    ]
    return [image_of(index, *kinds[index % 4]) for index in range(count)]


def measure(batches, threshold=0.7):
    metric = MetaClassification(CLASSES, threshold=threshold)
    for batch, prediction in batches:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def found(images, **arguments):
    return measure([batch_of(images)], **arguments)["total"]["meta_classification"]


def test_segments_and_objects_are_counted():
    result = found(street(4))
    assert result["segments"] == 6
    assert result["false_positives"] == 4  # in turn 1, 0, 2 and 1
    assert result["missed"] == 2
    assert result.keys() == MetaClassification.units.keys()


def test_an_object_counts_as_found_by_one_pixel():
    touching = (slice(8, 12), slice(10, 14))  # shares a corner of OBJECT
    beside = (slice(9, 12), slice(11, 14))  # touches it over the corner only
    hit, missed = (found([image_of(0, [place], [OBJECT])]) for place in (touching, beside))
    assert (hit["false_positives"], hit["missed"]) == (0, 0)
    assert (missed["false_positives"], missed["missed"]) == (1, 1)


def test_void_is_cut_out():
    whole = (slice(3, 9), slice(4, 20))
    middle = (slice(0, 24), slice(10, 13))
    assert found([image_of(0, [whole], [])])["segments"] == 1
    assert found([image_of(0, [whole], [], [middle])])["segments"] == 2
    assert found([image_of(0, [whole], [], [whole])])["segments"] == 0


def test_the_threshold_is_a_share_of_the_greatest_entropy():
    logits, ood = image_of(0, [], [])
    logits[:] = 0
    logits[:, :2] = torch.tensor([5.0, 5.0, -50, -50, -50])[:, None, None]  # ln 2 of ln 5: 0.43
    for threshold, rows in ((0.42, SIZE[0]), (0.44, SIZE[0] - 2)):
        metric = MetaClassification(CLASSES, threshold=threshold)
        metric.update(*batch_of([(logits, ood)]))
        assert metric.mine[0].features.shape == (1, 37 + 2 * len(CLASSES))
        size = metric.mine[0].features[0, 30]
        assert size == rows * SIZE[1]


def test_the_classifier_agrees_with_scikit_learn_over_images():
    metric = MetaClassification(CLASSES)
    metric.update(*batch_of(street(16)))
    metric.all_reduce()
    features = np.concatenate([image.features for image in metric.images])
    truth = np.concatenate([image.false_positives for image in metric.images])
    owners = np.repeat(range(16), [len(image.features) for image in metric.images])
    expected = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear")),
        features,
        truth,
        groups=owners,
        cv=LeaveOneGroupOut(),
        method="predict_proba",
    )[:, 1]
    assert held_out_probabilities(features, truth, owners) == pytest.approx(expected, abs=1e-12)
    result = metric.compute()["total"]["meta_classification"]
    removed = expected > 0.5
    assert result["false_positives_after"] == (truth[~removed] == 1).sum()
    assert result["accuracy"] == pytest.approx(100 * (removed == truth).mean())
    # street has one object a segment, so that each one removed wrongly is one missed
    assert result["missed_after"] == result["missed"] + (truth[removed] == 0).sum()


def test_the_classifier_removes_false_alarms():
    result = found(street(20))
    assert result["false_positives"] == 20
    assert result["false_positives_after"] < 10
    assert result["auroc"] > 80
    assert result["aupr"] > 80


@pytest.mark.parametrize(("count", "folds"), [(50, 50), (51, 10)])
def test_many_images_are_left_out_in_ten_groups(count, folds):
    generator = np.random.default_rng(0)
    owners = np.repeat(3 * np.arange(count), 2)
    truth = generator.integers(0, 2, len(owners))
    features = generator.standard_normal((len(owners), 3)) + truth[:, None]
    groups = owners // 3 % folds
    expected = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear")),
        features,
        truth,
        groups=groups,
        cv=LeaveOneGroupOut(),
        method="predict_proba",
    )[:, 1]
    assert held_out_probabilities(features, truth, owners) == pytest.approx(expected, abs=1e-12)


def test_nothing_of_its_own_image_reaches_a_classifier():
    generator = np.random.default_rng(0)
    owners = np.repeat(np.arange(8), 3)
    truth = generator.integers(0, 2, len(owners))
    features = generator.standard_normal((len(owners), 2))
    before = held_out_probabilities(features, truth, owners)
    features[-2:] *= 1e6  # the last image's others
    truth[-2:] = 1 - truth[-2:]
    after = held_out_probabilities(features, truth, owners)
    assert after[-3] == before[-3]
    assert not np.allclose(after[:-3], before[:-3])


def test_where_the_others_are_of_one_kind_it_is_theirs():
    truth = np.array([1, 0, 0, 0])
    features = np.arange(8.0).reshape(4, 2)
    likely = held_out_probabilities(features, truth, np.array([0, 1, 1, 2]))
    assert likely[0] == 0
    assert (likely[1:] > 0).all()


UNDEFINED = ("false_positives_after", "missed_after", "auroc", "aupr", "accuracy")


@pytest.mark.parametrize(
    "images",
    [
        [([OBJECT], [OBJECT]), ([CLOSE], [CLOSE])],  # no false positive
        [([OBJECT], []), ([ALARM], [])],  # nothing else
        [([OBJECT, ALARM], [OBJECT]), ([], [CLOSE])],  # segments in one image
        [([], [OBJECT]), ([], [])],  # no segment
    ],
)
def test_without_both_kinds_or_a_second_image_there_is_no_classifier(images):
    result = found([image_of(index, *image) for index, image in enumerate(images)])
    assert {name: result[name] for name in UNDEFINED} == dict.fromkeys(UNDEFINED)
    assert isinstance(result["segments"], int)
    unknown = sum(len(objects) for _, objects in images)
    touched = sum(len([each for each in objects if each in places]) for places, objects in images)
    assert result["missed"] == unknown - touched


def test_no_image_gives_no_results():
    assert measure([]) == {}


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=r"entropy threshold .* above 0 and at most 1"):
        MetaClassification(CLASSES, threshold=threshold)


def test_logits_that_are_not_finite_are_refused_with_the_image():
    images = street(3)
    images[1][0][:, 4, 4] = float("nan")
    with pytest.raises(ValueError, match="image001: the entropy is not finite"):
        found(images)


def test_data_without_a_map_is_refused():
    batch, prediction = batch_of(street(1))
    del batch["ood"]
    with pytest.raises(ValueError, match=r"animals says of no pixel .* meta_classification needs"):
        measure([(batch, prediction)])


def shuffled_batches(order, step):
    images = street()
    for start in range(0, len(order), step):
        chosen = order[start : start + step]
        yield batch_of([images[i] for i in chosen], [f"image{i:03}" for i in chosen])


@pytest.mark.parametrize("step", [1, 5, 12])
def test_results_do_not_depend_on_batches_or_order(step):
    order = [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 6, 4]
    assert measure(shuffled_batches(order, step)) == measure([batch_of(street())])


def test_groups_of_images_do_not_depend_on_their_order():
    metric = MetaClassification(CLASSES)
    for batch, prediction in shuffled_batches([7, 2, 11, 0, 5], 2):
        metric.update(batch, prediction)
    metric.all_reduce()
    assert [image.id for image in metric.images] == [f"image{i:03}" for i in (0, 2, 5, 7, 11)]


def run_process(rank, folder, shares):
    """One process of a gloo group: measure its images, and write the results."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares)
    )
    result = measure(shuffled_batches(shares[rank], 2))
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path):
    shares = ([0, 7, 2, 9, 4, 11, 6, 1], [8, 3, 10, 5])
    multiprocessing.spawn(run_process, (str(tmp_path), shares), nprocs=2)
    for rank in range(2):
        result = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert result == measure([batch_of(street())])
