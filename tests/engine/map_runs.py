"""Runs that make maps of CamVid's layout: few images without labels, a network nobody trained."""

import json
import shutil

import torch
from torch import nn

from datasets.map_folders import MANIFEST
from network import build_model
from tests.datasets import layouts

MODEL = "deeplabv3plus_mobilenet"


def write_bare_images(root):
    """Five training images of two sizes, without any label file."""
    root = layouts.camvid(root, train=5)
    for folder in root.glob("*annot"):
        shutil.rmtree(folder)
    for index, path in enumerate(sorted((root / "train").iterdir())):
        layouts.write_image(path, (32, 40) if index < 3 else (24, 48), seed=index)
    return root


def save_network(file, classes, *, spread):
    """A small network of some classes, whose last weights deviate by ``spread``."""
    torch.manual_seed(1)
    network = build_model(MODEL, len(classes), pretrained_backbone="none")
    nn.init.normal_(network.classifier.classifier[-1].weight, std=spread)
    content = {
        "model_state": network.state_dict(),
        "classes": [entry.name for entry in classes],
        "colours": [list(entry.colour) for entry in classes],
    }
    torch.save(content, file)
    return file


def passes(data, weights):
    """The flags of what the network sees: two scales, mirrored images too."""
    return [
        *("--ckpt", str(weights), "--dataset", "camvid", "--data_root", str(data)),
        *("--val_batch_size", "2", "--num_workers", "0", "--eval_flip"),
        *("--eval_scales", "1", "1.25"),
    ]


def contents(directory):
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def manifest_of(directory):
    """What a folder says of itself."""
    return json.loads((directory / MANIFEST).read_text())
