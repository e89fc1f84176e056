"""From the command line to the first training step."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.first_step import FLAGS
from benchmarks.report import Row, Section, Settings, Table
from benchmarks.timing import interleave

PROJECT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "import torch, torchvision": ("-c", "import torch, torchvision"),
    "main.py --list models": ("main.py", "--list", "models"),
    "main.py --help": ("main.py", "--help"),
}

METHOD = f"""\
Seconds that pass, with files in the page cache. The commands run from start to end. The stages are
those of one process, each counted from its start: `python main.py {" ".join(FLAGS)}`,
which trains on the generated streets, up to the end of the first optimizer step. There is no
target."""


def run(settings: Settings) -> Section:
    """Whole commands, then the stages of a training run."""
    section = Section("Start-up", METHOD)
    repeats = 1 if settings.quick else settings.rounds(5)
    calls = {title: partial(python, *command) for title, command in COMMANDS.items()}
    samples = interleave(calls, repeats=repeats, warmup=0 if settings.quick else 1)
    commands: list[Row] = [
        {"command": title, "wall s": timed.wall_median} for title, timed in samples.items()
    ]
    traces = [first_step() for _ in range(repeats)]
    stages: list[Row] = [
        {"stage": stage, "wall s": statistics.median(trace[stage] for trace in traces)}
        for stage in traces[0]
    ]
    section.tables += [Table("Commands:", commands), Table("Stages:", stages)]
    return section


def python(*arguments: str) -> str:
    """Run Python in the project's folder and return what it prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def first_step() -> dict[str, float]:
    """Seconds from the command to each stage of a training run."""
    with tempfile.TemporaryDirectory() as folder:
        printed = python("-m", "benchmarks.first_step", str(time.time()), folder)
    return dict(json.loads(printed.splitlines()[-1]))
