import json
import math

import numpy as np
import pytest
import torch

from engine.checkpoint import plain
from main import main
from metrics import MetricSettings, build_metrics
from metrics.bootstrap import Bootstrap
from metrics.flagged import FlaggedPixels, flagged_counts
from options import parse
from tests.metrics.conftest import CLASSES, make_batch, updated
from tests.small_runs import flags, write_data
from utils.report.measures import blocks_of, numbers_of
from utils.types import ForwardVariant, Prediction, Score


def msp(prediction):
    return 1 - prediction.logits.softmax(1).amax(1)


def entropy(prediction):
    likely = prediction.logits.softmax(1)
    return -(likely * likely.clamp(min=1e-30).log()).sum(1)


def energy(prediction):
    return -prediction.logits.logsumexp(1)


MSP = Score("msp", msp, highest=lambda classes: 1.0)
ENTROPY = Score("entropy", entropy, highest=math.log)
ENERGY = Score("energy", energy)


def metric_of(batch, prediction, scores=(MSP,), step=None, **options):
    return updated(FlaggedPixels(CLASSES, scores, **options), batch, prediction, step)


def total(metric):
    metric.all_reduce()
    return metric.compute()["total"]["flagged"]


def by_loops(batch, prediction, score, limit):
    """Share, error rates in percent and their ratio, pixel by pixel."""
    values = score.function(prediction).numpy()
    predicted = prediction.logits.argmax(1).numpy()
    counts = {(flag, wrong): 0 for flag in (False, True) for wrong in (False, True)}
    for place in np.ndindex(values.shape):
        label = batch["label"].numpy()[place]
        if label != 255:
            counts[bool(values[place] >= limit), bool(predicted[place] != label)] += 1
    flagged, others = (counts[flag, True] + counts[flag, False] for flag in (True, False))
    inside, outside = counts[True, True] / flagged, counts[False, True] / others
    return {
        "pixels": flagged + others,
        "share": 100 * flagged / (flagged + others),
        "error_rate": 100 * (counts[True, True] + counts[False, True]) / (flagged + others),
        "inside": 100 * inside,
        "outside": 100 * outside,
        "times": inside / outside,
    }


def test_a_case_by_hand():
    values = torch.tensor([[[1.0, 0.96, 0.95, 0.94, 0.0, 0.99, 0.1]]])
    errors = torch.tensor([[[1, 0, 1, 1, 0, 255, 255]]], dtype=torch.uint8)
    counts = flagged_counts(values, errors, 0.95)
    assert counts.tolist() == [[1, 1], [1, 2]]
    assert counts.dtype == torch.int64


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_agrees_with_loops_over_pixels(six_images, threshold):
    found = total(metric_of(*six_images, (MSP, ENTROPY), threshold=threshold))
    for score, highest in ((MSP, 1.0), (ENTROPY, math.log(len(CLASSES)))):
        limit = (1 - threshold) * highest
        assert found[score.name] == pytest.approx(by_loops(*six_images, score, limit))


def test_a_threshold_of_one_flags_everything_and_of_zero_only_the_greatest(six_images):
    everything = total(metric_of(*six_images, threshold=1.0))["msp"]
    assert everything["share"] == 100
    assert everything["inside"] == everything["error_rate"]
    assert everything["outside"] is everything["times"] is None
    nothing = total(metric_of(*six_images, threshold=0.0))["msp"]
    assert nothing["share"] == 0
    assert nothing["outside"] == everything["error_rate"]
    assert nothing["inside"] is nothing["times"] is None
    batch, prediction = six_images
    ones = Score("ones", lambda p: torch.ones(len(p.logits), 9, 11), highest=lambda _: 1.0)
    assert total(metric_of(batch, prediction, (ones,), threshold=0.0))["ones"]["share"] == 100


def test_no_errors_outside_have_no_ratio():
    batch, prediction = make_batch()
    batch["label"] = prediction.logits.argmax(1).to(torch.uint8)
    found = total(metric_of(batch, prediction, threshold=0.4))["msp"]
    assert found["inside"] == found["outside"] == found["error_rate"] == 0
    assert found["times"] is None


def test_nothing_but_void():
    batch, prediction = make_batch()
    batch["label"].fill_(255)
    found = total(metric_of(batch, prediction))["msp"]
    assert found.pop("pixels") == 0
    assert set(found.values()) == {None}


def test_batch_size_and_parts_of_the_data_do_not_matter(six_images):
    whole, parts = (
        metric_of(*six_images, threshold=0.5, step=step, per_scene=True) for step in (None, 1)
    )
    for metric in (whole, parts):
        metric.all_reduce()
    assert whole.compute() == parts.compute()
    found = whole.compute()
    assert set(found["condition"]) == {"fog", "night", "rain"}
    assert set(found["scene"]) == {"scene0", "scene1"}
    pixels = [part["flagged"]["msp"]["pixels"] for part in found["condition"].values()]
    assert sum(pixels) == found["total"]["flagged"]["msp"]["pixels"]


def test_intervals_hold_the_value(six_images):
    metric = metric_of(*six_images, threshold=0.5, bootstrap=Bootstrap(50))
    metric.all_reduce()
    found = metric.compute()["total"]
    low, high = found["intervals"]["flagged.msp.inside"]
    assert low < found["flagged"]["msp"]["inside"] < high


def test_scores_that_are_not_finite_are_refused_where_there_is_a_label():
    batch, prediction = make_batch(count=1)
    valid = batch["label"] != 255

    def broken(prediction, where):
        return msp(prediction).masked_fill(where, math.nan)

    lost = Score("lost", lambda p: broken(p, valid), highest=lambda _: 1.0)
    with pytest.raises(ValueError, match=f"lost is nan or infinite at {int(valid.sum())} pixels"):
        total(metric_of(batch, prediction, (lost,)))
    void = Score("void", lambda p: broken(p, ~valid), highest=lambda _: 1.0)
    plain = total(metric_of(batch, prediction))["msp"]
    assert total(metric_of(batch, prediction, (void,)))["void"] == plain


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match=r"flag threshold .* is outside 0\.\.1"):
        FlaggedPixels(CLASSES, (MSP,), threshold=threshold)


def test_scores_without_a_greatest_value_are_left_out():
    variant = ForwardVariant("clipped", lambda predict, network, images: predict(images))
    clipped = Score("clipped", energy, variant=variant)
    settings = MetricSettings(scores=[MSP, ENERGY, clipped], flag_threshold=0.5)
    (metric,) = build_metrics(["flagged"], CLASSES, settings)
    assert [score.name for score in metric.scores] == ["msp"]
    assert metric.limits == {"msp": 0.5}
    assert metric.variant is None


def test_the_report_has_a_table(six_images):
    metric = metric_of(*six_images, threshold=0.5)
    metric.all_reduce()
    numbers = numbers_of(metric.compute()["total"])
    (block,) = blocks_of([numbers])
    assert block.title == "Errors among the flagged pixels by msp"
    assert [column.key for column in block.columns] == ["share", "inside", "outside", "times"]


def test_members_of_a_prediction_are_not_needed():
    batch, prediction = make_batch()
    members = Prediction(prediction.logits, member_logits=prediction.logits[None])
    assert total(metric_of(batch, members)) == total(metric_of(batch, prediction))


@pytest.fixture
def tested(tmp_path):
    """The command of a test, but for what is measured."""
    path = tmp_path / "best_toy.pth"
    content = {"opts": plain(parse([])), "model_state": {"w": torch.ones(1)}, "cur_itrs": 4}
    torch.save(content, path)
    return ["--test_only", "--dataset", "streets", "--ckpt", str(path)]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--flag_threshold 0.1", "--flag_threshold concerns the metric flagged"),
        ("--metrics flagged --confidence energy", "needs a score with a greatest value"),
        ("--metrics flagged --flag_threshold 1.5", "1.5 is outside 0..1"),
    ],
)
def test_flags_that_do_not_fit_together(tested, capsys, flags, words):
    with pytest.raises(SystemExit):
        parse([*tested, *flags.split()])
    assert words in capsys.readouterr().err


def test_flags_that_fit_together(tested):
    opts = parse([*tested, "--metrics", "flagged", "--confidence", "energy", "response_scaling"])
    assert opts.flag_threshold == 0.05


def test_a_test_from_the_command_line(tmp_path, capsys):
    data = write_data(tmp_path / "camvid")
    assert main(flags(data, tmp_path, total_itrs=1)) == 0
    (ckpt,) = (tmp_path / "checkpoints").glob("best_*.pth")
    argv = ["--test_only", "--ckpt", str(ckpt), "--data_root", str(data), "--run_name", "x"]
    argv += ["--metrics", "segmentation", "flagged", "--flag_threshold", "0.5"]
    argv += ["--confidence", "energy", "response_scaling", "msp", "--output_dir", str(tmp_path)]
    argv += ["--num_workers", "0"]
    capsys.readouterr()
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "Errors among the flagged pixels" in printed
    assert "by response_scaling" in printed
    content = json.loads((tmp_path / "results" / "x.json").read_text())
    found = content["results"]["total"]["flagged"]
    assert set(found) == {"response_scaling", "msp"}
    assert found["msp"]["share"] == 100  # one step leaves the network in doubt
    assert found["msp"]["inside"] == found["response_scaling"]["error_rate"]
    assert found["response_scaling"]["pixels"] == content["results"]["total"]["pixels"]
