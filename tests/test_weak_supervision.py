"""From the command line through weak supervision: from tags alone to a second segmentation."""

import json
import os
import shutil
import signal
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import engine.train
from datasets.cams import CamReader
from datasets.label_files import decode_label
from datasets.map_folders import MANIFEST
from datasets.pseudo_labels import PseudoLabels
from datasets.response_weights import ResponseWeights
from datasets.streets import write_layout
from datasets.taxonomy import VOC as CLASSES
from datasets.voc import VOC
from engine.run import file_hash
from main import main
from scripts import mask_sheet
from tests import small_runs
from utils.log import read_metrics

SIZE = (48, 80)
SMALL = ("--pretrained_backbone", "none", "--batch_size", "2", "--crop_size", "48x48",
         "--val_interval", "9", "--print_interval", "1", "--optimizer", "sgd", "--val_split",
         "none")  # fmt: skip
CLASSIFIER = (*SMALL, "--train_transform", "long_side_crop", "--long_side", "64", "96",
              "--cam_view_scale", "0.5", "--cam_frozen_stages", "0", "--cam_norm", "trained",
              "--bn_momentum", "0.5", "--lr", "0.01", "--total_itrs", "8")  # fmt: skip
SEGMENTER = (*SMALL, "--train_transform", "fit_crop", "--flip", "0.5", "--lr", "0.01",
             "--backbone_lr_factor", "1", "--lr_policy", "poly_floor", "--lr_floor", "0.001",
             "--bn_momentum", "0.5", "--loss_normalize", "all")  # fmt: skip
FIRST = (*SEGMENTER, "--total_itrs", "8", "--underfit", "clamp")
SECOND = (*SEGMENTER, "--total_itrs", "4")
TAGS = ("--image_tags", "xml")


def run(*arguments):
    return main([str(argument) for argument in arguments])


def data(folder):
    """The images whose labels were deleted, as the published lists name them."""
    return ("--dataset", "voc", "--year", "2012_aug", "--data_root", folder / "voc",
            "--num_workers", 0)  # fmt: skip


def train(folder, name, *arguments, out=None):
    return run(*arguments, *data(folder), "--output_dir", out or folder, "--run_name", name)


def checkpoint(folder, name):
    return folder / "checkpoints" / f"latest_{name}.pth"


def state(folder, name):
    return torch.load(checkpoint(folder, name), weights_only=True)


def losses(folder, name):
    lines = read_metrics(folder / "runs" / name / "metrics.jsonl")
    return [line["loss"] for line in lines if line["kind"] == "train"]


def same_weights(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def make_weights(folder, directory, *more):
    return run("--make_response_weights", "--ckpt", checkpoint(folder, "first"), *data(folder),
               "--weight_dir", directory, "--response_decoder", "argmax", "--restrict_to_tags",
               *TAGS, "--eval_flip", *more)  # fmt: skip


@pytest.fixture(scope="module")
def folder(new_folder):
    """Every stage; the training images have annotations and no label file, ``clean`` has them."""
    folder = new_folder("weak")
    write_layout("voc_objects", folder / "voc", images_per_split=4, size=SIZE)
    shutil.copytree(folder / "voc", folder / "clean")
    for item in VOC(folder / "clean", "train").items:
        (folder / "voc" / item.label.relative_to(folder / "clean")).unlink()
    assert train(folder, "cam", "--method", "cam", *CLASSIFIER, *TAGS) == 0
    assert run("--make_cams", "--ckpt", checkpoint(folder, "cam"), *data(folder), *TAGS,
               "--cam_inference", "multi_scale", "--cam_dir", folder / "cams") == 0  # fmt: skip
    assert run("--make_pseudo_masks", *data(folder), "--cam_dir", folder / "cams",
               "--pseudo_dir", folder / "masks", "--crf_iterations", "2") == 0  # fmt: skip
    assert train(folder, "first", *FIRST, "--pseudo_dir", folder / "masks") == 0
    assert make_weights(folder, folder / "weights") == 0
    for weighting in ("threshold", "linear"):
        own = ("--weight_dir", folder / "weights", "--weighting", weighting)
        assert train(folder, weighting, *SECOND, *own) == 0
        assert train(folder, f"{weighting}_original", *SECOND, *own, "--label_source", "original",
                     "--pseudo_dir", folder / "masks") == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def images(folder):
    return VOC(folder / "voc", "train", year="2012_aug", labelled=False)


@pytest.fixture(scope="module")
def tags(images):
    """Train ids of the classes in each annotation, by the image's id."""
    places = {entry.name: index for index, entry in enumerate(CLASSES)}
    found = {}
    for item in images.items:
        path = item.image.parents[1] / "Annotations" / f"{item.id}.xml"
        found[item.id] = {places[one.text] for one in ElementTree.parse(path).iter("name")}
    assert any(found.values())
    return found


def test_each_stage_keeps_to_the_tags(folder, images, tags):
    cams, masks = CamReader(folder / "cams"), PseudoLabels(folder / "masks")
    weights = ResponseWeights(folder / "weights", threshold=0.05)
    for reader in (cams, masks, weights):
        reader.check(images)
    for item in images.items:
        classes, maps = cams(item)
        assert set(classes.tolist()) == tags[item.id]
        assert maps.shape[1:] == SIZE
        if len(maps):
            assert maps.amax() > 0.9
        for label in (masks(item), weights.label(item)):
            assert label.shape == SIZE
            assert set(label.unique().tolist()) <= {0, *tags[item.id]}


def test_crops_are_chosen_by_heat_maps_that_fit_the_tags(folder, tmp_path, tags, capsys, caplog):
    heat = tmp_path / "heat"
    assert run("--make_cams", "--ckpt", checkpoint(folder, "cam"), *data(folder), *TAGS,
               "--cam_crf_iterations", "2", "--cam_dir", heat) == 0  # fmt: skip
    crops = ("--method", "cam", *SMALL, "--train_transform", "multi_crop", "--cam_dir", heat,
             "--cam_view_scale", "0.5", "--cam_frozen_stages", "0", "--cam_norm", "trained",
             "--lr", "0.01", "--total_itrs", "3")  # fmt: skip
    assert train(folder, "crops", *crops, *TAGS, out=tmp_path) == 0
    assert np.isfinite(losses(tmp_path, "crops")).all()
    names = [entry.name for entry in CLASSES]
    absent = next(name for name in names[1:] if names.index(name) not in tags[min(tags)])
    other = tmp_path / "tags.csv"
    other.write_text("".join(f"{image},{absent}\n" for image in tags))
    said = refused(capsys, caplog, *crops, *data(folder), "--image_tags", other, "--output_dir",
                   tmp_path / "never")  # fmt: skip
    assert f"{min(tags)}_cam.npz has no map of {absent}" in said
    assert not list((tmp_path / "never").rglob("*.pth"))


def test_manifests_say_what_each_stage_was_made_of(folder):
    cams, masks, weights = (
        json.loads((folder / name / MANIFEST).read_text()) for name in ("cams", "masks", "weights")
    )
    assert all(manifest["complete"] for manifest in (cams, masks, weights))
    assert cams["tags"] == weights["tags"]
    assert cams["checkpoints"][0]["sha256"] == file_hash(checkpoint(folder, "cam"))
    assert weights["checkpoints"][0]["sha256"] == file_hash(checkpoint(folder, "first"))
    assert (masks["scores"], weights["decoder"]) == (False, {"name": "argmax"})
    assert {"0", "255"} <= weights["levels"].keys() <= {"0", "28", "63", "95", "113", "255"}


def test_weights_and_labels_change_the_second_training(folder):
    names = ("threshold", "linear", "threshold_original", "linear_original")
    trained = [state(folder, name)["model_state"] for name in names]
    for index, one in enumerate(trained):
        assert not any(same_weights(one, other) for other in trained[:index])
    first = [losses(folder, name)[0] for name in names]
    assert len(set(first)) == len(names)


def test_a_threshold_of_1_is_training_on_cyclic_masks_alone(folder, tmp_path):
    """Check 6 of the specification; the masks without weights are what PMM trains on."""
    shutil.copytree(folder / "weights", tmp_path / "cyclic",
                    ignore=shutil.ignore_patterns(MANIFEST, "*_weight.png"))  # fmt: skip
    short = (*SECOND, "--stop_itrs", 2)
    assert train(folder, "all", *short, "--weight_dir", folder / "weights",
                 "--weight_threshold", 1, out=tmp_path) == 0  # fmt: skip
    assert train(folder, "none", *short, "--pseudo_dir", tmp_path / "cyclic", out=tmp_path) == 0
    assert losses(tmp_path, "all") == pytest.approx(losses(tmp_path, "none"), rel=1e-5)
    assert losses(tmp_path, "all")[0] > losses(folder, "threshold")[0]


def test_the_second_network_is_judged_and_its_doubt_too(folder):
    assert run("--test_only", "--ckpt", checkpoint(folder, "threshold"), *data(folder),
               "--val_split", "val", "--metrics", "segmentation", "misclassification", "flagged",
               "--confidence", "response_scaling", "msp", "--output_dir", folder, "--run_name",
               "second") == 0  # fmt: skip
    total = json.loads((folder / "results/second.json").read_text())["results"]["total"]
    labels = [np.asarray(Image.open(item.label)) for item in VOC(folder / "voc", "val").items]
    assert total["pixels"] == sum(np.count_nonzero(label != 255) for label in labels)
    assert (
        total["misclassification"].keys()
        == total["flagged"].keys()
        == {*("msp", "response_scaling")}
    )
    flagged = total["flagged"]["response_scaling"]
    assert flagged["share"] > 0
    share = flagged["share"] / 100
    errors = share * flagged["inside"] + (1 - share) * flagged["outside"]
    assert errors == pytest.approx(flagged["error_rate"])
    assert errors == pytest.approx(100 - total["overall_accuracy"])


def test_pseudo_masks_are_measured_against_clean_labels(folder, images):
    assert run("--test_only", "--logits_dir", folder / "masks", "--dataset", "voc", "--data_root",
               folder / "clean", "--val_split", "train", "--output_dir", folder, "--run_name",
               "masks", "--num_workers", 0) == 0  # fmt: skip
    total = json.loads((folder / "results/masks.json").read_text())["results"]["total"]
    reader, right, labelled = PseudoLabels(folder / "masks"), 0, 0
    for item in VOC(folder / "clean", "train").items:
        label = np.asarray(Image.open(item.label))
        right += np.count_nonzero(reader(item).numpy() == label)
        labelled += np.count_nonzero(label != 255)
    assert total["overall_accuracy"] == pytest.approx(100 * right / labelled)


def test_a_sheet_shows_all_stages(folder, tmp_path, monkeypatch):
    """Beside the labels, which lie in another folder with the same images."""
    stages = ("--cam_dir", folder / "cams", "--pseudo_dir", folder / "masks", "--weight_dir",
              folder / "weights", "--labels")  # fmt: skip
    argv = ("mask_sheet", tmp_path / "sheet.png", "--dataset", "voc", "--data_root",
            folder / "clean", *stages, "--images", "*1", "*3", "--tile_width", 100)  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(one) for one in argv])
    assert mask_sheet.main() == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 6 * 100
        assert sheet.height > 2 * 60


def own_masks(folder, directory):
    """The same masks as another program would leave them: palette PNGs and no manifest."""
    directory.mkdir()
    for path in sorted((folder / "masks").glob("*.png")):
        mask = Image.fromarray(decode_label(path.read_bytes()))
        mask.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
        mask.save(directory / path.name)
    return directory


def test_masks_of_the_user_train_the_same_network(folder, tmp_path, caplog):
    masks = own_masks(folder, tmp_path / "masks")
    assert train(folder, "first", *FIRST, "--pseudo_dir", masks, out=tmp_path) == 0
    assert f"the labels in {masks} have no {MANIFEST}" in caplog.text
    assert same_weights(
        state(tmp_path, "first")["model_state"], state(folder, "first")["model_state"]
    )


def test_published_images_of_three_channels_train_the_same_network(folder, images, tmp_path):
    reader = ResponseWeights(folder / "weights", threshold=0.05)
    published = tmp_path / "published"
    published.mkdir()
    for item in images.items:
        levels = reader.levels(item)
        channels = np.dstack([levels, levels, reader.label(item).numpy()])
        Image.fromarray(channels).save(published / f"{item.id}.png")
    assert train(folder, "second", *SECOND, "--weight_dir", published, out=tmp_path) == 0
    assert same_weights(
        state(tmp_path, "second")["model_state"], state(folder, "threshold")["model_state"]
    )


def test_an_interrupted_second_training_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    """Stopped by a signal in its second step; what is left of that process must not matter."""
    seed_step = engine.train.seed_step
    asked = []

    def seed_and_interrupt(seed, step):
        seed_step(seed, step)
        if step == 1 and not asked:
            asked.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine.train, "seed_step", seed_and_interrupt)
    command = (*SECOND, "--weight_dir", folder / "weights", "--weighting", "linear")
    assert train(folder, "linear", *command, out=tmp_path) == 128 + signal.SIGTERM
    stopped = state(tmp_path, "linear")
    assert stopped["cur_itrs"] == 2
    assert stopped["opts"]["weight_dir decoder"] == "argmax"
    torch.manual_seed(99)
    assert train(folder, "linear", *command, "--continue_training", out=tmp_path) == 0
    parts, whole = state(tmp_path, "linear"), state(folder, "linear")
    assert same_weights(parts["model_state"], whole["model_state"])
    assert parts["scheduler_state"] == whole["scheduler_state"]
    momenta = [content["optimizer_state"]["state"] for content in (parts, whole)]
    assert len(momenta[0]) == len(momenta[1]) > 100
    for number, values in momenta[0].items():
        assert torch.equal(values["momentum_buffer"], momenta[1][number]["momentum_buffer"])
    assert losses(tmp_path, "linear") == losses(folder, "linear")


def by_two_processes(*arguments):
    prefix = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "main.py"]
    process = small_runs.run([str(argument) for argument in arguments], prefix=prefix)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_two_processes_make_the_same_maps(folder, images, tmp_path):
    by_two_processes("--make_cams", "--ckpt", checkpoint(folder, "cam"), *data(folder), *TAGS,
                     "--cam_dir", tmp_path)  # fmt: skip
    found, expected = CamReader(tmp_path), CamReader(folder / "cams")
    assert found.manifest["complete"]
    for item in images.items:
        classes, maps = found(item)
        own_classes, own_maps = expected(item)
        assert classes.tolist() == own_classes.tolist()
        torch.testing.assert_close(maps, own_maps, atol=2e-3, rtol=0)  # float16, other batches


def test_two_processes_make_the_same_masks(folder, images, tmp_path):
    by_two_processes("--make_pseudo_masks", *data(folder), "--cam_dir", folder / "cams",
                     "--pseudo_dir", tmp_path, "--crf_iterations", "2")  # fmt: skip
    names = {f"{item.id}.png" for item in images.items}
    assert {path.name for path in tmp_path.iterdir()} == names | {MANIFEST}
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / "masks" / name).read_bytes()
    assert json.loads((tmp_path / MANIFEST).read_text())["complete"]


def test_weights_made_again_are_the_same_bytes(folder, tmp_path):
    """Half of them are there when the making starts; another number of threads decodes."""
    again = tmp_path / "weights"
    shutil.copytree(folder / "weights", again)
    manifest = json.loads((again / MANIFEST).read_text())
    (again / MANIFEST).write_text(json.dumps({**manifest, "complete": False}))
    for path in sorted(again.glob("*_weight.png"))[1:3]:
        path.unlink()
    assert make_weights(folder, again, "--crf_workers", 1) == 0
    for path in (folder / "weights").glob("*.png"):
        assert (again / path.name).read_bytes() == path.read_bytes()


def remove_a_mask(masks):
    path = sorted(masks.iterdir())[2]
    path.unlink()
    return f"1 of 4 pseudo labels are missing from {masks}, the first is {path.name}"


def shrink_a_mask(masks):
    path = sorted(masks.iterdir())[1]
    Image.fromarray(np.zeros((24, 40), np.uint8)).save(path)
    return f"{path} has 24x40 pixels, training sees 48x80"


def invent_a_class(masks):
    path = sorted(masks.iterdir())[3]
    Image.fromarray(np.full(SIZE, len(CLASSES), np.uint8)).save(path)
    return f"{path} holds the value {len(CLASSES)}; it has to hold train ids 0 to 20"


def refused(capsys, caplog, *arguments):
    """What a command that must not succeed says in the end."""
    caplog.clear()
    try:
        status = run(*arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status != 0
    said = capsys.readouterr().err
    problems = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "Traceback" not in said + caplog.text
    if problems:
        assert len(problems) == 1
        return problems[0].getMessage()
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("damage", [remove_a_mask, shrink_a_mask, invent_a_class])
def test_masks_that_do_not_fit_are_refused_by_name(folder, tmp_path, capsys, caplog, damage):
    wording = damage(own_masks(folder, tmp_path / "masks"))
    said = refused(capsys, caplog, *FIRST, *data(folder), "--pseudo_dir", tmp_path / "masks",
                   "--output_dir", tmp_path, "--run_name", "wrong")  # fmt: skip
    assert wording in said
    assert not list(tmp_path.rglob("*.pth"))


def test_masks_without_weights_are_no_response_weights(folder, tmp_path, capsys, caplog):
    masks = own_masks(folder, tmp_path / "masks")
    said = refused(capsys, caplog, *SECOND, *data(folder), "--weight_dir", masks, "--output_dir",
                   tmp_path)  # fmt: skip
    first = sorted(masks.iterdir())[0].stem
    assert f"{masks / first}_weight.png does not exist: give every image a label" in said
    assert not list(tmp_path.rglob("*.pth"))


MISTAKES = {
    "nothing to weigh by": (
        (*SECOND, "--weight_dir", "voc/VOCdevkit/VOC2012/Annotations"),
        "training needs response weights: voc/VOCdevkit/VOC2012/Annotations",
    ),
    "masks in the place of weights": (
        (*SECOND, "--weight_dir", "masks"),
        "is no manifest of response weights",
    ),
    "maps in the place of masks": (
        (*FIRST, "--pseudo_dir", "cams"),
        "is no manifest of pseudo labels",
    ),
    "masks in the place of maps": (
        ("--make_pseudo_masks", "--cam_dir", "masks", "--pseudo_dir", "new"),
        "is no manifest of class activation maps",
    ),
    "no tags": (("--method", "cam", *CLASSIFIER), "add --image_tags"),
    "no classifier's network": (
        ("--method", "cam", *CLASSIFIER, *TAGS, "--model", "deeplabv3plus_mobilenet"),
        "take --model cam_mobilenet",
    ),
    "a classifier on pixels": (
        (*SECOND, "--model", "cam_mobilenet", "--weight_dir", "weights"),
        "add --method cam",
    ),
    "maps of a segmentation": (
        ("--make_cams", "--ckpt", "checkpoints/latest_first.pth", *TAGS, "--cam_dir", "new"),
        "latest_first.pth holds no classifier with activation maps",
    ),
    "weights of other images": (
        (*SECOND, "--weight_dir", "weights", "--train_split", "val"),
        "are of split train, training is on val",
    ),
    "weights of another data set": (
        (*SECOND, "--weight_dir", "weights", "--year", "2012", "--dataset", "streets_objects"),
        "are of dataset voc, training is on streets_objects",
    ),
    "a network of other classes": (
        ("--make_response_weights", "--ckpt", "checkpoints/latest_first.pth", "--dataset",
         "streets_objects", "--year", "2012", "--weight_dir", "new"),
        "latest_first.pth has 21 classes (background, aeroplane, bicycle, ...), streets_objects",
    ),
    "weights of labels": (
        ("--make_response_weights", "--ckpt", "checkpoints/latest_first.pth", "--weight_dir", "new",
         "--pseudo_dir", "masks"),
        "reads images and a network alone",
    ),
    "a CRF before the decoder": (
        ("--make_response_weights", "--ckpt", "checkpoints/latest_first.pth", "--weight_dir", "new",
         "--eval_crf"),
        "refines by its --response_decoder: leave --eval_crf out",
    ),
    "two sources of labels": (
        (*SECOND, "--weight_dir", "weights", "--pseudo_dir", "masks"),
        "add --label_source original",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_command_is_refused_before_any_work(
    folder, tmp_path, capsys, caplog, monkeypatch, mistake
):
    arguments, wording = MISTAKES[mistake]
    monkeypatch.chdir(folder)
    said = refused(capsys, caplog, *data(folder), *arguments, "--output_dir", tmp_path)
    assert wording in said
    assert not list(tmp_path.rglob("*.pth"))
    assert not (folder / "new").exists()
