"""A run with AbeT's sampling and schedule is interrupted and goes on as if it had not been.

Twenty fine images hold classes 0 to 11, the coarse ones add 14, 15, 16 and 17. An epoch draws one
centroid of each class that there is and one image at random: 17 images, so 4 steps of 4. From
epoch 1 on the coarse images are left out, and 13 images give 3 steps, so that the sampler's epochs
are 0-3, 4-6, 7-9 while rate and relaxation go by those of 4 steps.
"""

import json
import os
import signal
import subprocess
import sys
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

import engine.train
import engine.training
from datasets.taxonomy import ROAD_LABEL_IDS
from engine import checkpoint
from engine.training_data import count_epochs, epoch_order, training_data
from main import main
from options import parse
from tests.small_runs import ROOT, SIZE, assert_same
from utils.log import read_metrics

FINE, COARSE = range(12), (14, 15, 16, 17)
STEPS = 10
LR = 0.01
INTERRUPTED = (1, 3, 4, 7)  # within an epoch, at its end, in a shorter one and at its end
NAME = "abet"


def write_pair(root, split, kind, number, train_ids):
    """An image in blocks of the classes, whose colours tell them."""
    city = "aachen" if split == "train" else split
    rng = np.random.default_rng([number, len(split)])
    classes = rng.choice(list(train_ids), (5, 7))
    label = np.kron(np.array(ROAD_LABEL_IDS)[classes], np.ones((8, 8))).astype(np.uint8)
    image = np.stack([label * 7, 255 - label * 7, rng.integers(0, 255, SIZE)], 2).astype(np.uint8)
    for folder, ending, content in (
        ("leftImg8bit", "leftImg8bit", image),
        (kind, f"{kind}_labelIds", label),
    ):
        path = root / folder / split / city / f"{city}_000000_{number:06d}_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), content)


@pytest.fixture(scope="module")
def data(new_folder):
    root = new_folder("cityscapes")
    for number in range(20):
        write_pair(root, "train", "gtFine", number, FINE)
    for number in range(4):
        write_pair(root, "train_extra", "gtCoarse", number, COARSE)
    write_pair(root, "val", "gtFine", 0, FINE)
    return root


def command(data, out, *more):
    return [
        *("--dataset", "cityscapes", "--data_root", data, "--output_dir", out),
        *("--head", "cosine", "--temperature", "learned", "--pretrained_backbone", "none"),
        *("--loss_type", "relaxed_boundary", "--strict_bdr_cls", "5,6", "--rlx_off_epoch", 1),
        *("--lr_policy", "scl_poly", "--lr", LR, "--optimizer", "sgd", "--rescale", 0.5),
        *("--train_transform", "scale_crop", "--crop_size", "40x40", "--flip", 0.5),
        *("--color_jitter", 0.25, "--blur", "gaussian", "--hue_jitter", 0.25),
        *("--class_uniform_pct", 1, "--coarse_boost_classes", "14,15,16,17", "--max_cu_epoch", 1),
        *("--batch_size", 4, "--total_itrs", STEPS, "--val_interval", STEPS),
        *("--print_interval", 1, "--num_workers", 0, "--run_name", NAME, *more),
    ]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def noted():
    """The names of the images of every step that was trained, in the order of the steps."""
    seen = []
    prepare = engine.train.prepare

    def noting(batch, *arguments, **options):
        seen.append(batch["id"])
        return prepare(batch, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.train, "prepare", noting)
        yield seen


@pytest.fixture(scope="module")
def whole(data, new_folder, noted):
    """The uninterrupted run: its folder and the names of the images of each step."""
    out = new_folder("whole")
    noted.clear()
    assert run(*command(data, out)) == 0
    return out, list(noted)


def state(out):
    return checkpoint.read(out / "checkpoints" / f"latest_{NAME}.pth")


def trained(out, but=("images_per_second", "time")):
    """What was logged in training, without what the clock says."""
    lines = read_metrics(out / "runs" / NAME / "metrics.jsonl")
    return [
        {name: value for name, value in line.items() if name not in but}
        for line in lines
        if line["kind"] == "train"
    ]


def test_rate_and_relaxation_follow_the_epochs(whole):
    """Base rate until the restart at epoch 1, then by (1 - (e - 1) / (3 - 1))^1.5 of its half."""
    out, _ = whole
    rates = [line["lr"] for line in trained(out)]  # after each step: those of the next
    by_epoch = [LR, 0.5 * LR, 0.5 * LR * 0.5**1.5]
    assert rates == pytest.approx([by_epoch[(step + 1) // 4] for step in range(STEPS)], rel=1e-12)
    assert state(out)["opts"]["epoch_itrs"] == 4


def test_coarse_images_boost_until_their_last_epoch(whole):
    out, seen = whole
    of_coarse = [sum(name.startswith("train_extra") for name in names) for names in seen]
    assert len(seen) == STEPS
    assert sum(of_coarse[:4]) in (3, 4)  # all four in an epoch of 17, whose last image is left out
    assert sum(of_coarse[4:]) == 0
    files = [path.name for path in (out / "runs" / "class_statistics").glob("*_centroids_*.npz")]
    assert sorted(name.split("_centroids_1024_")[0] for name in files) == [
        "cityscapes_train",
        "cityscapes_train_extra",
    ]


def test_an_interrupted_run_goes_on_bit_for_bit(data, whole, noted, tmp_path, monkeypatch):
    """Stopped by a signal after four of its steps, each time by a process that starts anew."""
    out, seen = whole
    seed_step = engine.train.seed_step
    asked = set()

    def seed_and_interrupt(seed, step):
        seed_step(seed, step)
        if step in INTERRUPTED and step not in asked:
            asked.add(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine.train, "seed_step", seed_and_interrupt)
    noted.clear()
    more = ()
    for step in INTERRUPTED:
        torch.manual_seed(step)  # what is left of a former process must not matter
        assert run(*command(data, tmp_path, *more)) == 128 + signal.SIGTERM
        assert state(tmp_path)["cur_itrs"] == step + 1
        more = ("--continue_training",)
    assert run(*command(data, tmp_path, *more)) == 0
    assert noted == seen
    assert trained(tmp_path) == trained(out)
    one, other = state(out), state(tmp_path)
    assert_same(one["model_state"], other["model_state"])
    assert one["scheduler_state"] == other["scheduler_state"]
    assert one["best_score"] == other["best_score"]
    momenta, others = (s["optimizer_state"] for s in (one, other))
    assert momenta["param_groups"] == others["param_groups"]
    assert len(momenta["state"]) > 100
    for number, values in momenta["state"].items():
        assert torch.equal(values["momentum_buffer"], others["state"][number]["momentum_buffer"])


def share_of(rank, argv):
    """Steps of an epoch and the names of the images of ten steps that one of two processes sees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.training, "rank", lambda: rank)
        patch.setattr(engine.training, "world_size", lambda: 2)
        opts = parse(argv)
        dataset = training_data(opts)
        order = epoch_order(opts, dataset, opts.output_dir / "statistics")
        count_epochs(opts, order)
        data = engine.training.RunData(dataset, None, order=order)
        batches = engine.training.batches_from(0, data, opts)
        return opts.epoch_itrs, [batch["id"] for batch in islice(batches, STEPS)]


OTHER = """
import json, sys
from tests.test_abet_resume import share_of
print(json.dumps(share_of(1, sys.argv[1:])))
"""


def test_two_processes_share_the_steps_of_one(data, whole, tmp_path):
    """The other has other hashes and other generators, and measures the centroids itself."""
    argv = [str(argument) for argument in command(data, tmp_path)]
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    torch.manual_seed(99)
    epoch_itrs, mine = share_of(0, [*argv, "--output_dir", str(tmp_path / "mine")])
    its_epoch_itrs, others = json.loads(other.communicate(timeout=60)[0])
    assert epoch_itrs == its_epoch_itrs == 4
    assert [first + second for first, second in zip(mine, others, strict=True)] == whole[1]
