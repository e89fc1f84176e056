import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch

from datasets.camvid import CamVid
from datasets.label_files import encode_label, encode_score
from datasets.loaders import eval_batches
from datasets.map_folders import MANIFEST, origin
from datasets.pseudo_labels import LABELS, PseudoLabels, making_command
from datasets.taxonomy import CAMVID, SegClass
from datasets.transforms import eval_transform
from tests.datasets import layouts

CLASSES = (SegClass("road", (1, 2, 3)), SegClass("sky", (4, 5, 6)), SegClass("car", (7, 8, 9)))
COMMAND = "python main.py --ckpt best.pth --make_pseudo_labels"


def probability_of(index):
    return np.random.default_rng(index).uniform(0.34, 1, layouts.SIZE)


def label_of(index, threshold=0.0):
    label = np.random.default_rng(100 + index).integers(0, 3, layouts.SIZE).astype(np.uint8)
    label[probability_of(index) < threshold] = 255
    return label


def write_labels(directory, dataset, threshold=0.0):
    """A folder as ``--make_pseudo_labels`` leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(dataset.items):
        content = encode_label(label_of(index, threshold), len(CLASSES))
        (directory / f"{item.id}.png").write_bytes(content)
        levels = np.floor(probability_of(index) * 255).astype(np.uint8)
        (directory / f"{item.id}_score.png").write_bytes(encode_score(levels))
    manifest = {
        "format": 1,
        "content": "pseudo labels",
        **origin(LABELS, dataset),
        "threshold": threshold,
        "classes": [{"name": one.name, "colour": list(one.colour)} for one in CLASSES],
        "command": COMMAND,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return directory


@pytest.fixture
def root(tmp_path):
    """Images without any label file."""
    root = layouts.camvid(tmp_path / "camvid")
    for folder in root.glob("*annot"):
        shutil.rmtree(folder)
    return root


@pytest.fixture
def unlabelled(root):
    return CamVid(root, "train", labelled=False)


@pytest.fixture
def directory(tmp_path, unlabelled):
    return write_labels(tmp_path / "labels", unlabelled)


def opened(root, labels, **common):
    return CamVid(root, "train", label_source=labels, classes=labels.classes, **common)


def change_manifest(directory, **changes):
    path = directory / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_they_stand_in_the_place_of_label_files(directory, root):
    labels = PseudoLabels(directory)
    dataset = opened(root, labels)
    labels.check(dataset)
    assert dataset.class_names == ("road", "sky", "car")
    batches = list(eval_batches(dataset, batch_size=4, num_workers=1))
    seen = torch.cat([batch["label"] for batch in batches]).numpy()
    np.testing.assert_array_equal(seen, [label_of(index) for index in range(len(dataset))])


def test_they_have_the_images_own_size_whatever_training_resizes_to(directory, root):
    labels = PseudoLabels(directory)
    dataset = opened(root, labels, transform=eval_transform((3, 4)))
    labels.check(dataset)
    assert dataset[0]["label"].shape == (3, 4)


def test_a_folder_knows_its_classes_and_travels_to_workers(directory):
    labels = pickle.loads(pickle.dumps(PseudoLabels(directory, 0.5)))
    assert labels.classes == CLASSES
    assert labels.manifest["command"] == COMMAND


@pytest.mark.parametrize("made_with", [0.0, 0.5])
@pytest.mark.parametrize("threshold", [0.5, 0.502, 0.9, 254 / 255, 1.0])
def test_a_later_threshold_never_accepts_what_making_with_it_would_reject(
    tmp_path, unlabelled, made_with, threshold
):
    folder = write_labels(tmp_path / "labels", unlabelled, made_with)
    labels = PseudoLabels(folder, threshold)
    lost = 0
    for index, item in enumerate(unlabelled.items):
        found, strict = labels(item).numpy(), label_of(index, threshold)
        accepted = found != 255
        np.testing.assert_array_equal(found[accepted], strict[accepted])
        missed = (strict != 255) & ~accepted
        assert (probability_of(index)[missed] < threshold + 1 / 255).all()
        lost += missed.sum()
    if threshold == made_with:
        assert lost == 0, "the labels as they were made"


def test_no_threshold_takes_the_labels_as_they_were_made(tmp_path, unlabelled):
    folder = write_labels(tmp_path / "labels", unlabelled, 0.8)
    np.testing.assert_array_equal(PseudoLabels(folder)(unlabelled.items[2]), label_of(2, 0.8))


def test_a_threshold_below_that_of_the_making_is_refused(tmp_path, unlabelled):
    folder = write_labels(tmp_path / "labels", unlabelled, 0.8)
    wording = r"--pseudo_threshold 0\.7 is below 0\.8.*--pseudo_dir"
    with pytest.raises(ValueError, match=wording):
        PseudoLabels(folder, 0.7)
    with pytest.raises(ValueError, match=r"--pseudo_threshold 1\.5 is no probability"):
        PseudoLabels(folder, 1.5)


def test_a_missing_and_an_empty_folder_name_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)does not exist.*--make_pseudo_labels") as caught:
        PseudoLabels(tmp_path / "none")
    assert "--pseudo_dir" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"(?s)empty is empty.*--make_pseudo_labels"):
        PseudoLabels(tmp_path / "empty")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1, "content": "uncertainty masks"}'])
def test_a_manifest_of_something_else_is_refused(directory, content):
    (directory / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=rf"{directory}/{MANIFEST} is "):
        PseudoLabels(directory)


@pytest.mark.parametrize("changes", [{"classes": None}, {"classes": [1]}, {"threshold": "high"}])
def test_a_manifest_without_classes_or_threshold_is_damaged(directory, changes):
    change_manifest(directory, **changes)
    with pytest.raises(ValueError, match=rf"{MANIFEST} is damaged"):
        PseudoLabels(directory)


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"dataset": "gta5"}, "are of dataset gta5, training is on camvid"),
        ({"split": "val"}, "are of split val, training is on train"),
        ({"size": [3, 4]}, "are of size 3x4, training is on native"),
        ({"fingerprint": "0"}, "are stale: the files of camvid train have changed"),
    ],
)
def test_labels_of_other_images_are_refused(directory, root, changes, wording):
    change_manifest(directory, **changes)
    labels = PseudoLabels(directory)
    with pytest.raises(ValueError, match=wording) as caught:
        labels.check(opened(root, labels))
    assert "--make_pseudo_labels" in str(caught.value)


def test_labels_of_other_classes_are_refused(directory, root):
    labels = PseudoLabels(directory)
    dataset = CamVid(root, "train", label_source=labels, classes=CAMVID)
    with pytest.raises(ValueError, match=r"are of 3 classes \(road, sky, car\), training is on 11"):
        labels.check(dataset)


def test_a_missing_label_is_named_with_the_command_that_completes_them(directory, root):
    labels = PseudoLabels(directory)
    dataset = opened(root, labels)
    labels.path(dataset.items[1]).unlink()
    wording = f"1 of 6 pseudo labels are missing.*{dataset.items[1].id}"
    with pytest.raises(ValueError, match=wording) as caught:
        labels.check(dataset)
    assert COMMAND in str(caught.value)
    with pytest.raises(ValueError, match=r"does not exist"):
        labels(dataset.items[1])


@pytest.mark.parametrize("ending", [".png", "_score.png"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_named(directory, root, ending, damage):
    labels = PseudoLabels(directory, 0.5)
    dataset = opened(root, labels)
    path = directory / f"{dataset.items[3].id}{ending}"
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes({"flip": content, "truncate": content[:-9], "empty": b""}[damage])
    for read in (lambda: labels.check(dataset), lambda: labels(dataset.items[3])):
        with pytest.raises(ValueError, match=f"the pseudo label {path} is damaged") as caught:
            read()
        assert COMMAND in str(caught.value)


def test_score_maps_are_not_needed_where_no_threshold_asks_for_them(directory, root):
    for path in directory.glob("*_score.png"):
        path.unlink()
    labels = PseudoLabels(directory)
    labels.check(opened(root, labels))
    strict = PseudoLabels(directory, 0.5)
    with pytest.raises(ValueError, match=r"_score\.png does not exist"):
        strict.check(opened(root, strict))


@pytest.mark.parametrize("value", [3, 254])
@pytest.mark.parametrize("ours", [True, False])
def test_a_value_that_is_no_class_is_named_with_its_file(directory, root, value, ours):
    labels = PseudoLabels(directory)
    dataset = opened(root, labels)
    path = labels.path(dataset.items[4])
    label = label_of(4)
    label[1, 1] = value
    content = encode_label(label, 255) if ours else cv2.imencode(".png", label)[1].tobytes()
    path.write_bytes(content)
    for read in (lambda: labels.check(dataset), lambda: labels(dataset.items[4])):
        with pytest.raises(ValueError, match=f"{path} holds the value {value}.* 0 to 2 of the 3"):
            read()


def test_a_label_of_another_tool_is_read(directory, root):
    labels = PseudoLabels(directory)
    dataset = opened(root, labels)
    label = np.full(layouts.SIZE, 2, np.uint8)
    labels.path(dataset.items[0]).write_bytes(cv2.imencode(".png", label)[1].tobytes())
    labels.check(dataset)
    np.testing.assert_array_equal(labels(dataset.items[0]), label)


@pytest.mark.parametrize("ending", [".png", "_score.png"])
def test_a_file_of_another_size_is_named(directory, root, ending):
    labels = PseudoLabels(directory, 0.5 if "score" in ending else 0)
    dataset = opened(root, labels)
    path = directory / f"{dataset.items[5].id}{ending}"
    small = np.zeros((2, 3), np.uint8)
    path.write_bytes(encode_label(small, 3) if ending == ".png" else encode_score(small))
    with pytest.raises(ValueError, match=f"{path} has 2x3 pixels"):
        labels.check(dataset)


def test_the_command_names_the_folder_and_the_data(directory, unlabelled):
    words = making_command(unlabelled, directory).split()
    assert words[:2] == ["python", "main.py"]
    for flag, value in (
        ("--dataset", "camvid"),
        ("--train_split", "train"),
        ("--data_root", str(unlabelled.root)),
        ("--pseudo_dir", str(directory)),
    ):
        assert words[words.index(flag) + 1] == value


@pytest.fixture
def foreign(tmp_path, unlabelled):
    """Labels of another program: grey and palette files in turn, of the data set's classes."""
    directory = tmp_path / "foreign"
    for index, item in enumerate(unlabelled.items):
        path = directory / f"{item.id}.png"
        layouts.write_label(path, label_of(index, 0.5), palette=bool(index % 2))
    return directory


def test_a_folder_of_another_program_has_the_classes_of_the_data_set(foreign, root, caplog):
    labels = PseudoLabels(foreign)
    dataset = opened(root, labels)
    labels.check(dataset)
    assert f"the labels in {foreign} have no {MANIFEST}" in caplog.text
    assert labels.classes == dataset.classes == CAMVID
    batches = list(eval_batches(dataset, batch_size=4, num_workers=1))
    seen = torch.cat([batch["label"] for batch in batches]).numpy()
    np.testing.assert_array_equal(seen, [label_of(index, 0.5) for index in range(len(dataset))])


@pytest.mark.parametrize(
    ("label", "wording"),
    [
        (np.full(layouts.SIZE, 11, np.uint8), "holds the value 11; it has to hold train ids 0 to"),
        (np.zeros((2, 3), np.uint8), "has 2x3 pixels"),
        (np.dstack([label_of(0), label_of(1), label_of(2)]), "is a colour image"),
        (None, "does not exist|are missing"),
        (b"no image", "is damaged, it does not begin as a PNG file does"),
    ],
)
def test_what_is_wrong_with_a_file_of_another_program_is_named(foreign, root, label, wording):
    labels = PseudoLabels(foreign)
    dataset = opened(root, labels)
    path = labels.path(dataset.items[2])
    path.unlink()
    if isinstance(label, bytes):
        path.write_bytes(label)
    elif label is not None:
        cv2.imwrite(str(path), label)
    with pytest.raises(ValueError, match=wording) as caught:
        labels.check(dataset)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("index", [2, 3])
def test_no_changed_and_no_missing_byte_of_another_program_goes_unseen(foreign, root, index):
    labels = PseudoLabels(foreign)
    dataset = opened(root, labels)
    labels.check(dataset)
    path = labels.path(dataset.items[index])
    content = path.read_bytes()
    for place in range(0, len(content), 1 + len(content) // 80):
        changed = bytearray(content)
        changed[place] ^= 4
        for written in (bytes(changed), content[:place]):
            path.write_bytes(written)
            with pytest.raises(ValueError, match=f"the pseudo label {path} is damaged"):
                labels(dataset.items[index])


def test_labels_of_another_program_have_no_probabilities(foreign):
    with pytest.raises(ValueError, match=rf"--pseudo_threshold 0\.5 needs .*{foreign} do not have"):
        PseudoLabels(foreign, 0.5)


def test_labels_without_scores_are_read_as_they_are(directory, root):
    for path in directory.glob("*_score.png"):
        path.unlink()
    change_manifest(directory, scores=False, cams="1", threshold=0.0)
    labels = PseudoLabels(directory)
    labels.check(opened(root, labels))
    np.testing.assert_array_equal(labels(opened(root, labels).items[1]), label_of(1))
    with pytest.raises(ValueError, match=r"--pseudo_threshold 0\.5 needs the probability"):
        PseudoLabels(directory, 0.5)
    change_manifest(directory, split="val")
    labels = PseudoLabels(directory)
    with pytest.raises(ValueError, match="are of split val") as caught:
        labels.check(opened(root, labels))
    assert "--cam_dir MAPS" in str(caught.value)
    assert "--make_pseudo_masks" in str(caught.value)
