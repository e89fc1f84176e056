"""The single entry: parse the flags, check them, do the one thing they ask for."""

from __future__ import annotations

import sys

from engine.cam_making import run_cam_making
from engine.catalogue import list_choices
from engine.checks import chosen_actions
from engine.data_check import run_data_check
from engine.fitting import run_fit_calibrator
from engine.mask_making import run_mask_making
from engine.prediction import run_prediction
from engine.pseudo_labels import run_pseudo_label_making
from engine.pseudo_mask_making import run_pseudo_mask_making
from engine.reporting import run_report
from engine.response_weights import run_response_weight_making
from engine.run import FinishedRun, draw_seed
from engine.score_fitting import run_fit_score
from engine.testing import run_test
from engine.training import run_training
from options import parse
from utils.distributed import process_group
from utils.log import logger, setup_logging

ACTIONS = {
    "train": run_training,
    "test_only": run_test,
    "predict": run_prediction,
    "make_uncertainty_masks": run_mask_making,
    "make_pseudo_labels": run_pseudo_label_making,
    "make_cams": run_cam_making,
    "make_pseudo_masks": run_pseudo_mask_making,
    "make_response_weights": run_response_weight_making,
    "fit_calibrator": run_fit_calibrator,
    "fit_score": run_fit_score,
    "report": run_report,
    "check_data": run_data_check,
    "list": list_choices,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    opts = parse(argv)
    setup_logging()
    try:
        with process_group():
            draw_seed(opts)
            return ACTIONS[next(iter(chosen_actions(opts)), "train")](opts)
    except FinishedRun as finished:
        logger.info("%s", finished)
        return 0
    except (ValueError, OSError) as error:
        if opts.traceback:
            raise
        logger.error("%s", last_cause(error))
        return 1


def last_cause(error: Exception) -> str:
    """The message of an error; of one that a loader process sent, what follows its traceback."""
    text = str(error)
    if "DataLoader worker" not in text:
        return text
    start = text.rfind(f"\n{type(error).__name__}: ")
    return text[start + len(type(error).__name__) + 3 :].strip()


if __name__ == "__main__":
    sys.exit(main())
