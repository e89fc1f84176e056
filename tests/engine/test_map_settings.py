from argparse import Namespace
from types import SimpleNamespace

import pytest

from datasets.pseudo_labels import LABELS
from datasets.response_weights import ResponseWeights
from engine.map_settings import note_settings

MADE = {
    "decoder": {"name": "crf", "crf": {"iterations": 10}},
    "scales": [0.15, 6],
    "reduce": "max",
    "normalize": "image",
    "checkpoints": [{"file": "seed1.pth"}],
    "flags": {"eval_flip": True, "sliding_window": None, "eval_crf": False, "random_seed": 7},
}


def noted(manifest, kind=ResponseWeights.kind):
    opts = Namespace(weight_dir="made")
    note_settings(opts, SimpleNamespace(kind=kind, manifest=manifest))
    return vars(opts)


def test_settings_are_noted_after_the_folders_flag():
    assert noted(MADE) == {
        "weight_dir": "made",
        "weight_dir decoder": "crf",
        "weight_dir scales": [0.15, 6],
        "weight_dir reduce": "max",
        "weight_dir normalize": "image",
        "weight_dir eval_flip": True,
    }


def test_of_pseudo_labels_threshold_and_flags():
    manifest = {"threshold": 0.0, "flags": {"background_power": 1.0, "crf_iterations": 10}}
    assert noted(manifest, LABELS) == {
        "weight_dir": "made",
        "pseudo_dir threshold": 0.0,
        "pseudo_dir background_power": 1.0,
        "pseudo_dir crf_iterations": 10,
    }


@pytest.mark.parametrize("manifest", [None, {}])
def test_a_folder_that_does_not_say_leaves_the_flags(manifest):
    assert noted(manifest) == {"weight_dir": "made"}
