"""What training sees: transforms, masks, coarse labels, and the epochs that follow."""

import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.class_uniform import ClassUniform, find_centroids
from datasets.epochs import Permutations, epoch_of
from datasets.joined import Joined
from datasets.resize_crop import RandomResizeCrop
from datasets.streets import Streets
from datasets.transforms import RandomFlip
from engine.training_data import (
    count_epochs,
    epoch_order,
    random_transform,
    refuse_redrawn,
    training_data,
)
from main import main
from options import parse
from tests import small_runs
from tests.datasets import layouts
from tests.datasets.toys import Toy
from utils.types import IGNORE_INDEX


def flags(**changes):
    values = {
        "class_uniform_pct": 0.75,
        "class_uniform_tile": 4,
        "coarse_boost_classes": None,
        "max_cu_epoch": None,
        "random_seed": 3,
        "epoch_itrs": None,
        "epochs": None,
        "total_itrs": 7,
        "batch_size": 4,
    }
    return Namespace(**{**values, **changes})


class Partial(Toy):
    """A toy whose labels show only some of its classes."""

    def __init__(self, split, shown, **common):
        self.shown = shown
        super().__init__(split, **common)

    def read(self, index):
        image, label = super().read(index)
        shown = np.isin(label.numpy(), self.shown)
        label[~np.asarray(shown)] = IGNORE_INDEX
        return image, label


def fine_and_coarse():
    """Twelve images with classes 0 and 1, and twelve that add class 2."""
    coarse = Partial("val", (0, 1, 2))
    coarse.name = "coarse"
    return Partial("train", (0, 1)), coarse


def test_without_a_share_by_class_every_image_comes_once(tmp_path):
    order = epoch_order(flags(class_uniform_pct=0), Toy(), tmp_path)
    assert order == Permutations(12, 3)
    assert not list(tmp_path.iterdir())


def test_centroids_are_those_of_the_fine_labels_and_boosted_by_the_coarse(tmp_path):
    fine, coarse = fine_and_coarse()
    opts = flags(coarse_boost_classes=[2], max_cu_epoch=2)
    order = epoch_order(opts, Joined([fine, coarse]), tmp_path / "kept")
    measured = [find_centroids(part, 4, tmp_path / "again") for part in (fine, coarse)]
    expected = ClassUniform(
        12, measured[0], 0.75, 3, boost=measured[1], boost_classes=(2,), max_epoch=2
    )
    assert [order.keys(epoch) for epoch in range(4)] == [expected.keys(e) for e in range(4)]
    assert [order.length(epoch) for epoch in range(4)] == [12, 12, 9, 9]
    assert max(key.index for key in order.keys(0)) >= 12
    assert max(key.index for key in order.keys(2)) < 12
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 2


def test_a_class_without_fine_centroids_shortens_the_epoch_and_is_named(tmp_path, caplog):
    caplog.set_level("INFO")
    order = epoch_order(flags(), fine_and_coarse()[0], tmp_path)
    assert order.length(0) == len(order.keys(0)) == 9
    assert "3 images of each class in an epoch of 9; none shows c" in caplog.text


def test_a_class_to_boost_has_to_exist(tmp_path):
    opts = flags(coarse_boost_classes=[0, 3])
    with pytest.raises(ValueError, match="class 3 cannot be boosted: the train ids are 0 to 2"):
        epoch_order(opts, Joined(fine_and_coarse()), tmp_path)


@pytest.mark.parametrize(
    ("length", "changes", "epoch_itrs", "total_itrs"),
    [
        (12, {}, 3, 7),
        (13, {}, 3, 7),  # the incomplete step is left out
        (15, {"epochs": 5}, 3, 15),
        (3, {}, 1, 7),
        (12, {"epoch_itrs": 10}, 10, 7),
        (12, {"epoch_itrs": 10, "epochs": 2}, 10, 20),
    ],
)
def test_steps_of_an_epoch_and_of_a_run(length, changes, epoch_itrs, total_itrs):
    opts = flags(**changes)
    count_epochs(opts, Permutations(length))
    assert (opts.epoch_itrs, opts.total_itrs) == (epoch_itrs, total_itrs)


@pytest.mark.parametrize("batch_size", [2, 3, 4, 5])
def test_rate_and_sampling_reach_the_last_coarse_epoch_together(tmp_path, batch_size):
    """Both call it epoch M from step M times the steps of the first epoch on, not before."""
    opts = flags(coarse_boost_classes=[2], max_cu_epoch=3, batch_size=batch_size)
    order = epoch_order(opts, Joined(fine_and_coarse()), tmp_path)
    count_epochs(opts, order)
    first = 3 * opts.epoch_itrs
    for step in range(first + 1):
        assert epoch_of(step, order, batch_size) == divmod(step, opts.epoch_itrs)
    assert epoch_of(first, order, batch_size) == (3, 0)


@pytest.mark.parametrize("boost", [[0, 1], None])
def test_epochs_of_one_length_agree_for_ever(tmp_path, boost):
    """The coarse labels add centroids, but no class that the fine ones lack."""
    opts = flags(coarse_boost_classes=boost, max_cu_epoch=2)
    fine, coarse = fine_and_coarse()
    order = epoch_order(opts, Joined([fine, coarse]) if boost else fine, tmp_path)
    count_epochs(opts, order)
    for step in range(40):
        assert epoch_of(step, order, 4) == divmod(step, opts.epoch_itrs)


UNIFORM = ("--train_transform", "scale_crop", "--class_uniform_pct", "0.5")
MISTAKES = {
    ("--class_uniform_pct", "0.5"): "add --train_transform scale_crop",
    ("--class_uniform_tile", "64"): "--class_uniform_tile concerns class-uniform sampling",
    ("--coarse_boost_classes", "3"): "--coarse_boost_classes concerns class-uniform sampling",
    ("--max_cu_epoch", "3"): "--max_cu_epoch concerns class-uniform sampling",
    ("--scale_filter", "bicubic"): "--scale_filter is of --train_transform scale_crop",
    (*UNIFORM, "--coarse_boost_classes", "3"): "needs --dataset cityscapes; streets has none",
    (
        *(*UNIFORM, "--coarse_boost_classes", "3", "--dataset", "cityscapes", "--data_root", "."),
        *("--loss_type", "uncertainty_cross_entropy"),
    ): "--coarse_boost_classes adds images that have no uncertainty masks: leave it out",
    ("--epochs", "2", "--total_itrs", "9"): "both say how long to train; give one",
    ("--input_size", "64"): "--input_size is of --train_transform resize_crop, which is not chosen",
    ("--crop_classes", "4"): "--crop_classes is of --train_transform resize_crop",
    ("--autoaug",): "--autoaug is of --train_transform resize_crop",
    ("--train_transform", "resize_crop", "--crop_size", "90x80", "--input_size", "160x200"): (
        "a crop of 90x80 does not fit into the smallest resize, 80x100, which is 160x200 times 0.5"
    ),
    (*("--train_transform", "resize_crop"), "--crop_classes", "-1"): "--crop_classes",
    ("--class_uniform_pct", "1.5"): "1.5",
    ("--coarse_boost_classes", "3;4"): "--coarse_boost_classes",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        parse(list(arguments))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert MISTAKES[arguments] in said


def cityscapes(root, *more):
    crop = ("--train_transform", "scale_crop", "--crop_size", "40x40")
    return parse(["--dataset", "cityscapes", "--data_root", str(root), *crop, *more])


BOOST = ("--class_uniform_pct", "0.5", "--coarse_boost_classes", "14,15")


def test_coarse_images_follow_the_fine_ones_and_are_cut_alike(tmp_path):
    layouts.cityscapes(tmp_path)
    layouts.cityscapes(tmp_path, ("augsburg",), "train_extra")
    fine = tmp_path / "gtFine" / "train_extra" / "augsburg"
    coarse = tmp_path / "gtCoarse" / "train_extra" / "augsburg"
    coarse.parent.mkdir(parents=True)
    fine.rename(coarse)
    for path in list(coarse.iterdir()):
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    alone, joined = (training_data(cityscapes(tmp_path, *more)) for more in ((), BOOST))
    assert [item.scene for item in alone.items] == ["aachen"] * 2 + ["bonn"] * 2
    assert [item.scene for item in joined.items][4:] == ["augsburg"] * 2
    assert [part.split for part in joined.parts] == ["train", "train_extra"]
    assert joined.parts[0].transform == joined.parts[1].transform == alone.transform
    assert all(joined[index]["image"].shape == (3, 40, 40) for index in range(6))


def test_missing_coarse_labels_are_named_with_their_layout(tmp_path):
    layouts.cityscapes(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)train_extra.*gtCoarse/train_extra/augsburg"):
        training_data(cityscapes(tmp_path, *BOOST))


@pytest.mark.parametrize(("fold", "warned"), [("train_cv2", True), ("train_cv0", False)])
def test_folds_that_train_on_the_official_val_say_so(tmp_path, caplog, fold, warned):
    layouts.cityscapes(tmp_path, ("aachen", "bonn", "bremen"))
    layouts.cityscapes(tmp_path, ("frankfurt",), "val")
    training_data(cityscapes(tmp_path, "--train_split", fold, "--val_split", "val_cv0"))
    assert ("its mIoU is not comparable" in caplog.text) == warned


def test_the_flags_reach_the_resize_and_crop():
    opts = parse(
        [
            *("--train_transform", "resize_crop", "--input_size", "64x128", "--crop_size", "48x96"),
            *("--scale_range", "0.8", "1.2", "--crop_classes", "5", "--autoaug", "--flip", "0.25"),
        ]
    )
    transform = random_transform(opts)
    assert transform.size is None
    assert transform.random == (
        RandomResizeCrop((48, 96), (64, 128), (0.8, 1.2), crop_classes=5, autoaug=True),
        RandomFlip(0.25),
    )
    sample = training_data(opts)[0]
    assert sample["image"].shape == (3, 48, 96)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gta5", RandomResizeCrop((512, 1024), (720, 1280), (0.8, 1.2), crop_classes=10)),
        ("synthia", RandomResizeCrop((512, 1024), (720, 1280), (0.8, 1.2), crop_classes=10)),
        ("robotcar", RandomResizeCrop((512, 1024), (960, 1280), (0.8, 1.2), crop_classes=4)),
        ("cityscapes_robotcar", RandomResizeCrop((512, 1024), (720, 1280), (1.0, 1.0))),
    ],
)
def test_a_data_set_of_adaptation_is_cut_as_published(name, expected):
    opts = parse(["--dataset", name, "--data_root", "."])
    assert random_transform(opts).random == (expected, RandomFlip(0.5))


def test_a_crop_that_does_not_fit_stops_before_any_data_is_read(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--dataset", "gta5", "--data_root", "nowhere", "--crop_size", "577x1024"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "--crop_size" in said
    assert said.count("\n") == 1
    other = parse(
        ["--dataset", "gta5", "--data_root", "n", "--crop_size", "577x1024", "--check_data"]
    )
    assert other.input_size == (720, 1280)  # nothing is cut there


def of_class(seed, classes=(0, 1, 2, 10, 255)):
    return np.random.default_rng(seed).choice(np.asarray(classes, np.uint8), small_runs.SIZE)


def levels_of(seed):
    return of_class(seed, (255, 113, 28, 13, 12, 0))


@pytest.fixture
def made(tmp_path):
    """CamVid with label files, and folders of labels alone and of labels with weights."""
    root = small_runs.write_data(tmp_path)
    for index, path in enumerate(sorted((root / "train").iterdir())):
        layouts.write_label(root / "masks" / path.name, of_class(index))
        levels = levels_of(index)
        layouts.write_label(root / "weights" / path.name, of_class(index))
        layouts.write_label(root / "weights" / f"{path.stem}_weight.png", levels)
        published = root / "published" / path.name
        published.parent.mkdir(exist_ok=True)
        Image.fromarray(np.dstack([levels, levels, of_class(50 + index)])).save(published)
    return root


def seen(root, *more):
    """Labels and, where there are any, weights of all training images."""
    common = ("--dataset", "camvid", "--data_root", str(root), "--crop_size", "40x56")
    dataset = training_data(parse([*common, *map(str, more)]))
    samples = [dataset[index] for index in range(len(dataset))]
    weights = [sample["weight"].numpy() for sample in samples if "weight" in sample]
    return np.stack([sample["label"].numpy() for sample in samples]), weights


def test_labels_and_weights_come_from_the_weight_folder(made):
    own, _ = seen(made)
    shutil.rmtree(made / "trainannot")
    labels, weights = seen(made, "--weight_dir", made / "weights", "--flip", "0")
    np.testing.assert_array_equal(labels, [of_class(index) for index in range(6)])
    assert (labels != own).any()
    levels = np.stack([levels_of(index) for index in range(6)])
    np.testing.assert_array_equal(weights, np.where(levels <= 12, np.float32(0.05), 1))


def test_threshold_and_weighting_decide_the_weights(made):
    common = ("--weight_dir", made / "weights")
    levels = np.stack([levels_of(index) for index in range(6)])
    _, weights = seen(made, *common, "--weight_threshold", "0.2")
    np.testing.assert_array_equal(weights, np.where(levels <= 51, np.float32(0.2), 1))
    _, weights = seen(made, *common, "--weighting", "linear")
    np.testing.assert_allclose(weights, levels / 255, rtol=1e-6)


def test_the_published_form_is_imported_with_the_classes_of_the_data_set(made):
    labels, weights = seen(made, "--weight_dir", made / "published")
    np.testing.assert_array_equal(labels, [of_class(50 + index) for index in range(6)])
    levels = np.stack([levels_of(index) for index in range(6)])
    np.testing.assert_array_equal(weights, np.where(levels <= 12, np.float32(0.05), 1))


@pytest.mark.parametrize("folder", ["weights", "published"])
def test_original_labels_are_weighed_on_request(made, folder):
    own, none = seen(made)
    assert none == []
    _, expected = seen(made, "--weight_dir", made / folder)
    original = ("--weight_dir", made / folder, "--label_source", "original")
    labels, weights = seen(made, *original)
    np.testing.assert_array_equal(labels, own)
    np.testing.assert_array_equal(weights, expected)
    labels, weights = seen(made, *original, "--pseudo_dir", made / "masks")
    np.testing.assert_array_equal(labels, [of_class(index) for index in range(6)])
    np.testing.assert_array_equal(weights, expected)


MEMBERS = ("--model", "ensemble", "--member", "deeplabv3plus_mobilenet", "--member",
           "deeplabv3plus_mobilenet", "--loss_type", "cross_entropy")  # fmt: skip


@pytest.mark.parametrize("method", [(), MEMBERS])
def test_pseudo_labels_take_the_place_of_the_labels_for_any_method(made, method):
    shutil.rmtree(made / "trainannot")
    labels, weights = seen(made, "--pseudo_dir", made / "masks", *method)
    np.testing.assert_array_equal(labels, [of_class(index) for index in range(6)])
    assert weights == []


def spoil(root, how):
    """Damage the folder of weights; what an error has to name."""
    path = root / "weights" / sorted((root / "train").iterdir())[2].name
    weight = path.with_name(f"{path.stem}_weight.png")
    if how == "label":
        path.unlink()
        return f"1 of 6 response weights are missing from {path.parent}, the first is {path.name}"
    if how == "weight":
        weight.unlink()
        return f"{weight} does not exist"
    if how == "size":
        layouts.write_label(path, np.zeros((2, 3)))
        layouts.write_label(weight, np.zeros((2, 3)))
        return f"{path} has 2x3 pixels, training sees 40x56"
    layouts.write_label(path, np.full(small_runs.SIZE, 11))
    return f"{path} holds the value 11, which is none of the 11 classes"


@pytest.mark.parametrize("how", ["label", "weight", "size", "value"])
def test_a_bad_file_stops_the_run_before_any_step(made, caplog, how):
    said = spoil(made, how)
    flags = small_runs.flags(made, made, weight_dir=made / "weights", val_split="none")
    assert main(flags) == 1
    assert said in caplog.records[-1].getMessage()
    assert not (made / "checkpoints").exists()


def test_a_threshold_of_1_trains_as_without_weights_and_a_lower_one_otherwise(made):
    """Short runs on the same labels, by the two ways to name them."""
    common = {"val_split": "none", "total_itrs": 1, "loss_normalize": "all"}
    changes = {
        "plain": {"pseudo_dir": made / "masks"},
        "one": {"weight_dir": made / "weights", "weight_threshold": 1},
        "low": {"weight_dir": made / "weights"},
    }
    states = {}
    for name, change in changes.items():
        assert main(small_runs.flags(made, made, run_name=name, **common, **change)) == 0
        states[name] = small_runs.weights(made / f"checkpoints/latest_{name}.pth")
    small_runs.assert_same(states["one"], states["plain"])
    key = "classifier.classifier.3.weight"
    assert not torch.equal(states["low"][key], states["plain"][key])


def test_scenes_that_are_drawn_at_another_size_than_their_weights_are_refused():
    dataset = Streets(None, "train", num_images=1, image_size=(32, 64))
    weights = Namespace(directory="w", inspect=lambda item: (16, 32))
    with pytest.raises(ValueError, match="weights in w have 16x32 pixels.*drawn with 32x64"):
        refuse_redrawn(dataset, weights)
    weights.inspect = lambda item: (32, 64)
    refuse_redrawn(dataset, weights)
