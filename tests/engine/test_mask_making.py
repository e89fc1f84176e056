import json
import os
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets.camvid import CamVid
from datasets.loaders import eval_batches
from datasets.map_folders import MANIFEST
from datasets.mask_files import LEVELS, encode_mask
from datasets.transforms import eval_transform
from datasets.uncertainty_masks import MASKS, UncertaintyMasks, making_command, mask_path
from engine.batch import prepare
from engine.evaluate import run_pass
from engine.map_claims import claim_folder
from engine.map_making import PREDICTION_FLAGS
from engine.mask_making import MaskWriter, describe_masks
from engine.trained import trained_method
from main import main
from network import build_model
from options import parse
from tests.datasets import layouts
from tests.datasets.toys import Toy
from tests.engine.toys import network_of_the_toy
from uncertainty import instance_uncertainty
from utils.types import Prediction

ROOT = Path(__file__).parents[2]
SCALE = float(np.log(3))
SIZES = ((12, 16),) * 3 + ((8, 8),) * 4
on_cpu = partial(prepare, device=torch.device("cpu"))


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "masks"


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


def make(directory, network, dataset, only=None, shares=1, batch_size=2):
    """Write masks as ``run_mask_making`` does, one share after the other."""
    wanted = {dataset.items[index].id for index in only or range(len(dataset))}
    for rank in range(shares):
        loader = eval_batches(
            dataset, batch_size=batch_size, num_workers=0, rank=rank, world_size=shares, only=only
        )
        run_pass(
            lambda images, needs: Prediction(network(images)),
            network,
            loader,
            [MaskWriter(directory, SCALE, wanted)],
            prepare=on_cpu,
        )


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def changed_byte(path):
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)


class TestWriter:
    def test_a_mask_is_the_instance_uncertainty_of_its_image(self, directory, network):
        dataset = Toy(sizes=SIZES)
        make(directory, network, dataset)
        (directory / MANIFEST).write_text('{"format": 1, "content": "uncertainty masks"}')
        masks = UncertaintyMasks(directory)
        for index, item in enumerate(dataset.items):
            batch = on_cpu({"image": dataset[index]["image"][None].as_subclass(torch.Tensor)})
            with torch.no_grad():
                expected = instance_uncertainty(network(batch["image"]))[0]
            assert expected.std() > 0.01
            assert (masks(item) - expected).abs().max() <= SCALE / LEVELS

    def test_masks_made_twice_or_in_shares_are_the_same_files(self, tmp_path, network):
        dataset = Toy(sizes=SIZES)
        for name, shares in (("one", 1), ("again", 1), ("two", 2), ("nine", 9)):
            make(tmp_path / name, network, dataset, shares=shares)
        first = contents(tmp_path / "one")
        assert set(first) == {f"{item.id}.png" for item in dataset.items}
        assert all(contents(tmp_path / name) == first for name in ("again", "two", "nine"))

    def test_only_what_is_missing_is_made_and_as_in_one_go(self, tmp_path, network):
        dataset = Toy(sizes=SIZES)
        make(tmp_path / "whole", network, dataset)
        dataset.reads.clear()
        make(tmp_path / "part", network, dataset, only={1, 6})
        assert dataset.reads == [0, 1, 5, 6], "only their batches are read, as they were"
        whole, part = contents(tmp_path / "whole"), contents(tmp_path / "part")
        assert part == {name: whole[name] for name in ("item1.png", "item6.png")}

    def test_an_image_without_a_finite_prediction_is_named(self, directory, network):
        nn.init.constant_(network.bias, float("nan"))
        with pytest.raises(ValueError, match="the prediction of item0 is not finite"):
            make(directory, network, Toy())


class Claiming:
    """A folder of masks of a toy, the flags they are made with, and a checkpoint."""

    def __init__(self, directory, checkpoint, network):
        self.directory = directory
        self.checkpoint = checkpoint
        self.network = network
        checkpoint.write_bytes(b"weights")

    def claim(self, dataset=None, overwrite=False, **flags):
        dataset = dataset or Toy(sizes=SIZES)
        values = {**dict.fromkeys(PREDICTION_FLAGS), "model": "m", "random_seed": 1, **flags}
        opts = Namespace(ckpt=self.checkpoint, external=None, logits_dir=None, **values)
        manifest = describe_masks(opts, dataset, network_of_the_toy())
        return claim_folder(MASKS, self.directory, manifest, dataset, overwrite=overwrite)

    def make(self, **changes):
        missing = self.claim(**changes)
        make(self.directory, self.network, Toy(sizes=SIZES), only=missing)

    def manifest(self):
        return json.loads((self.directory / MANIFEST).read_text())


@pytest.fixture
def folder(tmp_path, network):
    return Claiming(tmp_path / "masks", tmp_path / "best.pth", network)


class TestFolder:
    def test_a_new_folder_begins_with_an_incomplete_manifest(self, folder):
        assert folder.claim() == set(range(7))
        manifest = folder.manifest()
        assert manifest["complete"] is False
        assert manifest["dataset"] == "toy"
        assert manifest["size"] == "native"
        assert manifest["images"] == 7
        assert manifest["scale"] == pytest.approx(np.log(3))
        assert manifest["checkpoints"][0]["file"] == "best.pth"
        assert len(manifest["checkpoints"][0]["sha256"]) == 64
        assert set(manifest["flags"]) == set(PREDICTION_FLAGS)

    def test_what_is_there_is_kept_and_the_end_is_noted(self, folder):
        folder.make()
        assert folder.manifest()["complete"] is False
        before = contents(folder.directory)
        assert folder.claim() == set()
        assert folder.manifest()["complete"] is True
        before.pop(MANIFEST)
        assert before.items() <= contents(folder.directory).items()
        again = (folder.directory / MANIFEST).stat().st_mtime_ns
        assert folder.claim() == set()
        assert (folder.directory / MANIFEST).stat().st_mtime_ns == again

    def test_a_missing_a_damaged_and_a_resized_mask_are_made_again(self, folder, caplog):
        folder.make()
        whole = contents(folder.directory)
        (folder.directory / "item1.png").unlink()
        changed_byte(folder.directory / "item3.png")
        (folder.directory / "item4.png").write_bytes(b"")
        other = encode_mask(np.ones((2, 3), np.float32), SCALE)
        (folder.directory / "item5.png").write_bytes(other)
        folder.make()
        assert contents(folder.directory) == whole
        for name, why in ((3, "checksum is wrong"), (4, "begin as"), (5, "another size, 2x3")):
            assert any(f"item{name}.png" in line and why in line for line in caplog.messages)
        assert "item1.png" not in caplog.text

    def test_masks_of_other_flags_are_refused_by_name(self, folder):
        folder.make()
        wording = r"another origin: --eval_flip True \(there None\)\..*--mask_dir.*--overwrite"
        with pytest.raises(ValueError, match=wording):
            folder.claim(eval_flip=True)
        with pytest.raises(ValueError, match=r"--infer_size \[4, 5\] \(there None\)"):
            folder.claim(infer_size=(4, 5))

    def test_the_seed_matters_with_dropout_samples_only(self, folder):
        folder.make()
        assert folder.claim(random_seed=2) == set()
        folder.make(mc_samples=3, overwrite=True)
        with pytest.raises(ValueError, match=r"--random_seed 2 \(there 1\)"):
            folder.claim(mc_samples=3, random_seed=2)

    def test_masks_of_another_checkpoint_are_refused(self, folder):
        folder.make()
        folder.checkpoint.write_bytes(b"other weights")
        with pytest.raises(ValueError, match=r"checkpoints best\.pth \(there best\.pth, of other"):
            folder.claim()

    def test_a_renamed_checkpoint_is_the_same(self, folder):
        folder.make()
        folder.checkpoint = folder.checkpoint.rename(folder.checkpoint.with_name("other.pth"))
        assert folder.claim() == set()

    def test_masks_of_other_images_sizes_or_splits_are_refused(self, folder):
        folder.make()
        resized = Toy(sizes=SIZES, transform=eval_transform((4, 6)))
        with pytest.raises(ValueError, match=r"size \[4, 6\] \(there native\)"):
            folder.claim(resized)
        with pytest.raises(ValueError, match=r"split val \(there train\).*fingerprint"):
            folder.claim(Toy("val", sizes=SIZES))
        with pytest.raises(ValueError, match=r"images 8 \(there 7\)"):
            folder.claim(Toy(sizes=(*SIZES, (8, 8))))

    def test_overwrite_removes_every_stale_mask_and_nothing_else(self, folder, network):
        folder.make()
        stale = folder.directory / "city" / "of_another_split.png"
        stale.parent.mkdir()
        stale.write_bytes((folder.directory / "item0.png").read_bytes())
        notes = {"notes.txt": b"mine", "picture.png": b"\x89PNG\r\n\x1a\n mine", "a.npy": b"mine"}
        for name, content in notes.items():
            (folder.directory / name).write_bytes(content)
        assert folder.claim(overwrite=True, fuse="logits") == set(range(7))
        assert set(contents(folder.directory)) == {MANIFEST, *notes}
        assert notes.items() <= contents(folder.directory).items()
        assert folder.manifest()["flags"]["fuse"] == "logits"

    def test_leftovers_of_killed_processes_are_removed(self, folder):
        folder.make()
        whole = set(contents(folder.directory))
        (folder.directory / ".item0.png.123.tmp").write_bytes(b"half")
        (folder.directory / ".mine.123.tmp").write_bytes(b"whole")
        folder.claim()
        assert set(contents(folder.directory)) == whole | {".mine.123.tmp"}

    def test_published_masks_are_not_mixed_with_ours(self, folder):
        folder.directory.mkdir()
        np.save(folder.directory / "item0_uncertainty_mask.npy", np.zeros((12, 16), np.float32))
        with pytest.raises(ValueError, match=r"holds item0_uncertainty_mask\.npy and no manifest"):
            folder.claim()
        folder.make(overwrite=True)
        assert "item0_uncertainty_mask.npy" in contents(folder.directory)
        UncertaintyMasks(folder.directory).check(Toy(sizes=SIZES))

    def test_images_in_the_way_are_never_replaced(self, folder):
        folder.directory.mkdir()
        (folder.directory / "item2.png").write_bytes(b"an image of the user")
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=r"item2\.png"):
                folder.claim(overwrite=overwrite)
        assert contents(folder.directory) == {"item2.png": b"an image of the user"}

    def test_a_manifest_of_something_else_is_never_replaced(self, folder):
        folder.directory.mkdir()
        (folder.directory / MANIFEST).write_text('{"name": "a web page"}')
        with pytest.raises(ValueError, match="is no manifest of uncertainty masks"):
            folder.claim(overwrite=True)


@pytest.fixture(scope="module")
def data(new_folder):
    return layouts.camvid(new_folder("data"), train=5)


@pytest.fixture(scope="module")
def weights(new_folder):
    """Two small networks that nobody trained."""
    folder = new_folder("checkpoints")
    files = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = build_model("deeplabv3plus_mobilenet", 11, pretrained_backbone="none")
        nn.init.normal_(network.classifier.classifier[-1].weight, std=3)
        files.append(folder / f"best_deeplabv3plus_mobilenet_camvid_os16_seed{seed}.pth")
        content = {
            "model_state": network.state_dict(),
            "classes": [entry.name for entry in CamVid.classes],
            "colours": [list(entry.colour) for entry in CamVid.classes],
        }
        torch.save(content, files[-1])
    return files


def flags(data, directory, weights, *more):
    named = [word for path in weights for word in ("--weight", str(path))]
    return [
        *("--model", "deep_ensemble", *named, "--dataset", "camvid", "--data_root", str(data)),
        *("--crop_size", "40x56", "--val_batch_size", "2", "--num_workers", "0"),
        *("--mask_dir", str(directory), "--make_uncertainty_masks", *more),
    ]


@pytest.fixture(scope="module")
def made(data, weights, new_folder):
    """Masks of one go."""
    directory = new_folder("made") / "masks"
    assert main(flags(data, directory, weights)) == 0
    return directory


class TestCommand:
    def test_masks_are_those_of_the_mean_softmax(self, data, weights, made):
        dataset = CamVid(data, "train", transform=eval_transform((40, 56)))
        masks = UncertaintyMasks(made)
        masks.check(dataset)
        method = trained_method(parse(flags(data, made, weights))).method
        for index, item in enumerate(dataset.items):
            image = dataset[index]["image"].as_subclass(torch.Tensor)[None]
            with torch.no_grad():
                expected = instance_uncertainty(
                    method.predict(on_cpu({"image": image})["image"]).logits
                )
            assert (masks(item) - expected[0]).abs().max() < 1e-4
        assert expected.std() > 1e-3
        manifest = json.loads((made / MANIFEST).read_text())
        assert manifest["complete"] is True
        assert [file["file"] for file in manifest["checkpoints"]] == [path.name for path in weights]

    def test_the_same_command_again_changes_nothing(self, data, weights, made, caplog):
        before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
        assert main(flags(data, made, weights)) == 0
        assert "all 5 uncertainty masks are there" in caplog.text
        assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before

    def test_half_made_masks_are_completed(self, data, weights, made, tmp_path):
        for path in sorted(made.iterdir())[1:4]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        manifest = json.loads((made / MANIFEST).read_text())
        (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "complete": False}))
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
        assert main(flags(data, tmp_path, weights)) == 0
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert contents(tmp_path) == contents(made)

    def test_another_ensemble_is_refused(self, data, weights, made, caplog):
        assert main(flags(data, made, weights[:1])) == 1
        assert "another origin: checkpoints" in caplog.text
        assert "--mask_dir" in caplog.text

    def test_crops_take_masks_of_the_image_s_own_size(self, data, weights, tmp_path):
        argv = flags(data, tmp_path, weights, "--train_transform", "scale_crop")
        assert main(argv) == 0
        UncertaintyMasks(tmp_path).check(CamVid(data, "train"))
        assert json.loads((tmp_path / MANIFEST).read_text())["size"] == "native"

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
        for manifest in (ours.pop(MANIFEST), theirs.pop(MANIFEST)):
            assert json.loads(manifest)["complete"] is True
        assert ours == theirs

    @pytest.mark.parametrize("size", [(40, 56), None])
    def test_the_command_that_errors_name_is_understood(self, data, weights, tmp_path, size):
        dataset = CamVid(data, "train_day", transform=eval_transform(size))
        words = making_command(dataset, tmp_path).replace("CHECKPOINT", str(weights[0])).split()
        opts = parse(words[2:])
        assert opts.make_uncertainty_masks
        assert opts.mask_dir == tmp_path
        assert opts.train_split == "train_day"
        assert opts.train_transform == ("resize" if size else "scale_crop")
        assert size in (None, opts.crop_size)

    def test_training_reads_them_and_refuses_damaged_ones(
        self, data, weights, made, tmp_path, caplog
    ):
        masks = tmp_path / "masks"
        masks.mkdir()
        for name, content in contents(made).items():
            (masks / name).write_bytes(content)
        argv = [
            *("--dataset", "camvid", "--data_root", str(data), "--crop_size", "40x56"),
            *("--pretrained_backbone", "none", "--loss_type", "uncertainty_cross_entropy"),
            *("--total_itrs", "2", "--batch_size", "2", "--num_workers", "0"),
            *("--output_dir", str(tmp_path), "--mask_dir", str(masks)),
        ]
        dataset = CamVid(data, "train")
        changed_byte(mask_path(masks, dataset.items[2]))
        assert main(argv) == 1
        assert f"{mask_path(masks, dataset.items[2])} is damaged" in caplog.text
        assert main(flags(data, masks, weights)) == 0
        assert main(argv) == 0
