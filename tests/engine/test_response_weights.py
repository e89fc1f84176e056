import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets.camvid import CamVid
from datasets.label_files import decode_label
from datasets.map_folders import MANIFEST
from datasets.response_weights import making_command
from datasets.streets.dataset import NUM_IMAGES
from datasets.taxonomy import CAMVID, ROAD
from datasets.weight_files import decode_weight
from engine.batch import prepare
from engine.training_data import training_data
from main import main
from network import build_model
from options import parse
from tests.datasets import layouts
from tests.engine.map_runs import (
    MODEL,
    contents,
    manifest_of,
    passes,
    save_network,
    write_bare_images,
)
from uncertainty.response_decoders import DECODERS, argmax_decoder
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS
from utils.weight_levels import weight_levels

ROOT = Path(__file__).parents[2]
on_cpu = partial(prepare, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def data(new_folder):
    return write_bare_images(new_folder("data"))


@pytest.fixture(scope="module")
def weights(new_folder):
    """A network with the classes of the data set."""
    folder = new_folder("checkpoints")
    return save_network(folder / f"best_{MODEL}_camvid_os16.pth", CAMVID, spread=100)


def flags(data, directory, weights, *more):
    making = ["--make_response_weights", "--weight_dir", str(directory)]
    return [*passes(data, weights), *making, "--response_decoder", "argmax", *more]


@pytest.fixture(scope="module")
def made(data, weights, new_folder):
    """Weights of one go."""
    directory = new_folder("made") / "weights"
    assert main(flags(data, directory, weights)) == 0
    return directory


def maps(directory):
    return {name: content for name, content in contents(directory).items() if name != MANIFEST}


def run(argv, program=("main.py",)):
    """A process of its own."""
    return subprocess.run(
        [sys.executable, *program, *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


KILLED_WHILE_WRITING = """
import os, signal, sys
from engine import consumers
original, written = consumers.write_atomically, []
def write(path, content):
    written.append(path)
    if len(written) == {}:
        path.with_name(f".{{path.name}}.{{os.getpid()}}.tmp").write_bytes(content[:9])
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, content)
consumers.write_atomically = write
from main import main
sys.exit(main())
"""


class TestMaking:
    def test_they_follow_from_the_mean_over_scales_and_mirrored_images(self, data, weights, made):
        network = build_model(MODEL, len(CAMVID), pretrained_backbone="none")
        network.load_state_dict(torch.load(weights)["model_state"])
        network.eval()
        scaling = ResponseScaling(PRESETS["voc"], argmax_decoder)
        dataset = CamVid(data, "train", labelled=False)
        levels_seen = set()
        for index, item in enumerate(dataset.items):
            image = dataset[index]["image"].as_subclass(torch.Tensor)
            images = on_cpu({"image": image[None]})["image"]
            total = 0
            for scale in (1, 1.25):
                size = [round(side * scale) for side in image.shape[1:]]
                seen = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
                for mirrored in (False, True):
                    with torch.no_grad():
                        logits = network(seen.flip(-1) if mirrored else seen).logits
                    logits = nn.functional.interpolate(
                        logits.flip(-1) if mirrored else logits, image.shape[1:], mode="bilinear"
                    )
                    total = total + logits.softmax(1)[0] / 4
            response = scaling(total, image)
            label = decode_label((made / f"{item.id}.png").read_bytes())
            levels = decode_weight((made / f"{item.id}_weight.png").read_bytes())
            assert (label == response.label.numpy()).mean() > 0.999, "but for ties"
            assert (levels == weight_levels(response.uncertainty).numpy()).mean() > 0.999
            levels_seen |= set(np.unique(levels))
        assert {0, 255} < levels_seen <= {0, 28, 95, 113, 159, 255}

    def test_the_manifest_says_what_made_them_and_what_they_hold(self, weights, made):
        manifest = manifest_of(made)
        assert manifest["content"] == "response weights"
        assert manifest["complete"] is True
        assert (manifest["dataset"], manifest["split"], manifest["images"]) == (
            "camvid",
            "train",
            5,
        )
        assert manifest["size"] == "native"
        assert manifest["scales"] == [0.15, 0.2, 0.25, 4, 5, 6]
        assert manifest["decoder"] == {"name": "argmax"}
        assert (manifest["reduce"], manifest["normalize"]) == ("max", "image")
        assert manifest["tags"] is None
        assert manifest["checkpoints"][0]["file"] == weights.name
        assert [one["name"] for one in manifest["classes"]] == [one.name for one in CAMVID]
        labels, levels = (
            np.concatenate([decode(path.read_bytes()).ravel() for path in made.glob(pattern)])
            for decode, pattern in ((decode_label, "*[0-9].png"), (decode_weight, "*_weight.png"))
        )
        assert manifest["pixels"] == {
            entry.name: int((labels == index).sum()) for index, entry in enumerate(CAMVID)
        }
        values, counts = np.unique(levels, return_counts=True)
        assert manifest["levels"] == dict(zip(map(str, values), counts.tolist(), strict=True))

    def test_label_files_are_not_opened(self, data, weights, made, tmp_path):
        root = tmp_path / "camvid"
        shutil.copytree(data / "train", root / "train")
        for path in (root / "train").iterdir():
            label = root / "trainannot" / path.name
            label.parent.mkdir(exist_ok=True)
            label.write_bytes(b"not an image")
        assert main(flags(root, tmp_path / "weights", weights)) == 0
        assert maps(tmp_path / "weights") == maps(made)

    def test_one_scale_of_1_gives_every_pixel_full_weight(self, data, weights, tmp_path):
        assert main(flags(data, tmp_path, weights, "--response_scales", "1", "1")) == 0
        assert list(manifest_of(tmp_path)["levels"]) == ["255"]

    def test_the_published_decoder_is_the_default(self, data, weights, tmp_path):
        argv = flags(data, tmp_path, weights, "--response_preset", "coco")
        place = argv.index("--response_decoder")
        assert main(argv[:place] + argv[place + 2 :]) == 0
        manifest = manifest_of(tmp_path)
        assert manifest["scales"] == [0.4, 0.5, 0.6, 2, 3, 4]
        assert manifest["decoder"] == {
            "name": "crf",
            "crf": {
                "gaussian_xy": 1,
                "gaussian_weight": 3,
                "bilateral_xy": 67,
                "bilateral_colour": 3,
                "bilateral_weight": 4,
                "iterations": 10,
            },
        }

    def test_tags_limit_the_classes_and_belong_to_the_origin(
        self, data, weights, made, tmp_path, caplog
    ):
        names = [path.stem for path in sorted((data / "train").iterdir())]
        tags = tmp_path / "tags.json"
        tags.write_text(json.dumps({name: ["sky", "building"] for name in names}))
        own = ["--restrict_to_tags", "--image_tags", str(tags)]
        folder = tmp_path / "weights"
        assert main(flags(data, folder, weights, *own)) == 0
        shown = {name for name, pixels in manifest_of(folder)["pixels"].items() if pixels}
        assert shown == {"sky", "building"}
        free = {name for name, pixels in manifest_of(made)["pixels"].items() if pixels}
        assert free > shown
        tags.write_text(json.dumps({name: ["sky"] for name in names}))
        assert main(flags(data, folder, weights, *own)) == 1
        assert f"tags {manifest_of(folder)['tags']}" not in caplog.text.split("(there")[0]
        assert f"(there {manifest_of(folder)['tags']})" in caplog.text

    def test_other_scales_are_tried_on_stored_probabilities(
        self, data, weights, made, tmp_path, caplog
    ):
        network = ["--ckpt", str(weights), "--dataset", "camvid", "--data_root", str(data)]
        passes = ["--eval_flip", "--eval_scales", "1", "1.25", "--val_batch_size", "2"]
        predict = ["--predict", str(data / "train"), "--save_probs", "--num_workers", "0"]
        place = ["--output_dir", str(tmp_path), "--run_name", "once"]
        assert main([*predict, *network, *passes, *place]) == 0
        stored = tmp_path / "predictions" / "once"
        argv = ["--make_response_weights", "--logits_dir", str(stored), "--response_decoder"]
        argv += ["argmax", "--dataset", "camvid", "--data_root", str(data), "--num_workers", "0"]
        assert main([*argv, "--weight_dir", str(tmp_path / "same")]) == 0
        other = [*argv, "--weight_dir", str(tmp_path / "other"), "--response_scales", "0.5", "2"]
        assert main(other) == 0
        source = manifest_of(tmp_path / "same")["checkpoints"]
        assert [entry["file"] for entry in source] == ["once"]
        for decode, ending in ((decode_label, ".png"), (decode_weight, "_weight.png")):
            for path in sorted(made.glob("*_weight.png")):
                name = path.name.removesuffix("_weight.png") + ending
                first = decode((made / name).read_bytes())
                again = decode((tmp_path / "same" / name).read_bytes())
                assert (first == again).mean() > 0.99  # they were rounded to float16
        assert maps(tmp_path / "other") != maps(tmp_path / "same")
        next(stored.glob("*_probabilities.npz")).touch()
        caplog.clear()
        assert main(other) == 1
        assert "checkpoints once (there once, of other content)" in caplog.text

    def test_drawn_scenes_are_weighed_at_the_size_that_training_sees(self, tmp_path, monkeypatch):
        monkeypatch.setitem(NUM_IMAGES, "val", 2)
        network = save_network(tmp_path / f"best_{MODEL}_streets_os16.pth", ROAD, spread=100)
        common = ["--dataset", "streets", "--train_split", "val", "--crop_size", "34x68"]
        argv = ["--make_response_weights", "--ckpt", str(network), "--response_decoder", "argmax"]
        folder = ["--weight_dir", str(tmp_path / "weights")]
        assert main([*argv, *folder, *common, "--num_workers", "0"]) == 0
        sample = training_data(parse([*common, *folder]))[0]
        assert sample["weight"].shape == sample["label"].shape == (34, 68)
        assert len(sample["weight"].unique()) <= 2


class TestRestart:
    def test_the_same_command_again_changes_nothing(self, data, weights, made, caplog):
        before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
        assert main(flags(data, made, weights)) == 0
        assert "all 5 response weights are there" in caplog.text
        assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before

    def test_half_made_weights_are_completed(self, data, weights, made, tmp_path, caplog):
        for path in sorted(made.iterdir())[:6]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        halves = sorted(tmp_path.glob("*_weight.png"))
        halves[0].unlink()
        halves[1].write_bytes(halves[1].read_bytes()[:-3])
        manifest = {**manifest_of(made), "complete": False}
        del manifest["pixels"], manifest["levels"]
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        assert main(flags(data, tmp_path, weights)) == 0
        assert contents(tmp_path) == contents(made)
        assert f"{halves[1]} is damaged" in caplog.text

    @pytest.mark.parametrize("decoder", ["crf", "affinity"])
    def test_killed_and_started_again_it_writes_the_same_bytes_with_any_workers(
        self, data, weights, tmp_path, decoder
    ):
        own = ["--response_decoder", decoder, "--save_uncertainty"]
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        assert main([*flags(data, whole, weights), *own, "--crf_workers", "1"]) == 0
        argv = [*flags(data, killed, weights), *own, "--crf_workers", "4"]
        process = run(argv, ["-c", KILLED_WHILE_WRITING.format(8)])
        assert process.returncode == -signal.SIGKILL, process.stderr
        there = maps(killed)
        assert 7 <= len(there) < 15
        assert any(name.endswith(".tmp") for name in there)
        assert manifest_of(killed)["complete"] is False
        assert main(argv) == 0
        assert maps(killed) == maps(whole)
        manifest = manifest_of(killed)
        assert manifest["complete"] is True
        settings = DECODERS[decoder].settings
        assert manifest["decoder"] == {"name": decoder, decoder: json.loads(json.dumps(settings))}

    def test_two_processes_make_them_as_one_does(self, data, weights, made, tmp_path):
        program = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        process = run(flags(data, tmp_path, weights), [*program, "main.py"])
        assert process.returncode == 0, process.stderr
        assert maps(tmp_path) == maps(made)
        for name in ("pixels", "levels", "flags", "complete"):
            assert manifest_of(tmp_path)[name] == manifest_of(made)[name]

    def test_the_uncertainty_can_be_added_later(self, data, weights, made, tmp_path):
        shutil.copytree(made, tmp_path / "weights")
        argv = flags(data, tmp_path / "weights", weights, "--save_uncertainty")
        assert main(argv) == 0
        both = maps(tmp_path / "weights")
        assert maps(made).items() <= both.items()
        assert len(both) == 15

    def test_overwriting_removes_every_file_of_the_former_weights(
        self, data, weights, made, tmp_path
    ):
        folder = tmp_path / "weights"
        assert main(flags(data, folder, weights, "--save_uncertainty")) == 0
        (folder / "mine.png").write_bytes(b"an image of the user")
        more = ["--response_scales", "0.5", "2", "--overwrite"]
        assert main(flags(data, folder, weights, *more)) == 0
        assert set(contents(folder)) == {*contents(made), "mine.png"}
        assert manifest_of(folder)["scales"] == [0.5, 2]

    @pytest.mark.parametrize(
        ("more", "wording"),
        [
            (["--response_preset", "coco"], "scales [0.4, 0.5, 0.6, 2.0, 3.0, 4.0] (there [0.15"),
            (["--response_decoder", "crf"], "(there {'name': 'argmax'})"),
            (["--response_reduce", "mean"], "reduce mean (there max)"),
            (["--response_normalize", "absolute"], "normalize absolute (there image)"),
            (["--infer_short_side", "32"], "--infer_short_side 32 (there None)"),
        ],
    )
    def test_weights_of_another_making_are_not_mixed(
        self, data, weights, made, caplog, more, wording
    ):
        before = contents(made)
        assert main([*flags(data, made, weights), *more]) == 1
        assert "holds response weights of another origin" in caplog.text
        assert wording in caplog.text
        assert "Choose another --weight_dir, or replace them with --overwrite" in caplog.text
        assert contents(made) == before

    def test_published_images_in_the_way_are_never_replaced(self, data, weights, tmp_path, caplog):
        name = f"{CamVid(data, 'train', labelled=False).items[2].id}.png"
        layouts.write_image(tmp_path / name)
        before = contents(tmp_path)
        for more in ([], ["--overwrite"]):
            assert main([*flags(data, tmp_path, weights), *more]) == 1
            assert name in caplog.text
        assert contents(tmp_path) == before


class TestMistakes:
    def test_a_network_of_other_classes_is_refused(self, data, tmp_path, caplog):
        other = save_network(tmp_path / f"best_{MODEL}_cityscapes_os16.pth", ROAD, spread=100)
        assert main(flags(data, tmp_path / "weights", other)) == 1
        said = caplog.records[-1].getMessage()
        assert f"{other} has 19 classes (road" in said
        assert "camvid has 11 (" in said
        assert not (tmp_path / "weights").exists()

    @pytest.mark.parametrize(
        ("arguments", "wording"),
        [
            (("--make_response_weights",), "needs a folder for them: add --weight_dir DIR"),
            (("--make_response_weights", "--weight_dir", "w", "--response_scales"), "at least one"),
            *(
                (
                    ("--make_response_weights", "--weight_dir", "w", "--response_scales", *scales),
                    f"--response_scales {bad}: a power is a finite number above 0",
                )
                for scales, bad in (
                    (("2", "0"), "0"),
                    (("-1",), "-1"),
                    (("nan",), "nan"),
                    (("inf", "1"), "inf"),
                )
            ),
            (
                (
                    *("--make_response_weights", "--weight_dir", "w", "--response_scales", "2"),
                    *("--response_preset", "coco"),
                ),
                "--response_preset and --response_scales both give the scales; give one",
            ),
            (
                ("--make_response_weights", "--weight_dir", "w", "--restrict_to_tags"),
                "--restrict_to_tags needs the images' tags: add --image_tags",
            ),
            (
                ("--make_response_weights", "--weight_dir", "w", "--weighting", "linear"),
                "--weighting is of training on response weights",
            ),
            (("--make_response_weights", "--weight_dir", "w", "--crf_workers", "0"), "crf_workers"),
            (("--save_uncertainty",), "--save_uncertainty is of the making: add --make_response"),
            (("--weight_threshold", "0.1"), "--weight_threshold is of training on response weig"),
            (("--weight_dir", "w", "--weight_threshold", "1.01"), "1.01 is outside 0..1"),
            (("--weight_dir", "w", "--weight_threshold", "nan"), "nan is outside 0..1"),
            (
                ("--weight_dir", "w", "--loss_type", "uncertainty_cross_entropy"),
                "--loss_type uncertainty_cross_entropy does so by an uncertainty of its own",
            ),
            (
                ("--make_response_weights", "--weight_dir", "w", "--image_tags", "masks"),
                "--image_tags is read by --restrict_to_tags",
            ),
            (
                ("--weight_dir", "w", "--pseudo_dir", "p"),
                "--pseudo_dir is not read: leave it out, or add --label_source original",
            ),
        ],
    )
    def test_a_contradiction_is_one_sentence(self, capsys, weights, arguments, wording):
        ckpt = ("--ckpt", str(weights)) if "--make_response_weights" in arguments else ()
        with pytest.raises(SystemExit) as stopped:
            parse([*arguments, *ckpt, "--dataset", "camvid", "--data_root", "."])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert wording in said
        assert said.count("\n") == 1

    def test_the_command_that_errors_name_is_understood(self, data, weights, tmp_path):
        dataset = CamVid(data, "dusk_train", labelled=False)
        words = making_command(dataset, tmp_path).replace("CHECKPOINT", str(weights)).split()
        opts = parse(words[2:])
        assert opts.make_response_weights
        assert (opts.weight_dir, opts.train_split) == (tmp_path, "dusk_train")
