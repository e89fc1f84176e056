"""Runs of the stages about class activation maps: few images, a network of few weights."""

import json
import shutil
from argparse import Namespace

import torch

from datasets.map_folders import MANIFEST
from datasets.tags import MASKS
from datasets.taxonomy import CAMVID, names_of, palette_of
from engine.trained import Trained
from methods.cam import Cam
from options import parse
from tests.datasets import layouts
from tests.engine.map_runs import manifest_of
from tests.network.cam_toy import cam_network

SIZES = ((24, 40),) * 3 + ((32, 28),) * 3


def write_images(root):
    """Six training images of two sizes in CamVid's layout, with labels of three classes."""
    root = layouts.camvid(root)
    for index, path in enumerate(sorted((root / "train").iterdir())):
        layouts.write_image(path, SIZES[index], seed=index)
        label = root / "trainannot" / path.name
        ids = (index % 3, 3 + index % 2, 11)
        layouts.write_label(label, layouts.striped(ids, SIZES[index]))
    return root


def options(root, *argv, **values):
    """The flags of a run; ``typed`` has those of ``argv``."""
    common = ["--dataset", "camvid", "--data_root", str(root), "--num_workers", "0"]
    opts = parse([*common, "--val_batch_size", "2", *argv])
    added = {"crf_workers": 2, "make_cams": True, "make_pseudo_masks": True, "image_tags": MASKS}
    return Namespace(**{**vars(opts), **added, **values})


def use_network(monkeypatch, *, network=None, classes=CAMVID):
    """What ``--ckpt`` holds."""
    torch.manual_seed(0)
    network = network or cam_network(len(classes), background=None)
    with torch.no_grad():
        network.classifier.weight.mul_(8)  # maps that differ from place to place

    def trained(opts, of_data):
        flags = parse(["--method", "cam", "--image_tags", MASKS, "--pretrained_backbone", "none"])
        method = Cam(flags, len(classes), network)
        return Trained(method.eval(), names_of(classes), palette_of(classes), ())

    monkeypatch.setattr("engine.map_making.trained_method", trained)


def stop_half_way(directory, done):
    """A copy of a finished folder as a kill during the work leaves it: with a few files."""
    names = sorted(path.name for path in directory.iterdir() if path.name != MANIFEST)
    half = directory.with_name(f"{directory.name}_half")
    half.mkdir()
    for name in names[:done]:
        shutil.copy(directory / name, half / name)
    (half / f".{names[done]}.77.tmp").write_bytes(b"half a file")
    manifest = {**manifest_of(directory), "complete": False}
    for summary in ("pixels", "rejected"):
        manifest.pop(summary, None)
    (half / MANIFEST).write_text(json.dumps(manifest))
    return half
