"""Runs of a few steps on six images a split, for tests of the whole program."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from engine import checkpoint

ROOT = Path(__file__).parents[1]
SIZE = (40, 56)


def write_data(root):
    """Six images a split in CamVid's layout; the colour of a pixel tells its class."""
    rng = np.random.default_rng(0)
    for split, sequence in (("train", "0006R0"), ("val", "0016E5"), ("test", "Seq05VD")):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in range(6):
            label = np.kron(rng.integers(0, 12, (5, 7)), np.ones((8, 8))).astype(np.uint8)
            image = np.stack([label * 20, 255 - label * 20, rng.integers(0, 255, SIZE)], 2)
            stem = (
                f"{sequence}_{number:05d}" if sequence == "Seq05VD" else f"{sequence}_f{number:05d}"
            )
            cv2.imwrite(str(root / split / f"{stem}.png"), image.astype(np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / f"{stem}.png"), label)
    return root


def flags(data, out, **changes):
    """A short training run; None drops a flag, True is a switch."""
    values = {
        "dataset": "camvid",
        "data_root": data,
        "output_dir": out,
        "pretrained_backbone": "none",
        "crop_size": "40x56",
        "batch_size": 2,
        "val_batch_size": 3,
        "total_itrs": 6,
        "val_interval": 3,
        "print_interval": 1,
        "num_workers": 0,
        "color_jitter": 0.3,
        **changes,
    }
    argv = []
    for name, value in values.items():
        if value is True:
            argv.append(f"--{name}")
        elif value is not None:
            argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return argv


def weights(path):
    return checkpoint.read(path)["model_state"]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def run(argv, **options):
    """The program in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *options.pop("prefix", ["main.py"]), *argv],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


KILLED_WHILE_SAVING = """
import os, signal, sys, torch
original, saves = torch.save, []
def save(content, file):
    saves.append(file)
    if len(saves) == {}:
        file.write(b"half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    original(content, file)
torch.save = save
sys.argv[0] = "main.py"
from main import main
from tests.small_runs import SIZE, assert_same, flags, weights, write_data
sys.exit(main())
"""


def killed_while_saving(number):
    """The program, killed while it writes that file of tensors."""
    return KILLED_WHILE_SAVING.format(number)
