"""The check of the data as an action."""

from __future__ import annotations

import sys
from argparse import Namespace

from datasets.statistics import check_data
from engine import build


def run_data_check(opts: Namespace) -> int:
    """Read every label of the training and the validation split and report."""
    reports = [check_data(build.data_set(opts, split, None)) for split in splits(opts)]
    sys.stdout.write("\n\n".join(map(str, reports)) + "\n")
    return int(any(report.problems for report in reports))


def splits(opts: Namespace) -> list[str]:
    """The training and the validation split, once where they are one."""
    return list(dict.fromkeys((opts.train_split, opts.val_split)))
