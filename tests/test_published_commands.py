"""The five published commands, word for word, on written data at a small crop and two steps."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from datasets.streets import write_layout
from engine import checkpoint
from main import main
from network import build_model
from utils.log import read_metrics

COMMANDS = [
    "--model deeplabv3plus_resnet101 --gpu_id 0 --crop_val --lr 0.0001 --crop_size 768 --batch_size 2 --val_batch_size 1 --output_stride 16 --dataset cityscapes --data_root ./datasets/data/cityscapes --total_itrs 50000 --random_seed -1",  # noqa: E501
    "--model deep_ensemble --weight checkpoints/best_deeplabv3plus_resnet101_cityscapes_os16_seed7830581.pth --weight checkpoints/best_deeplabv3plus_mobilenet_cityscapes_os16_seed6009574.pth --weight checkpoints/best_deeplabv3plus_resnet50_cityscapes_os16_seed8344116.pth --gpu_id 0 --crop_val --lr 0.0001 --crop_size 768 --batch_size 1 --val_batch_size 1 --output_stride 16 --dataset cityscapes --data_root ./datasets/data/cityscapes --make_uncertainty_masks",  # noqa: E501
    "--model deeplabv3plus_resnet101 --gpu_id 0 --crop_val --loss_type uncertainty_cross_entropy --lr 0.0001 --crop_size 768 --batch_size 2 --val_batch_size 1 --output_stride 16 --dataset cityscapes --data_root ./datasets/data/cityscapes --total_itrs 50000 --random_seed -1",  # noqa: E501
    "--model ensemble --gpu_id 0 --crop_val --crop_size 768 --batch_size 2 --val_batch_size 1 --output_stride 16 --dataset acdc --data_root ./datasets/data/ACDC --total_itrs 50000 --random_seed -1 --member deeplabv3plus_resnet101 --member deeplabv3plus_resnet50 --member deeplabv3plus_mobilenet --ensemble_lr 0.0001 --ensemble_lr 0.0001 --ensemble_lr 0.001",  # noqa: E501
    "--model deeplabv3plus_resnet101 --ckpt checkpoints/best_deeplabv3plus_resnet101_acdc_os16_seed7830581.pth --gpu_id 0 --crop_val --crop_size 768 --batch_size 2 --val_batch_size 1 --output_stride 16 --dataset cityscapes --data_root ./datasets/data/cityscapes --random_seed -1 --test_only",  # noqa: E501
]
SMALL = "--crop_size 48 --num_workers 0"
TWO_STEPS = "--total_itrs 2 --val_interval 2 --print_interval 1 --pretrained_backbone none"
CLASSES = 19


@pytest.fixture(scope="module")
def workplace(new_folder):
    """A folder with both data sets and four published checkpoints, as the commands expect it."""
    folder = new_folder("published")
    size = (64, 128)
    write_layout("cityscapes", folder / "datasets/data/cityscapes", images_per_split=3, size=size)
    write_layout("acdc", folder / "datasets/data/ACDC", images_per_split=1, size=size)
    (folder / "checkpoints").mkdir()
    torch.manual_seed(0)
    for name, seed in (("resnet101", 7830581), ("mobilenet", 6009574), ("resnet50", 8344116)):
        network = build_model(f"deeplabv3plus_{name}", CLASSES)
        content = {"model_state": network.state_dict(), "cur_itrs": 9, "best_score": 0.5}
        stem = f"best_deeplabv3plus_{name}_{{}}_os16_seed{seed}.pth"
        torch.save(content, folder / "checkpoints" / stem.format("cityscapes"))
        if name == "resnet101":
            torch.save(content, folder / "checkpoints" / stem.format("acdc"))
    return folder


@pytest.fixture
def run(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    published = set(Path("checkpoints").iterdir())

    def run_command(number, more):
        return main([*shlex.split(COMMANDS[number]), *shlex.split(more)])

    yield run_command
    for path in set(Path("checkpoints").iterdir()) - published:
        path.unlink()  # gigabytes, which the next test does not read


def newest(pattern):
    return max(Path().glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def test_cross_entropy(run):
    assert run(0, f"{SMALL} {TWO_STEPS}") == 0
    written = checkpoint.read(
        newest("checkpoints/latest_deeplabv3plus_resnet101_cityscapes_os16_seed*.pth")
    )
    assert written["cur_itrs"] == 2
    assert written["opts"]["random_seed"] >= 0
    assert written["opts"]["eval_size"] == "crop"


def test_masks_then_training_on_them(run, caplog):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.build.choose_device", lambda opts: pytest.fail("before the masks"))
        assert run(2, f"{SMALL} {TWO_STEPS}") == 1
    assert "uncertainty_masks" in caplog.text
    assert run(1, SMALL) == 0
    masks = Path("datasets/data/cityscapes/uncertainty_masks")
    manifest = json.loads((masks / "manifest.json").read_text())
    assert manifest["complete"]
    assert len(list(masks.rglob("*.png"))) == 3
    assert run(2, f"{SMALL} {TWO_STEPS}") == 0
    name = "latest_deeplabv3plus_resnet101_cityscapes_os16_seed*_uncertainty_cross_entropy.pth"
    assert checkpoint.read(newest(f"checkpoints/{name}"))["cur_itrs"] == 2


def test_online_ensemble(run):
    assert run(3, f"{SMALL} {TWO_STEPS}") == 0
    whole = newest("checkpoints/latest_ensemble_acdc_os16_seed*_uncertainty_cross_entropy.pth")
    written = checkpoint.read(whole)
    members = [f"deeplabv3plus_{name}" for name in ("resnet101", "resnet50", "mobilenet")]
    assert list(written["optimizer_state"]) == members
    rates = [written["optimizer_state"][name]["param_groups"][1]["initial_lr"] for name in members]
    assert rates == [1e-4, 1e-4, 1e-3]
    for name in members:
        best = newest(f"checkpoints/best_{name}_acdc_os16_seed*_ensemble-uncertainty*.pth")
        assert checkpoint.read(best)["opts"]["model"] == name
    records = read_metrics(newest("runs/ensemble_acdc*") / "metrics.jsonl")
    validation = [record for record in records if record["kind"] == "val"]
    assert {f"{name}/miou" for name in members} | {"miou"} <= validation[-1].keys()


def test_domain_shift(run):
    assert run(4, SMALL) == 0
    result = json.loads(newest("results/*resnet101_acdc*cityscapes*.json").read_text())
    assert result["dataset"]["images"] == 3
    assert len(result["results"]["total"]["class_iou"]) == CLASSES
