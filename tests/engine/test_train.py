"""The train loop on a method with two optimizers: against steps written by hand, and in trouble."""

import copy
import json
import os
import signal
from contextlib import nullcontext
from functools import partial

import pytest
import torch

import engine.train
from datasets.taxonomy import SegClass
from engine import checkpoint
from engine.checkpoint import Training
from engine.run import Run
from engine.train import NonFiniteLossError, Stopped, Trainer, optimizer_step, start, train
from methods.base import Selection
from tests.engine.toys import Adversaries, batches, options
from utils.log import RunLog, logger, read_metrics
from utils.types import StepOutput

CPU = torch.device("cpu")
CLASSES = (SegClass("a", (1, 2, 3)), SegClass("b", (4, 5, 6)))


@pytest.fixture(autouse=True)
def _images_as_they_are(monkeypatch):
    monkeypatch.setattr(engine.train, "prepare", lambda batch, *_, **__: batch)


def trainer(folder, opts, scores=(10.0, 20.0), resume_step=None):
    run = Run("toy", folder)
    values = iter(scores)
    return Trainer(
        opts=opts,
        run=run,
        log=RunLog(run.folder, tensorboard=False, resume_step=resume_step),
        device=CPU,
        validate=lambda: {"total": {"miou": next(values), "class_accuracy": {"a": 1.0, "b": None}}},
        classes=CLASSES,
        sampler={},
    )


def fresh(opts) -> Training:
    torch.manual_seed(0)
    return start(Adversaries(opts), opts, CPU)


def weights(training):
    return {k: v.clone() for k, v in training.method.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_loop_equals_steps_written_by_hand(tmp_path):
    opts = options()
    training = fresh(opts)
    painter, critic = (
        copy.deepcopy(training.method.get_submodule(n)) for n in ("painter", "critic")
    )
    train(training, batches(), trainer(tmp_path, opts))

    paint = torch.optim.SGD(painter.parameters(), lr=0.1, momentum=0.9)
    judge = torch.optim.SGD(critic.parameters(), lr=0.05)
    stream = batches()
    for step in range(6):
        factor = (1 - step / 6) ** 0.9
        paint.param_groups[0]["lr"], judge.param_groups[0]["lr"] = 0.1 * factor, 0.05 * factor
        image = next(stream)["image"]
        frozen = copy.deepcopy(critic)
        output = painter(image)
        paint.zero_grad()
        (output.square().mean() + frozen(output).mean()).backward()
        if step % 2 == 0:
            judge.zero_grad()
            (critic(output.detach()) - 1).square().mean().backward()
            judge.step()
        paint.step()
    for ours, theirs in ((training.method.painter, painter), (training.method.critic, critic)):
        for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, yours)


def test_rates_follow_the_batch_only_on_request_and_say_so(caplog):
    caplog.set_level("INFO", logger=logger.name)
    opts = options(lr_batch_size=16, batch_size=4)
    training = fresh(opts)
    rates = {name: [g["lr"] for g in o.param_groups] for name, o in training.optimizers.items()}
    assert rates == {"painter": [0.1 / 4], "critic": [0.05 / 4]}
    assert training.schedules["painter"].base_lrs == [0.1 / 4]
    assert (
        "learning rates times 0.25: they are for batches of 16, and these are of 4" in caplog.text
    )
    caplog.clear()
    assert fresh(options(batch_size=4)).schedules["painter"].base_lrs == [0.1]
    assert "learning rates" not in caplog.text


def test_each_loss_reaches_its_own_optimizer_alone():
    method = fresh(options()).method
    out = method.training_step(next(batches()), 0)
    for name, others in (("painter", method.critic), ("critic", method.painter)):
        method.zero_grad()
        out.losses[name].backward(retain_graph=True)
        assert all(p.grad is None for p in others.parameters())


def test_accumulation_equals_the_whole_batch(tmp_path):
    class Mean(Adversaries):
        def training_step(self, batch, step):
            losses = {"painter": self.painter(batch["image"]).square().mean()}
            return StepOutput(losses, {})

    def halves():
        for batch in batches(4):
            yield {**batch, "image": batch["image"][:2], "id": batch["id"][:2]}
            yield {**batch, "image": batch["image"][2:], "id": batch["id"][2:]}

    ends = []
    for accumulate, stream in ((1, batches(4)), (2, halves())):
        opts = options(accumulate=accumulate)
        torch.manual_seed(0)
        training = start(Mean(opts), opts, CPU)
        train(training, stream, trainer(tmp_path / str(accumulate), opts))
        ends.append(training.method.painter.weight)
    torch.testing.assert_close(*ends)


def test_the_best_and_the_latest_are_kept_and_logged(tmp_path):
    opts = options()
    work = trainer(tmp_path, opts, scores=(20.0, 10.0))
    train(fresh(opts), batches(), work)
    best, latest = (checkpoint.read(work.run.checkpoint(kind)) for kind in ("best", "latest"))
    assert (best["cur_itrs"], latest["cur_itrs"]) == (3, 6)
    assert best["best_score"] == latest["best_score"] == 20.0
    assert best["classes"] == ["a", "b"]
    records = read_metrics(work.log.path)
    losses = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in losses] == [2, 3, 4, 6]
    assert {"loss", "loss_painter", "brightness", "lr_painter", "images_per_second"} <= losses[
        0
    ].keys()
    assert [r["miou"] for r in records if r["kind"] == "val"] == [20.0, 10.0]


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stopped_by_sigterm_and_continued_equals_undisturbed(tmp_path, monkeypatch, stop_at):
    opts = options()
    undisturbed = fresh(opts)
    train(undisturbed, batches(), trainer(tmp_path / "whole", opts))

    def seed_and_kill(seed, step, original=engine.train.seed_step):
        original(seed, step)
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopped = fresh(opts)
    work = trainer(tmp_path / "cut", opts)
    with monkeypatch.context() as patch:
        patch.setattr(engine.train, "seed_step", seed_and_kill)
        assert train(stopped, batches(), work) == Stopped(signal.SIGTERM)
    assert stopped.step == stop_at + 1
    assert signal.getsignal(signal.SIGTERM) is before

    torch.manual_seed(99)
    resumed = start(Adversaries(opts), opts, CPU)
    latest = work.run.checkpoint("latest")
    checkpoint.resume(checkpoint.read(latest), latest, resumed)
    assert resumed.step == stop_at + 1
    train(
        resumed,
        batches(start=resumed.step),
        trainer(
            tmp_path / "cut", opts, scores=(10.0, 20.0)[stop_at >= 3 :], resume_step=resumed.step
        ),
    )
    assert_same(weights(undisturbed), weights(resumed))
    assert resumed.method.seen == 24


def test_a_loss_that_is_not_finite_stops_at_the_print_with_the_ids(tmp_path):
    opts = options(print_interval=4, val_interval=100, total_itrs=100)
    training = fresh(opts)
    work = trainer(tmp_path, opts)
    with pytest.raises(NonFiniteLossError) as error:
        train(training, batches(bad_step=2), work)
    assert "at step 2 on images image2_0, image2_1" in str(error.value)
    assert "saved" in str(error.value)
    state = checkpoint.read(work.run.checkpoint("latest"))["model_state"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_masked_update_leaves_weights_and_momentum_as_they_were():
    opts = options()
    training = fresh(opts)
    stream = batches(bad_step=1)
    update = partial(engine.train.optimizer_step, training.method, training=training)
    update([next(stream)], amp=nullcontext())
    before = copy.deepcopy(
        [training.method.state_dict(), training.optimizers["painter"].state_dict()["state"]]
    )
    update([next(stream)], amp=nullcontext())
    after = [training.method.state_dict(), training.optimizers["painter"].state_dict()["state"]]
    for name in ("painter.weight", "painter.bias", "critic.weight"):
        assert torch.equal(before[0][name], after[0][name])
    for index, state in before[1].items():
        assert torch.equal(state["momentum_buffer"], after[1][index]["momentum_buffer"])


def test_without_a_finite_state_the_earlier_checkpoint_stays(tmp_path):
    class Explodes(Adversaries):
        def training_step(self, batch, step):
            if step == 4:
                with torch.no_grad():
                    self.painter.weight.fill_(float("inf"))
            return super().training_step(batch, step)

    opts = options(print_interval=1, total_itrs=50)
    training = start(Explodes(opts), opts, CPU)
    work = trainer(tmp_path, opts)
    with pytest.raises(NonFiniteLossError, match="holds the last finite state"):
        train(training, batches(), work)
    assert checkpoint.read(work.run.checkpoint("latest"))["cur_itrs"] == 3


def test_steps_are_seeded_by_their_number(tmp_path):
    class Noisy(Adversaries):
        draws: list[float]

        def training_step(self, batch, step):
            self.draws.append(torch.rand(()).item())
            return super().training_step(batch, step)

    seen = []
    for disturb in (0, 7):
        opts = options()
        training = start(Noisy(opts), opts, CPU)
        training.method.draws = []
        torch.manual_seed(disturb)
        train(training, batches(), trainer(tmp_path / str(disturb), opts))
        seen.append(training.method.draws)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 6


def test_metrics_lines_are_json(tmp_path):
    opts = options()
    work = trainer(tmp_path, opts)
    train(fresh(opts), batches(), work)
    for line in work.log.path.read_text().splitlines():
        assert {"step", "kind"} <= json.loads(line).keys()


class ByLikelihood(Adversaries):
    """The toy, whose best state is that of the lowest score."""

    selection = Selection("nll", "NLL", "{:.3f}", lambda _: None, higher=False, from_start=True)


def by_likelihood(folder, opts, scores, **changes):
    """A fresh run and a trainer whose validations give these scores."""
    values = iter(scores)
    work = trainer(folder, opts)
    work.validate = lambda: {"total": {"nll": next(values)}}
    for name, value in changes.items():
        setattr(work, name, value)
    torch.manual_seed(0)
    return start(ByLikelihood(opts), opts, CPU), work


def logged(work):
    return [(r["step"], r["nll"]) for r in read_metrics(work.log.path) if r["kind"] == "val"]


def test_the_lowest_score_is_the_best_where_the_method_says_so(tmp_path, caplog):
    caplog.set_level("INFO", logger=logger.name)
    training, work = by_likelihood(tmp_path, options(), (0.5, 0.3, 0.4))
    train(training, batches(), work)
    best, latest = (checkpoint.read(work.run.checkpoint(kind)) for kind in ("best", "latest"))
    assert (best["cur_itrs"], best["best_score"], best["stale"]) == (3, 0.3, 0)
    assert (latest["cur_itrs"], latest["best_score"], latest["stale"]) == (6, 0.3, 1)
    assert logged(work) == [(0, 0.5), (3, 0.3), (6, 0.4)]
    assert "val NLL 0.400  best 0.300" in caplog.text


def test_the_start_stays_the_best_where_nothing_is_better(tmp_path):
    training, work = by_likelihood(tmp_path, options(), (0.2, 0.3, None))
    untrained = weights(training)
    train(training, batches(), work)
    best = checkpoint.read(work.run.checkpoint("best"))
    assert (best["cur_itrs"], training.best_score, training.stale) == (0, 0.2, 2)
    for name, value in best["model_state"].items():
        assert torch.equal(value, untrained[f"painter.{name}"])


def test_patience_ends_a_run_and_counts_from_the_best(tmp_path, caplog):
    opts = options(total_itrs=50, val_interval=2, patience=2)
    caplog.set_level("INFO", logger=logger.name)
    training, work = by_likelihood(tmp_path, opts, (0.5, 0.6, 0.4, 0.4, 0.45))
    assert train(training, batches(), work) is None
    assert training.step == 8
    assert "stopped at step 8: no improvement in 2 validations" in caplog.text
    content = checkpoint.read(work.run.checkpoint("latest"))
    assert checkpoint.finished(content, opts)
    assert not checkpoint.finished(content, options(total_itrs=50, patience=3))
    assert not checkpoint.finished(content, options(total_itrs=50))
    assert checkpoint.finished(content, options(total_itrs=8))

    resumed, again = by_likelihood(tmp_path, opts, ())
    checkpoint.resume(content, work.run.checkpoint("latest"), resumed)
    assert train(resumed, batches(start=8), again) is None
    assert resumed.step == 8


def test_without_patience_a_run_goes_to_its_end(tmp_path):
    opts = options(total_itrs=8, val_interval=1)
    training, work = by_likelihood(tmp_path, opts, (0.5,) * 9)
    train(training, batches(), work)
    assert (training.step, training.stale) == (8, 8)


def test_patience_lasts_through_a_restart(tmp_path):
    opts = options(total_itrs=50, val_interval=2, patience=3)
    training, work = by_likelihood(tmp_path, opts, (0.5, 0.6))
    with pytest.raises(StopIteration):
        train(training, batches(), work)  # ends at the third validation, which has no score
    latest = work.run.checkpoint("latest")
    resumed, again = by_likelihood(tmp_path, opts, (0.7, 0.8))
    checkpoint.resume(checkpoint.read(latest), latest, resumed)
    assert (resumed.step, resumed.stale) == (2, 1)
    train(resumed, batches(start=2), again)
    assert (resumed.step, resumed.stale, resumed.best_score) == (6, 3, 0.5)


def test_an_epoch_ends_in_a_validation_and_starts_the_interval_anew(tmp_path):
    opts = options(total_itrs=11, val_interval=3)
    training, work = by_likelihood(tmp_path, opts, (0.5,) * 8, epoch=5)
    train(training, batches(), work)
    assert [step for step, _ in logged(work)] == [0, 3, 5, 8, 10, 11]


def test_what_is_logged_is_that_of_all_micro_batches():
    class Tempered(Adversaries):
        def training_step(self, batch, step):
            losses = {"painter": self.painter(batch["image"]).square().mean()}
            logs = dict.fromkeys(("t", "t_min", "t_max"), batch["t"])
            return StepOutput(losses, logs)

    opts = options(accumulate=2)
    training = start(Tempered(opts), opts, CPU)
    micro = [{**next(batches()), "t": torch.tensor(t)} for t in (0.1, 0.9)]
    logs = optimizer_step(training.method, micro, training, nullcontext()).logs
    found = {name: value.item() for name, value in logs.items()}
    assert found == pytest.approx({"t": 0.5, "t_min": 0.1, "t_max": 0.9})
