"""Scripts of experiments run with a stand-in for the interpreter, and their commands read."""

import os
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch

from engine.checkpoint import plain
from options import parse

INSTEAD_OF_TRAINING = (
    *("test_only", "report", "fit_score", "make_pseudo_labels"),
    *("make_cams", "make_pseudo_masks", "make_response_weights"),
)
MADE = {  # the folder that an action fills
    "make_pseudo_masks": "pseudo_dir",
    "make_response_weights": "weight_dir",
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
SCRIPTS = Path(__file__).parents[2] / "scripts"
OF_THE_SYSTEM = ("PATH", "HOME", "TMPDIR")  # no setting of a script comes in from outside


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script, such as ``abet/camvid.sh``, with these settings alone."""
    kept = {name: os.environ[name] for name in OF_THE_SYSTEM if name in os.environ}
    return subprocess.run(
        [str(SCRIPTS / script)],
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def commands(folder: Path, script: str, **environment: str) -> list[list[str]]:
    """The commands of a script, written down instead of run: all arguments of the interpreter.

    Args:
        folder: for the stand-in and its log; OUT is ``folder/out``.
        script: see ``run``.
        environment: settings.
    """
    python, log = folder / "python.sh", folder / "commands.txt"
    python.write_text(f'#!/usr/bin/env bash\nprintf "%q " "$@" >>{log}\necho >>{log}\n')
    python.chmod(0o755)
    log.unlink(missing_ok=True)
    done = run(script, PYTHON=str(python), OUT=str(folder / "out"), **environment)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in log.read_text().splitlines()]


class Rehearsal:
    """The commands of a script as the program reads them, one after the other.

    Attributes:
        read: their flags.
    """

    def __init__(self, folder: Path, script: str, **environment: str) -> None:
        lines = commands(folder, script, **environment)
        assert {line[0] for line in lines} == {"main.py"}
        self.read = [self.play(line[1:]) for line in lines]

    @staticmethod
    def play(argv: list[str]) -> Namespace:
        """Read a command, and leave what others need of it: checkpoints, statistics, folders."""
        opts = parse(argv)
        for action, folder in MADE.items():
            if getattr(opts, action):
                getattr(opts, folder).mkdir(parents=True, exist_ok=True)
        if opts.fit_score:
            (opts.output_dir / f"checkpoints/score_statistics_{opts.run_name}.pth").touch()
        elif trains(opts):
            (opts.output_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
            content = {"model_state": {"weight": torch.zeros(1)}, "opts": plain(opts)}
            for kind in ("best", "latest"):
                torch.save(content, opts.output_dir / f"checkpoints/{kind}_{opts.run_name}.pth")
        return opts

    def trainings(self) -> dict[str, Namespace]:
        """By the name of the run."""
        return {one.run_name: one for one in self.read if trains(one)}

    def tests(self) -> dict[str, Namespace]:
        """By the name of the result."""
        return {one.run_name: one for one in self.read if one.test_only}


def trains(opts: Namespace) -> bool:
    """Whether a command is a training."""
    return not any(getattr(opts, name) for name in INSTEAD_OF_TRAINING)
