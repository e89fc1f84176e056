"""Averaged weights by hand, deployed and resumed; runs that end early or do not validate."""

import pytest
import torch
from torch import nn

import engine.train
from engine import checkpoint
from engine.averaging import WeightAverage
from engine.train import train
from tests.engine.test_train import assert_same, fresh, trainer, weights
from tests.engine.toys import batches, options


@pytest.fixture(autouse=True)
def _images_as_they_are(monkeypatch):
    monkeypatch.setattr(engine.train, "prepare", lambda batch, *_, **__: batch)


def test_the_average_by_hand():
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    average = WeightAverage(network, 0.5)
    expected = network[0].weight.detach().clone()
    for step, decay in ((1, 0.1), (2, 2 / 11), (3, 0.25), (20, 0.5)):
        with torch.no_grad():
            network[0].weight.add_(step)
        network[1].num_batches_tracked += 1
        average.update(step)
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
        torch.testing.assert_close(average.state["0.weight"], expected)
    assert average.state["1.num_batches_tracked"] == 4


def test_the_average_is_in_the_network_inside_and_gone_after():
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.9)
    first = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.mul_(3)
    weight = network.weight
    with average.deployed() as trained:
        assert torch.equal(network.weight, first)
        assert torch.equal(trained["weight"], 3 * first)
        assert network.weight is weight, "optimizers keep their parameters"
    assert torch.equal(network.weight, 3 * first)
    assert torch.equal(average.state["weight"], first)


def test_an_average_changes_no_step_and_is_what_is_deployed(tmp_path):
    plain, averaged = fresh(options()), fresh(options(ema=0.9))
    train(plain, batches(), trainer(tmp_path / "plain", options()))
    work = trainer(tmp_path / "ema", options(ema=0.9))
    train(averaged, batches(), work)
    assert_same(weights(plain), weights(averaged))
    content = checkpoint.read(work.run.checkpoint("latest"))
    painter = averaged.method.painter
    assert torch.equal(content["trained_state"]["weight"], painter.weight)
    assert torch.equal(content["model_state"]["weight"], averaged.average.state["weight"])
    assert not torch.equal(content["model_state"]["weight"], painter.weight)


def test_validation_sees_the_average(tmp_path):
    opts = options(ema=0.9)
    training = fresh(opts)
    work = trainer(tmp_path, opts)
    seen = []
    validate = work.validate
    work.validate = lambda: (seen.append(training.method.painter.weight.clone()), validate())[1]
    train(training, batches(), work)
    assert torch.equal(seen[-1], training.average.state["weight"])
    assert not torch.equal(seen[-1], training.method.painter.weight)


def test_an_average_goes_on_bit_for_bit(tmp_path):
    opts = options(ema=0.9)
    whole = fresh(opts)
    train(whole, batches(), trainer(tmp_path / "whole", opts))
    short = options(ema=0.9, stop_itrs=3)
    train(fresh(short), batches(), trainer(tmp_path / "parts", short))
    work = trainer(tmp_path / "parts", opts, scores=(20.0,), resume_step=3)
    path = work.run.checkpoint("latest")
    resumed = fresh(opts)
    checkpoint.resume(checkpoint.read(path), path, resumed)
    train(resumed, batches(start=3), work)
    assert_same(weights(whole), weights(resumed))
    assert_same(whole.average.state, resumed.average.state)


def test_a_run_that_stops_early_has_the_rates_of_the_long_one(tmp_path):
    opts = options(stop_itrs=4)
    training = fresh(opts)
    work = trainer(tmp_path, opts)
    train(training, batches(), work)
    assert training.step == 4
    (rate,) = {schedule.get_last_lr()[0] for schedule in [training.schedules["painter"]]}
    assert rate == pytest.approx(0.1 * (1 - 4 / 6) ** 0.9)
    content = checkpoint.read(work.run.checkpoint("latest"))
    assert checkpoint.finished(content, opts)
    assert not checkpoint.finished(content, options())


def test_without_held_out_images_the_latest_is_kept_and_nothing_is_best(tmp_path):
    opts = options()
    training = fresh(opts)
    work = trainer(tmp_path, opts)
    work.validate = None
    train(training, batches(), work)
    assert checkpoint.read(work.run.checkpoint("latest"))["cur_itrs"] == 6
    assert not work.run.checkpoint("best").exists()
