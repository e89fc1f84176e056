"""The check of the data as an action."""

from __future__ import annotations

import sys
from argparse import Namespace

from datasets.damage_report import report_damage
from datasets.statistics import check_data
from engine import build
from engine.training_data import damage_of


def run_data_check(opts: Namespace) -> int:
    """Read every label of the training and the validation split and report.

    With ``--label_damage`` also what it does to the labels of the training split.
    """
    reports = [check_data(build.data_set(opts, split, None)) for split in splits(opts)]
    texts = list(map(str, reports))
    broken = any(report.problems for report in reports)
    damage = damage_of(opts)
    if damage is not None and not broken:
        texts.append(str(report_damage(build.data_set(opts, opts.train_split, None), damage)))
    sys.stdout.write("\n\n".join(texts) + "\n")
    return int(broken)


def splits(opts: Namespace) -> list[str]:
    """The training and the validation split, once where they are one."""
    return list(dict.fromkeys((opts.train_split, opts.val_split)))
