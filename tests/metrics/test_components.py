from itertools import chain

import numpy as np
import pytest
import torch
from scipy import ndimage

from metrics.bootstrap import Bootstrap
from metrics.component_counts import agreement, connected_components, overlap
from metrics.components import Components, float32_below
from tests.metrics.conftest import CLASSES
from utils.types import Prediction, Score

VOID = 255
RAW = Score("raw", lambda prediction: prediction.logits[:, 0])
NEGATED = Score("negated", lambda prediction: -prediction.logits[:, 0])
LEVELS = np.linspace(0.25, 0.75, 11)

TRUTH = """
    AA..B...
    AA..B...
    ....B.C.
    ..------
"""
PREDICTED = """
    ##......
    #######.
    ........
    ..##....
"""


def masks(truth=TRUTH, predicted=PREDICTED):
    """Maps drawn by hand: letters are unknown, dots known, strokes void; # is predicted."""
    kinds = {".": 0, "-": VOID}
    ood = np.array([[kinds.get(each, 1) for each in line] for line in truth.split()], np.uint8)
    return ood, np.array([[each == "#" for each in line] for line in predicted.split()])


def random_masks(seed, size=(17, 23)):
    """Clumps of unknown and of predicted pixels that overlap, with void here and there."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((3, *size))
    smooth = np.stack([ndimage.gaussian_filter(plane, 1.0) for plane in noise])
    smooth /= smooth.std((1, 2), keepdims=True)
    ood = (smooth[0] > 0.5).astype(np.uint8)
    ood[smooth[2] > 1.2] = VOID
    return ood, smooth[0] + smooth[1] > 0.8


def batch_of(*pairs):
    """Images whose score ``raw`` is 1 where predicted, else 0."""
    ood = torch.from_numpy(np.stack([truth for truth, _ in pairs]))
    scores = torch.from_numpy(np.stack([predicted for _, predicted in pairs])).float()
    count = len(pairs)
    batch = {
        "label": torch.zeros_like(ood),
        "ood": ood,
        "id": [f"image{index}" for index in range(count)],
        "dataset": ["animals"] * count,
        "scene": ["road"] * count,
        "condition": [("day", "night")[index % 2] for index in range(count)],
    }
    return batch, Prediction(scores[:, None])


def measure(batches, scores=(RAW,), thresholds=None, **arguments):
    thresholds = thresholds or {"raw": 0.5, "negated": -0.5}
    metric = Components(CLASSES, scores, thresholds, **arguments)
    for batch, prediction in batches:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def found(*pairs, **arguments):
    return measure([batch_of(*pairs)], **arguments)["total"]["components"]["raw"]


def by_loop(ood, predicted, smallest_prediction=0, smallest_truth=0):
    """sIoU of the true and PPV of the predicted components, each by whole-image masks."""
    neighbours = np.ones((3, 3))
    ood = ood.copy()
    true_ids, truths = ndimage.label(ood == 1, neighbours)
    ids, predictions = ndimage.label(predicted & (ood != VOID), neighbours)
    for number in range(1, predictions + 1):
        if (ids == number).sum() < smallest_prediction:
            ids[ids == number] = 0
    for number in range(1, truths + 1):
        if (true_ids == number).sum() < smallest_truth:
            ood[true_ids == number] = VOID
    true_ids, ids = true_ids * (ood != VOID), ids * (ood != VOID)
    siou, ppv = [], []
    for number in set(true_ids.ravel()) - {0}:
        mine = true_ids == number
        touching = np.isin(ids, list(set(ids[mine]) - {0}))
        union = mine | (touching & (true_ids == 0))
        siou.append((mine & touching).sum() / union.sum())
    for number in set(ids.ravel()) - {0}:
        ppv.append((true_ids[ids == number] > 0).mean())
    return siou, ppv


def numbers_of(siou, ppv):
    """The results that follow from the components of all images."""
    tp, fp = ([int((np.array(each) >= t).sum()) for t in LEVELS] for each in (siou, ppv))
    fp = [len(ppv) - each for each in fp]
    fn = [len(siou) - each for each in tp]
    f1 = [200 * t / (2 * t + n + p) for t, n, p in zip(tp, fn, fp, strict=True)]
    shown = {"25": 0, "50": 5, "75": 10}
    return {
        "threshold": 0.5,
        "siou": pytest.approx(100 * np.mean(siou)),
        "ppv": pytest.approx(100 * np.mean(ppv)),
        "f1": pytest.approx(np.mean(f1)),
        "gt_components": len(siou),
        "predicted_components": len(ppv),
        "tp": {name: tp[level] for name, level in shown.items()},
        "fn": {name: fn[level] for name, level in shown.items()},
        "fp": {name: fp[level] for name, level in shown.items()},
        "f1_at": {name: pytest.approx(f1[level]) for name, level in shown.items()},
    }


def test_a_hand_worked_example():
    # A: 4 of 4 pixels found, the 4 stray ones of the prediction count, the one on B does not.
    # B: 1 of 3 found and the same 4 stray ones. C is missed; the prediction in void is no one's.
    result = found(masks())
    assert result["gt_components"] == 3
    assert result["predicted_components"] == 1
    assert result["siou"] == pytest.approx(100 * (4 / 8 + 1 / 7 + 0) / 3)
    assert result["ppv"] == pytest.approx(100 * 5 / 9)
    assert result["tp"] == {"25": 1, "50": 1, "75": 0}
    assert result["fn"] == {"25": 2, "50": 2, "75": 3}
    assert result["fp"] == {"25": 0, "50": 0, "75": 1}
    # TP from 25 to 50 %, no FP up to 55 %
    assert result["f1_at"] == {"25": 50.0, "50": 50.0, "75": 0.0}
    assert result["f1"] == pytest.approx(50 * 6 / 11)


@pytest.mark.parametrize("limits", [(0, 0), (4, 0), (0, 4), (6, 3), (40, 1), (1, 40)])
def test_agrees_with_a_loop_over_the_components(limits):
    for seed in range(60):
        ood, predicted = random_masks(seed)
        siou, ppv = by_loop(ood, predicted, *limits)
        pairs = overlap(
            connected_components(ood == 1), connected_components(predicted & (ood != VOID))
        )
        result = agreement(pairs, *limits)
        assert sorted(result.siou) == sorted(siou)
        assert sorted(result.ppv) == sorted(ppv)


def test_sums_over_images_agree_with_the_loop():
    images = [random_masks(seed) for seed in range(8)]
    by_image = [by_loop(*image, 3, 2) for image in images]
    siou, ppv = ([*chain(*parts)] for parts in zip(*by_image, strict=True))
    assert found(*images, smallest_prediction=3, smallest_truth=2) == numbers_of(siou, ppv)


def test_a_perfect_prediction_has_a_hundred_percent_of_everything():
    images = [random_masks(seed) for seed in range(3)]
    result = found(*((ood, ood == 1) for ood, _ in images))
    assert result["gt_components"] == result["predicted_components"] > 5
    assert result["siou"] == result["ppv"] == result["f1"] == 100
    assert set(result["f1_at"].values()) == {100}
    assert set(result["fn"].values()) == set(result["fp"].values()) == {0}


def test_one_prediction_over_two_objects_is_not_punished_by_the_other():
    truth = "AA.BB AA.BB"
    both = agreement_of(truth, "##### #####")
    first_alone = agreement_of(truth, "###.. ###..")
    assert both.siou.tolist() == [4 / 6, 4 / 6]
    assert first_alone.siou.tolist() == [4 / 6, 0]
    assert both.ppv.tolist() == [8 / 10]


def test_an_object_found_in_two_pieces_keeps_the_overlap_of_their_union():
    assert agreement_of("AAAAAAAAAA", "####..####").siou.tolist() == [8 / 10]
    assert agreement_of("AAAAAAAAAA", "####..####").ppv.tolist() == [1, 1]
    assert agreement_of("AAAAAAAA..", "####..####").siou.tolist() == [6 / 10]


def agreement_of(truth, predicted, *limits):
    ood, mask = masks(truth, predicted)
    pairs = overlap(connected_components(ood == 1), connected_components(mask & (ood != VOID)))
    return agreement(pairs, *limits)


def test_components_of_exactly_the_least_size_are_kept():
    truth, predicted = "AAA.BB....", ".##....###"
    for limit, ppv in ((2, [1, 0]), (3, [0]), (4, [])):
        assert agreement_of(truth, predicted, limit, 0).ppv.tolist() == ppv
    for limit, siou in ((2, [2 / 3, 0]), (3, [2 / 3]), (4, [])):
        assert agreement_of(truth, predicted, 0, limit).siou.tolist() == siou


def test_a_small_object_takes_the_pixels_predicted_on_it_along():
    # sizes of predictions are taken before: with 5 pixels this one stays, and 2 of them count
    result = agreement_of("AAA......BBBB", "#####....####", 4, 4)
    assert result.siou.tolist() == [1]
    assert result.ppv.tolist() == [0, 1]
    only_on_it = agreement_of("AAA......BBBB", "###......####", 3, 4)
    assert only_on_it.ppv.tolist() == [1]


def test_a_background_below_the_limit_is_no_component():
    result = agreement_of("AAAA.", "#####", 2, 2)
    assert result.siou.tolist() == result.ppv.tolist() == [4 / 5]


def test_void_is_cut_out_before_components_are_made():
    assert len(agreement_of("..-..", "#####").ppv) == 2
    assert len(agreement_of(".....", "#####").ppv) == 1
    ood, predicted = masks()
    everywhere = predicted | (ood == VOID)
    assert found((ood, everywhere)) == found((ood, predicted))


def test_components_join_over_corners():
    result = agreement_of("A... .A.. ..A. ....", ".... #... .#.. ..#.")
    assert len(result.siou) == len(result.ppv) == 1


def test_a_share_of_exactly_three_fifths_misses_the_level_of_sixty():
    fit = found(masks("AAAAA.....", "###......."))
    assert fit["siou"] == 60
    assert fit["f1"] == pytest.approx(100 * 7 / 11)  # 25 .. 55 %


def test_the_score_has_to_be_above_the_threshold():
    ood, predicted = masks()
    batch, prediction = batch_of((ood, predicted))
    at = measure([(batch, prediction)], thresholds={"raw": 1.0})["total"]["components"]["raw"]
    assert at["predicted_components"] == 0
    below = {"raw": float(np.nextafter(1.0, 0))}  # rounds to 1 in float32
    assert measure([(batch, prediction)], thresholds=below)["total"]["components"]["raw"] == (
        found((ood, predicted)) | {"threshold": below["raw"]}
    )


@pytest.mark.parametrize("score", [0.1, 1.0, -1.0, 3e38, 1e-45, 0.0])
def test_comparison_with_the_threshold_is_exact(score):
    score = torch.tensor([score])
    value = score.item()
    below = np.nextafter(value, -np.inf)
    assert (score > float32_below(below)).item()
    assert not (score > float32_below(value)).item()
    assert not (score > float32_below(np.nextafter(value, np.inf))).item()


def test_scores_are_judged_apart_in_one_pass():
    images = [random_masks(seed) for seed in range(4)]
    flipped = [(ood, ~predicted) for ood, predicted in images]
    both = measure([batch_of(*images)], scores=(RAW, NEGATED))["total"]["components"]
    assert list(both) == ["raw", "negated"]
    assert both["raw"] == found(*images)
    assert both["negated"] == found(*flipped) | {"threshold": -0.5}


@pytest.mark.parametrize("splits", [([0, 1, 2, 3], [4, 5]), ([5, 3, 1], [0], [4, 2])])
def test_results_do_not_depend_on_batches_or_order(splits):
    images = [random_masks(seed) for seed in range(6)]
    whole = measure([batch_of(*images)])
    batches = []
    for split in splits:
        batch, prediction = batch_of(*(images[index] for index in split))
        batch["condition"] = [("day", "night")[index % 2] for index in split]
        batches.append((batch, prediction))
    parts = measure(batches)
    assert list(whole["condition"]) == list(parts["condition"]) == ["day", "night"]
    assert_close(parts["total"], whole["total"])
    for name in ("day", "night"):
        assert_close(parts["condition"][name], whole["condition"][name])


def assert_close(one, other):
    """Counts are equal; the two means are, up to the rounding of their float64 sums."""
    mine, theirs = one["components"]["raw"], other["components"]["raw"]
    means = {name: pytest.approx(theirs[name], rel=1e-12) for name in ("siou", "ppv")}
    assert mine == theirs | means


def test_each_condition_equals_its_images_alone():
    images = [random_masks(seed) for seed in range(4)]
    conditions = measure([batch_of(*images)])["condition"]
    assert conditions["day"]["components"]["raw"] == found(images[0], images[2])
    assert conditions["night"]["components"]["raw"] == found(images[1], images[3])


EMPTY = {
    "threshold": 0.5,
    **dict.fromkeys(("siou", "ppv", "f1")),
    **dict.fromkeys(("gt_components", "predicted_components"), 0),
    **{name: {"25": 0, "50": 0, "75": 0} for name in ("tp", "fn", "fp")},
    "f1_at": {"25": None, "50": None, "75": None},
}


@pytest.mark.parametrize(
    ("truth", "predicted"), [("...", "..."), ("---", "###"), ("---", "..."), ("A..", "#..")]
)
def test_without_components_nothing_is_defined(truth, predicted):
    assert found(masks(truth, predicted), smallest_truth=2, smallest_prediction=1) == EMPTY


def test_one_side_without_components():
    missed = found(masks("AA.", "..."))
    assert (missed["siou"], missed["ppv"], missed["f1"]) == (0, None, 0)
    assert missed["fn"] == {"25": 1, "50": 1, "75": 1}
    alarm = found(masks("...", "##."))
    assert (alarm["siou"], alarm["ppv"], alarm["f1"]) == (None, 0, 0)
    assert alarm["fp"] == {"25": 1, "50": 1, "75": 1}


def test_no_image_gives_no_results():
    assert measure([]) == {}


def test_every_number_has_a_unit():
    assert found(masks()).keys() == Components.units.keys()


def test_intervals_hold_the_numbers():
    images = [random_masks(seed) for seed in range(12)]
    total = measure([batch_of(*images)], bootstrap=Bootstrap(50))["total"]
    low, high = total["intervals"]["components.raw.siou"]
    assert low < total["components"]["raw"]["siou"] < high


def test_scores_that_are_not_finite_are_refused_outside_void():
    ood, predicted = masks()
    batch, prediction = batch_of((ood, predicted))
    prediction.logits[0, 0, 3, 5:] = float("nan")  # void
    assert measure([(batch, prediction)])["total"]["components"]["raw"] == found((ood, predicted))
    prediction = Prediction(prediction.logits.clone())
    prediction.logits[0, 0, 0, :3] = float("inf")
    with pytest.raises(ValueError, match="raw is not finite .* at 3 pixels"):
        measure([(batch, prediction)])


def test_data_without_a_map_is_refused():
    batch, prediction = batch_of(masks())
    del batch["ood"]
    with pytest.raises(ValueError, match=r"animals says of no pixel .* metric components needs"):
        measure([(batch, prediction)])
