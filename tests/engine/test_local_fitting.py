"""``--fit_calibrator local`` on a small network: the split, the run, its restart and its end."""

import copy
import os
import signal
from argparse import Namespace

import pytest
import torch
from torch import nn

import engine.train
from engine import checkpoint, local_fitting
from engine.local_fitting import Subset, fit_local, run_flags, split_images
from engine.trained import Source, Trained
from methods import Method
from options import build_parser
from tests.datasets.toys import Toy
from uncertainty.calibrators import LocalTemperature
from utils.log import logger, read_metrics
from utils.types import Prediction

SIZES = ((10, 12),) * 9 + ((8, 16),) * 4


class Confident(Method):
    """A network that is right more often than not, and far too sure of it."""

    def __init__(self):
        super().__init__(Namespace(), 3)
        generator = torch.Generator().manual_seed(0)
        self.network = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.normal_(std=4, generator=generator)

    def predict(self, images, needs=frozenset()):
        return Prediction(self.network(images))

    def deployable(self):
        return self.network


def trained():
    return Trained(Confident(), ("a", "b", "c"), torch.zeros(3, 3), (Source("toy", None, None),))


def flags(out, **changes):
    """The flags of a short fit, with the method's own defaults."""
    parser, _ = build_parser()
    parser.set_defaults(**local_fitting.LocalTemperatureScaling.defaults)
    opts = parser.parse_args(
        [
            *("--output_dir", str(out), "--num_workers", "0", "--lts_epochs", "3"),
            *("--external", "toy", "--fit_calibrator", "local", "--print_interval", "1"),
            *("--val_batch_size", "2"),
        ]
    )
    opts.method, opts.typed = "local_temperature", frozenset(changes)
    return Namespace(**{**vars(opts), "lr": 3e-4, **changes})


@pytest.fixture(autouse=True)
def _network_is_named_toy(monkeypatch):
    monkeypatch.setattr(local_fitting, "network_hash", lambda *_: "0123456789")


def fit(out, **changes):
    return fit_local(flags(out, **changes), Toy(sizes=SIZES), trained())


def head(calibrator):
    return calibrator.head.state_dict()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_split_is_drawn_by_seed_and_complete():
    dataset = Toy(sizes=SIZES)
    train, held_out = split_images(dataset, images=500, share=0.2, seed=1)
    assert (len(train), len(held_out)) == (10, 3)
    assert sorted(train.indices + held_out.indices) == list(range(13))
    assert split_images(dataset, images=500, share=0.2, seed=1).train.indices == train.indices
    assert split_images(dataset, images=500, share=0.2, seed=2).train.indices != train.indices
    fewer = split_images(dataset, images=8, share=0.2, seed=1)
    assert (len(fewer.train), len(fewer.validation)) == (6, 2)


def test_a_split_without_training_images_is_refused():
    with pytest.raises(ValueError, match="13 images of toy and --lts_validation_share 1"):
        split_images(Toy(sizes=SIZES), images=500, share=1.0, seed=1)


def test_a_subset_gives_the_samples_of_the_whole():
    whole = Toy(sizes=SIZES)
    part = Subset(whole, [11, 2])
    assert [item.id for item in part.items] == ["item11", "item2"]
    assert (len(part), part.size(0), part.classes) == (2, (8, 16), whole.classes)
    for index, place in enumerate((11, 2)):
        ours, theirs = part[index], whole[place]
        assert ours["id"] == theirs["id"]
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(part.read(index)[1], whole.read(place)[1])


@pytest.mark.parametrize(
    ("images", "expected"), [(400, (1000, 10, 31)), (186, (460, 10, 14)), (10, (20, 2, 4))]
)
def test_steps_validations_and_patience_are_the_published_ones(tmp_path, images, expected):
    opts = run_flags(flags(tmp_path, lts_epochs=10), images, "hash")
    assert (opts.total_itrs, opts.val_interval, opts.patience) == expected
    typed = run_flags(flags(tmp_path, patience=7), images, "hash")
    assert typed.patience == 7


def test_a_fit_lowers_the_likelihood_and_leaves_the_network_alone(tmp_path):
    network = trained()
    before = copy.deepcopy(network.method.state_dict())
    opts = flags(tmp_path)
    calibrator, found = fit_local(opts, Toy(sizes=SIZES), network)
    assert_same(network.method.state_dict(), before)
    assert isinstance(calibrator, LocalTemperature)
    assert found["nll_after"] < found["nll_before"]
    assert found["nll_after"] <= found["nll_final"]
    assert (found["images_trained_on"], found["images_held_out"]) == (10, 3)
    assert found["steps"] == 6
    assert opts.ckpt is None

    name = "toy_local_temperature_on_toy_val_seed1"
    assert found["run"] == name
    content = checkpoint.read(tmp_path / "checkpoints" / f"best_{name}.pth")
    assert content["best_score"] == pytest.approx(found["nll_after"], rel=1e-6)
    assert content["cur_itrs"] == found["best_step"]
    assert_same(head(calibrator), content["model_state"])
    records = read_metrics(tmp_path / "runs" / name / "metrics.jsonl")
    scores = {r["step"]: r["nll"] for r in records if r["kind"] == "val"}
    assert list(scores) == [0, 2, 4, 6]
    assert min(scores.values()) == content["best_score"]
    assert min(scores.values()) < scores[0]
    assert (tmp_path / "runs" / name / "curves.png").is_file()


def test_the_same_seed_gives_the_same_head_and_another_seed_another(tmp_path):
    one, other, third = (
        head(fit(tmp_path / name, random_seed=seed)[0])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert_same(one, other)
    assert not torch.equal(one["maps.weight"], third["maps.weight"])


def test_a_limit_of_the_store_changes_nothing(tmp_path):
    assert_same(head(fit(tmp_path / "a")[0]), head(fit(tmp_path / "b", lts_cache_gb=0.0)[0]))


def test_stopped_and_continued_equals_undisturbed(tmp_path, monkeypatch):
    whole, found = fit(tmp_path / "whole")

    def seed_and_kill(seed, step, original=engine.train.seed_step):
        original(seed, step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(engine.train, "seed_step", seed_and_kill)
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path / "cut")
    assert stop.value.code == 128 + signal.SIGTERM
    with pytest.raises(ValueError, match="go on with --continue_training"):
        fit(tmp_path / "cut")
    again, found_again = fit(tmp_path / "cut", continue_training=True)
    assert_same(head(again), head(whole))
    assert found_again == found


def test_a_finished_fit_says_so_and_returns_the_calibrator(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger=logger.name)
    first, found = fit(tmp_path)
    monkeypatch.setattr(engine.train, "train", None)  # nothing is trained again
    again, found_again = fit(tmp_path)
    assert "is finished" in caplog.text
    assert_same(head(again), head(first))
    assert found_again == found


def test_patience_ends_a_fit(tmp_path):
    calibrator, found = fit(tmp_path, lr=0.0, lts_epochs=9)
    assert found["steps"] == 8  # 10 images: every 2 steps, 4 validations without improvement
    assert found["best_step"] == 0
    assert_same(head(calibrator), {k: torch.zeros_like(v) for k, v in head(calibrator).items()})
    again, found_again = fit(tmp_path, lr=0.0, lts_epochs=9, continue_training=True)
    assert found_again == found
    assert_same(head(again), head(calibrator))


def test_another_network_under_the_same_name_is_refused(tmp_path, monkeypatch):
    fit(tmp_path)
    monkeypatch.setattr(local_fitting, "network_hash", lambda *_: "9876543210")
    with pytest.raises(ValueError, match=r"network_sha256 9876543210 \(there 0123456789\)"):
        fit(tmp_path)
    fit(tmp_path, overwrite=True)


def test_too_few_images_for_a_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one step takes 4 images, the training split has 3"):
        fit_local(flags(tmp_path), Toy(sizes=SIZES[:4]), trained())


def test_the_calibrator_is_the_best_head_on_predictions(tmp_path):
    calibrator, _ = fit(tmp_path)
    logits, images = torch.randn(1, 3, 10, 12), torch.randn(1, 3, 10, 12)
    ours = calibrator(Prediction(logits), images).logits
    assert torch.equal(ours.argmax(1), logits.argmax(1))
    assert not torch.allclose(ours, logits)
