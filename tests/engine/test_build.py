"""What is evaluated: the middle of images at one size, as if they had been cut so by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine.build import build_predictor, evaluation_data
from main import main
from methods.ensemble import Ensemble
from methods.supervised import Supervised
from options import parse
from tests.small_runs import flags
from utils.log import read_metrics

CENTRE = (34, 40)
SIZES = ((40, 60), (40, 36), (34, 40), (68, 50))  # wide, narrow, as it is, tall
VOID = 255
PADDING = (124, 116, 104)  # the mean of ImageNet, which becomes nearly 0


def write(root, split, number, image, label):
    for folder, content in ((split, image), (f"{split}annot", label)):
        path = root / folder / f"0016E5_f{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(path)


def cut_by_hand(image, resample, padding):
    """By Pillow: scaled to the height, then the middle of the width, padded on both sides."""
    height, width = CENTRE
    scaled = round(image.shape[1] * height / image.shape[0])
    whole = np.asarray(Image.fromarray(image).resize((scaled, height), resample))
    if scaled >= width:
        left = (scaled - width) // 2
        return whole[:, left : left + width]
    out = np.empty((height, width, *image.shape[2:]), np.uint8)
    out[:] = padding
    left = (width - scaled) // 2
    out[:, left : left + scaled] = whole
    return out


@pytest.fixture(scope="module")
def data(new_folder):
    """The same images as they are and cut by hand, in CamVid's layout; id 11 is unknown."""
    native, cut = (new_folder(name) for name in ("native", "cut"))
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        blocks = rng.integers(0, 12, (-(-size[0] // 8), -(-size[1] // 8)))
        label = np.kron(blocks, np.ones((8, 8)))[: size[0], : size[1]].astype(np.uint8)
        image = np.stack([label * 20, 255 - label * 20, 100 + label], 2).astype(np.uint8)
        for split in ("train", "val"):
            write(native, split, number, image, label)
        image = cut_by_hand(image, Image.Resampling.BILINEAR, PADDING)
        write(cut, "val", number, image, cut_by_hand(label, Image.Resampling.NEAREST, VOID))
    return native, cut


@pytest.fixture(scope="module")
def trained(data, new_folder):
    out = new_folder("out")
    more = {"eval_centre": "34x40", "run_name": "net", "total_itrs": 2, "val_interval": 2}
    assert main(flags(data[0], out, **more)) == 0
    return out


def results(data, out, name, *arguments):
    argv = [
        *("--test_only", "--ckpt", out / "checkpoints" / "latest_net.pth", "--data_root", data),
        *("--output_dir", out, "--num_workers", 0, "--run_name", name, "--overwrite"),
        *("--metrics", "segmentation", "ood", "components", "--ood_classes", "11", *arguments),
    ]
    assert main([str(argument) for argument in argv]) == 0
    return json.loads((out / "results" / f"{name}.json").read_text())


def test_images_labels_and_unknown_objects_are_those_cut_by_hand(data):
    argv = ["--dataset", "camvid", "--test_only", "--external", "torch.nn:Identity"]
    argv += ["--metrics", "ood", "--ood_classes", "11"]
    native, cut = (
        evaluation_data(parse([*argv, "--data_root", str(root), *more]))
        for root, more in ((data[0], ("--eval_centre", "34x40")), (data[1], ()))
    )
    assert len(native) == len(cut) == len(SIZES)
    for index in range(len(native)):
        ours, theirs = native[index], cut[index]
        assert ours["image"].shape == (3, *CENTRE)
        assert (ours["image"].int() - theirs["image"].int()).abs().max() <= 1
        assert torch.equal(ours["label"], theirs["label"])
        assert torch.equal(ours["ood"], theirs["ood"])
        assert native.size(index) == CENTRE
    assert {value for index in range(4) for value in cut[index]["ood"].unique().tolist()} == {
        0,
        1,
        255,
    }


def test_results_of_the_middle_are_those_of_images_cut_by_hand(data, trained):
    """Resampling may round a value otherwise, which moves no more than a few pixels."""
    middle = results(data[0], trained, "middle")
    by_hand = results(data[1], trained, "by_hand", "--eval_centre", "34x40")
    assert middle["opts"]["eval_centre"] == list(CENTRE), "taken over from the checkpoint"
    one, other = (content["results"]["total"] for content in (middle, by_hand))
    assert one["pixels"] == other["pixels"]
    assert one["miou"] == pytest.approx(other["miou"], abs=0.01)
    for name, ours in one["ood"].items():
        theirs = other["ood"][name]
        assert ours["ood_pixels"] == theirs["ood_pixels"] > 0
        assert ours["auroc"] == pytest.approx(theirs["auroc"], abs=0.1)
        components = (one["components"][name], other["components"][name])
        assert components[0]["gt_components"] == components[1]["gt_components"] > 0


def test_validation_in_training_sees_the_same_middle(data, trained):
    (validated,) = (
        line for line in read_metrics(trained / "runs/net/metrics.jsonl") if line["kind"] == "val"
    )
    tested = results(data[0], trained, "again")["results"]["total"]
    assert validated["miou"] == pytest.approx(tested["miou"], abs=1e-9)


def test_a_predictor_upsamples_as_its_networks_do():
    opts = parse(["--pretrained_backbone", "none", "--crop_size", "40x56", "--upsample", "probs"])
    method = Supervised(opts, 5)
    assert not build_predictor(opts, method).align_corners
    method.network.align_corners = True
    assert build_predictor(opts, method).align_corners


def test_members_that_upsample_in_different_ways_are_refused():
    member = ("--member", "deeplabv3plus_mobilenet")
    opts = parse(["--pretrained_backbone", "none", "--crop_size", "40x56", *member, *member,
                  "--model", "ensemble"])  # fmt: skip
    method = Ensemble(opts, 5)
    method.network.members[0].align_corners = True
    build_predictor(opts, method)
    opts.upsample = "probs"
    with pytest.raises(ValueError, match="only some align corners: leave the flag out"):
        build_predictor(opts, method)


def test_the_flags_of_heads_reach_the_predictor():
    flags = ["--fuse_heads", "probs", "--fuse_weight_aux", "0.25", "--aux_head"]
    opts = parse(["--pretrained_backbone", "none", *flags])
    method = Supervised(opts, 3).eval()
    images = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = build_predictor(opts, method)(images).logits
        output = method.network(images)
    mean = (output.logits.softmax(1) + output.aux_logits.softmax(1) / 4) / 1.25
    torch.testing.assert_close(found.exp(), mean)
