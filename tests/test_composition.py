"""Every training method with every head, one calibrator, every score and every metric, tiny.

One table says what a method needs beside the flags of all; nothing else differs between the runs.
"""

import json
import math
from itertools import product

import pytest

from main import main
from methods import METHODS
from metrics import METRICS
from tests.small_runs import flags, write_data
from uncertainty.score_functions import KINDS, MEMBERS
from utils.types import HEADS

CLASS_HEADS = {
    "linear": {},
    "cosine": {"head": "cosine"},
    "temperature": {"head": "cosine", "temperature": "learned"},
}
# What a method reads beside images and labels; "data" and "labels" are folders of the fixture.
TRAINED = {
    "supervised": {},
    "ensemble": {"model": "ensemble", "num_models": 2, "backbone": "mobilenet"},
    "mrnet": {
        **{"aux_head": True, "mr_start": 0},
        **{"target_dataset": "camvid", "target_root": "data", "target_split": "test"},
    },
    "rectified": {"aux_head": True, "pseudo_dir": "labels"},
    "cam": {"model": "cam_mobilenet", "image_tags": "masks"},
}
FOLDERS = ("target_root", "pseudo_dir")
LINEAR_ONLY = {"cam"}  # the maps of a classifier have one form
RUNS = [
    (method, head)
    for method, head in product(TRAINED, CLASS_HEADS)
    if head == "linear" or method not in LINEAR_ONLY
]


def readable(method, head):
    """The scores that a prediction of such a network allows."""
    has = {"logits"}
    if head == "temperature":
        has |= {"temperature"}
    if method == "ensemble":
        has |= MEMBERS | ({"member_temperatures"} if head == "temperature" else set())
    if "aux_head" in TRAINED[method]:
        has |= HEADS
    return [name for name, kind in KINDS.items() if not kind.statistics and kind.needs <= has]


@pytest.fixture(scope="module")
def folder(new_folder):
    """Data, and pseudo labels of its training images."""
    folder = new_folder("composition")
    write_data(folder / "data")
    first = flags(folder / "data", folder, total_itrs=1, val_split="none", run_name="first")
    assert main(first) == 0
    made = ["--make_pseudo_labels", "--ckpt", folder / "checkpoints/latest_first.pth",
            "--pseudo_dir", folder / "labels", "--num_workers", 0]  # fmt: skip
    assert main(list(map(str, made))) == 0
    return folder


def test_the_table_has_every_method_that_trains_a_network():
    assert set(TRAINED) == {name for name, kind in METHODS.items() if kind.trains_network}


@pytest.mark.parametrize(("method", "head"), RUNS)
def test_a_method_with_a_head_is_calibrated_and_judged_by_every_metric(
    folder, tmp_path, method, head
):
    name = f"{method}_{head}"
    own = {k: folder / v if k in FOLDERS else v for k, v in TRAINED[method].items()}
    shared = {"method": method, "total_itrs": 2, "val_split": "none", "run_name": name}
    assert main(flags(folder / "data", tmp_path, **shared, **own, **CLASS_HEADS[head])) == 0

    used = ["--ckpt", tmp_path / f"checkpoints/latest_{name}.pth", "--run_name", name,
            "--output_dir", tmp_path, "--num_workers", 0, "--eval_flip", "--fuse", "logits",
            "--data_root", folder / "data"]  # fmt: skip
    fitted = ["--fit_calibrator", "temperature", "--samples_per_image", -1, "--val_split", "val"]
    assert main(list(map(str, [*fitted, *used]))) == 0

    scores = readable(method, head)
    metrics = [metric for metric in METRICS if metric != "image_ood"]  # below: it compares looks
    tested = ["--test_only", "--val_split", "test", "--metrics", *metrics,
              "--calibrator", tmp_path / f"checkpoints/calibrator_{name}.pth",
              "--confidence", *scores, "--ood_score", *scores, "--ood_classes", 11]  # fmt: skip
    assert main(list(map(str, [*tested, *used]))) == 0
    content = json.loads((tmp_path / f"results/{name}.json").read_text())
    assert content["calibrator"]["kind"] == "temperature"
    total = content["results"]["total"]
    assert math.isfinite(total["miou"])
    assert math.isfinite(total["calibration"]["ece"])
    for metric in ("misclassification", "pavpu", "ood", "components"):
        assert set(total[metric]) == set(scores), metric
    assert total["meta_classification"].keys() >= {"segments", "missed"}

    known = f"camvid,split=test,root={folder / 'data'}"
    parts = [known, f"{known},corruption=brightness:3"]
    across = ["--test_only", "--metrics", "image_ood", "--confidence", *scores, "--eval_on", *parts]
    assert main(list(map(str, [*used, "--run_name", f"{name}_across", *across]))) == 0
    assert "image_ood" in (tmp_path / f"results/{name}_across.json").read_text()
