import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from datasets.camvid import CamVid
from datasets.label_files import decode_label, decode_score
from datasets.map_folders import MANIFEST
from datasets.pseudo_labels import PseudoLabels, making_command
from datasets.taxonomy import ROAD
from engine.batch import prepare
from engine.map_making import PREDICTION_FLAGS
from engine.predict import Predictor
from engine.pseudo_labels import LabelWriter
from main import main
from network import build_model
from options import parse
from tests.engine.map_runs import (
    MODEL,
    contents,
    manifest_of,
    passes,
    save_network,
    write_bare_images,
)
from utils.types import Prediction

ROOT = Path(__file__).parents[2]
IDS = ["city/first", "second"]
on_cpu = partial(prepare, device=torch.device("cpu"))


def random_logits(size=(6, 8), classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, classes, *size, generator=generator)


def written(directory, logits, threshold=0.0, wanted=IDS):
    """Labels (2, H, W) and score levels (2, H, W) of a prediction, by way of their files."""
    writer = LabelWriter(directory, set(wanted), num_classes=logits.shape[1], threshold=threshold)
    writer.update({"id": IDS}, Prediction(logits))
    writer.all_reduce()
    labels = [decode_label((directory / f"{name}.png").read_bytes()) for name in wanted]
    scores = [decode_score((directory / f"{name}_score.png").read_bytes()) for name in wanted]
    return np.stack(labels), np.stack(scores)


class TestWriter:
    def test_labels_are_the_most_probable_classes_and_scores_their_probability(self, tmp_path):
        logits = random_logits()
        labels, scores = written(tmp_path, logits)
        probs = logits.double().softmax(1).numpy()
        np.testing.assert_array_equal(labels, probs.argmax(1))
        assert ((scores + 1) / 255 > probs.max(1) - 1e-6).all()
        assert (scores / 255 <= probs.max(1) + 1e-6).all()

    def test_no_threshold_rejects_nothing_and_one_rejects_what_is_less_probable(self, tmp_path):
        logits = random_logits()
        probability = logits.softmax(1).amax(1).numpy()
        whole, scores = written(tmp_path / "0", logits)
        assert (whole != 255).all()
        for threshold in (0.5, float(np.median(probability)), 0.9, 1.0):
            labels, same = written(tmp_path / str(threshold), logits, threshold)
            np.testing.assert_array_equal(labels == 255, probability < threshold)
            np.testing.assert_array_equal(labels[labels != 255], whole[labels != 255])
            np.testing.assert_array_equal(same, scores)

    def test_levels_are_rounded_down_even_next_to_a_whole_one(self, tmp_path):
        """Probabilities of two classes within a few units in the last place of every level."""
        level = torch.arange(129, 255, dtype=torch.float64)[:, None] / 255
        nearby = level + torch.arange(-32, 32) * 2.0**-25
        margin = (nearby / (1 - nearby)).log().float()
        logits = torch.stack([margin, torch.zeros_like(margin)])[None].expand(2, -1, -1, -1)
        probability = logits.softmax(1).amax(1).double().numpy()
        threshold = float(np.sort(probability, None)[3000]) + 1e-12  # the float next to it is less
        labels, scores = written(tmp_path, logits, threshold)
        assert (scores / 255 <= probability).all()
        assert (probability * 255 < scores + 1).all()
        np.testing.assert_array_equal(labels == 255, probability < threshold)

    def test_only_what_is_wanted_is_written(self, tmp_path):
        written(tmp_path, random_logits(), wanted=IDS[1:])
        assert {path.name for path in tmp_path.rglob("*.png")} == {"second.png", "second_score.png"}

    def test_an_image_without_a_finite_prediction_is_named(self, tmp_path):
        logits = random_logits()
        logits[1, 2, 3, 4] = float("nan")
        with pytest.raises(ValueError, match="the prediction of second is not finite.*no label"):
            written(tmp_path, logits)

    def test_a_mirrored_image_gets_the_mirrored_label_and_score(self, tmp_path):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=2))

        class Method:
            def predict(self, images, needs=frozenset()):
                return Prediction(12 * network(images))

        predictor = Predictor(Method(), flip=True, scales=(1.0, 1.25), fuse="probs")
        images = torch.randn(2, 3, 24, 32)
        with torch.no_grad():
            plain, mirrored = predictor(images).logits, predictor(images.flip(-1)).logits
        labels, scores = written(tmp_path / "plain", plain, 0.5)
        flipped, flipped_scores = written(tmp_path / "mirrored", mirrored, 0.5)
        assert {1, 2, 3, 255} <= set(np.unique(labels)), "classes and rejected pixels"
        assert (labels != flipped[..., ::-1]).mean() < 1e-3, "but for ties"
        assert np.abs(scores.astype(int) - flipped_scores[..., ::-1]).max() <= 1


@pytest.fixture(scope="module")
def data(new_folder):
    return write_bare_images(new_folder("data"))


@pytest.fixture(scope="module")
def weights(new_folder):
    """A network with the classes of roads."""
    folder = new_folder("checkpoints")
    return save_network(folder / f"best_{MODEL}_gta5_os16.pth", ROAD, spread=3)


def flags(data, directory, weights, *more):
    making = ["--make_pseudo_labels", "--pseudo_dir", str(directory), "--pseudo_threshold", "0.3"]
    return [*passes(data, weights), *making, *more]


@pytest.fixture(scope="module")
def made(data, weights, new_folder):
    """Labels of one go."""
    directory = new_folder("made") / "labels"
    assert main(flags(data, directory, weights)) == 0
    return directory


class TestCommand:
    def test_labels_are_those_of_the_mean_over_scales_and_mirrored_images(
        self, data, weights, made
    ):
        dataset = CamVid(data, "train", labelled=False)
        network = build_model("deeplabv3plus_mobilenet", len(ROAD), pretrained_backbone="none")
        network.load_state_dict(torch.load(weights)["model_state"])
        network.eval()
        labels = PseudoLabels(made)
        rejected = 0
        for index, item in enumerate(dataset.items):
            images = on_cpu({"image": dataset[index]["image"].as_subclass(torch.Tensor)[None]})
            total = 0
            for scale in (1, 1.25):
                height, width = (round(side * scale) for side in images["image"].shape[-2:])
                seen = nn.functional.interpolate(
                    images["image"], (height, width), mode="bilinear", antialias=True
                )
                for mirrored in (False, True):
                    with torch.no_grad():
                        logits = network(seen.flip(-1) if mirrored else seen).logits
                    logits = nn.functional.interpolate(
                        logits.flip(-1) if mirrored else logits,
                        images["image"].shape[-2:],
                        mode="bilinear",
                    )
                    total = total + logits.softmax(1) / 4
            probability, expected = total[0].max(0)
            found = labels(item)
            clear = (probability - 0.3).abs() > 1e-4
            assert torch.equal((found == 255)[clear], (probability < 0.3)[clear])
            top = total[0].topk(2, 0).values
            sure = (found != 255) & (top[0] - top[1] > 1e-4)
            assert torch.equal(found[sure].long(), expected[sure])
            rejected += int((found == 255).sum())
        assert rejected

    def test_the_manifest_says_what_made_them_and_what_they_hold(self, data, weights, made):
        manifest = manifest_of(made)
        assert manifest["content"] == "pseudo labels"
        assert manifest["complete"] is True
        assert (manifest["dataset"], manifest["split"], manifest["images"]) == (
            "camvid",
            "train",
            5,
        )
        assert (manifest["size"], manifest["threshold"]) == ("native", 0.3)
        assert manifest["checkpoints"][0]["file"] == weights.name
        assert manifest["flags"]["eval_scales"] == [1, 1.25]
        assert set(manifest["flags"]) == set(PREDICTION_FLAGS)
        assert manifest["classes"][0] == {"name": "road", "colour": [128, 64, 128]}
        values = [np.asarray(Image.open(path)) for path in made.glob("*[0-9].png")]
        assert len(values) == 5
        pixels = np.concatenate([value.ravel() for value in values])
        assert manifest["rejected"] == pytest.approx((pixels == 255).mean())
        assert manifest["pixels"] == {
            entry.name: (pixels == index).sum() for index, entry in enumerate(ROAD)
        }

    def test_training_data_takes_them_without_any_label_file(self, data, made):
        labels = PseudoLabels(made)
        dataset = CamVid(data, "train", label_source=labels, classes=labels.classes)
        labels.check(dataset)
        for index, item in enumerate(dataset.items):
            assert torch.equal(dataset[index]["label"].as_subclass(torch.Tensor), labels(item))

    def test_label_files_are_not_opened(self, data, weights, made, tmp_path):
        root = tmp_path / "camvid"
        shutil.copytree(data / "train", root / "train")
        for path in (root / "train").iterdir():
            label = root / "trainannot" / path.name
            label.parent.mkdir(exist_ok=True)
            label.write_bytes(b"not an image")
        assert main(flags(root, tmp_path / "labels", weights)) == 0
        for path in made.glob("*.png"):
            assert (tmp_path / "labels" / path.name).read_bytes() == path.read_bytes()

    def test_the_same_command_again_changes_nothing(self, data, weights, made, caplog):
        before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
        assert main(flags(data, made, weights)) == 0
        assert "all 5 pseudo labels are there" in caplog.text
        assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before

    def test_half_made_labels_are_completed(self, data, weights, made, tmp_path, caplog):
        for path in sorted(made.iterdir())[:6]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        scores = sorted(tmp_path.glob("*_score.png"))
        scores[0].unlink()
        scores[1].write_bytes(scores[1].read_bytes()[:-3])
        manifest = {**manifest_of(made), "complete": False}
        del manifest["pixels"], manifest["rejected"]
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        assert main(flags(data, tmp_path, weights)) == 0
        assert contents(tmp_path) == contents(made)
        assert f"{scores[1]} is damaged" in caplog.text
        rejected = manifest_of(made)["rejected"]
        assert f"{100 * rejected:.1f} % of the pixels have no label" in caplog.text

    def test_a_killed_end_is_made_up_for(self, data, weights, made, tmp_path):
        """All files are there, and the process died before it wrote the manifest again."""
        shutil.copytree(made, tmp_path / "labels")
        manifest = {**manifest_of(made), "complete": False}
        del manifest["pixels"], manifest["rejected"]
        (tmp_path / "labels" / MANIFEST).write_text(json.dumps(manifest))
        assert main(flags(data, tmp_path / "labels", weights)) == 0
        assert manifest_of(tmp_path / "labels") == manifest_of(made)

    @pytest.mark.parametrize(
        ("more", "wording"),
        [
            (["--pseudo_threshold", "0.4"], "threshold 0.4 (there 0.3)"),
            (["--eval_scales", "1"], "--eval_scales [1.0] (there [1.0, 1.25])"),
            (["--fuse_heads", "main"], "--fuse_heads main (there logits)"),
        ],
    )
    def test_labels_of_another_making_are_not_mixed(
        self, data, weights, made, caplog, more, wording
    ):
        before = contents(made)
        assert main([*flags(data, made, weights), *more]) == 1
        assert "holds pseudo labels of another origin" in caplog.text
        assert wording in caplog.text
        assert "--pseudo_dir" in caplog.text
        assert contents(made) == before

    def test_overwrite_replaces_labels_and_scores_and_nothing_else(
        self, data, weights, made, tmp_path
    ):
        shutil.copytree(made, tmp_path / "labels")
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "labels" / "mine.png")
        argv = flags(data, tmp_path / "labels", weights, "--pseudo_threshold", "0", "--overwrite")
        assert main(argv) == 0
        assert set(contents(tmp_path / "labels")) == {*contents(made), "mine.png"}
        assert manifest_of(tmp_path / "labels")["rejected"] == 0

    def test_images_in_the_way_are_never_replaced(self, data, weights, tmp_path, caplog):
        name = f"{CamVid(data, 'train', labelled=False).items[2].id}.png"
        (tmp_path / name).write_bytes(b"an image of the user")
        for more in ([], ["--overwrite"]):
            assert main([*flags(data, tmp_path, weights), *more]) == 1
            assert name in caplog.text
        assert contents(tmp_path) == {name: b"an image of the user"}

    def test_a_threshold_is_a_probability(self, data, weights, tmp_path, capsys):
        with pytest.raises(SystemExit):
            parse(flags(data, tmp_path, weights, "--pseudo_threshold", "1.2"))
        assert "--pseudo_threshold" in capsys.readouterr().err

    def test_two_processes_make_them_as_one_does(self, data, weights, made, tmp_path):
        argv = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "main.py"]
        process = subprocess.run(
            [sys.executable, *argv, *flags(data, tmp_path, weights)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        ours, theirs = contents(tmp_path), contents(made)
        for name in ("pixels", "rejected", "flags", "complete"):
            assert manifest_of(tmp_path)[name] == manifest_of(made)[name]
        for manifest in (ours, theirs):
            del manifest[MANIFEST]
        assert ours == theirs

    def test_the_command_that_errors_name_is_understood(self, data, weights, tmp_path):
        dataset = CamVid(data, "dusk_train", labelled=False)
        words = making_command(dataset, tmp_path).replace("CHECKPOINT", str(weights)).split()
        opts = parse(words[2:])
        assert opts.make_pseudo_labels
        assert (opts.pseudo_dir, opts.train_split) == (tmp_path, "dusk_train")
