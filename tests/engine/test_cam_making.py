import numpy as np
import pytest
import torch
from torch import nn

from datasets.cams import CamReader
from datasets.camvid import CamVid
from datasets.tags import MASKS, ImageTags
from datasets.taxonomy import VOC
from engine.batch import prepare
from engine.cam_inference import CamPredictor, MultiScale, RefinedMaps
from engine.cam_making import (
    CAM_FLAGS,
    CamWriter,
    boxes_of,
    check_cam_flags,
    run_cam_making,
    scales_of,
)
from tests.engine.cam_runs import (
    options,
    stop_half_way,
    use_network,
    write_images,
)
from tests.engine.map_runs import contents, manifest_of
from tests.network.cam_toy import cam_network
from utils.types import Prediction


@pytest.fixture(scope="module")
def root(new_folder):
    return write_images(new_folder("data"))


@pytest.fixture
def ckpt(tmp_path):
    path = tmp_path / "cam.pth"
    path.write_bytes(b"stands for a network")
    return path


@pytest.fixture(autouse=True)
def _wired(monkeypatch):
    use_network(monkeypatch)


@pytest.fixture
def made(root, ckpt, tmp_path):
    """Maps of one go."""
    directory = tmp_path / "cams"
    assert run_cam_making(options(root, ckpt=ckpt, cam_dir=directory)) == 0
    return directory


def test_maps_are_those_of_the_network_for_the_labelled_classes(root, made):
    dataset = CamVid(root, "train", labelled=False)
    tags = ImageTags(MASKS, CamVid(root, "train"))
    reader = CamReader(made)
    reader.check(dataset)
    torch.manual_seed(0)
    network = cam_network(11, background=None).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(8)
        for index, item in enumerate(dataset.items):
            batch = {
                "image": dataset[index]["image"].as_subclass(torch.Tensor)[None],
                "image_labels": tags(item)[None],
            }
            predictor = CamPredictor(RefinedMaps(network), MultiScale(), None)
            expected = predictor.of_batch(prepare(batch, torch.device("cpu"))).logits[0]
            classes, maps = reader(item)
            assert classes.tolist() == sorted({index % 3, 3 + index % 2})
            assert maps.shape == expected.shape
            assert maps.std() > 0.01
            torch.testing.assert_close(maps, expected, rtol=0, atol=1e-3)


def test_the_manifest_says_what_made_them(root, made, ckpt):
    manifest = manifest_of(made)
    assert manifest["content"] == "class activation maps"
    assert manifest["complete"] is True
    assert (manifest["images"], manifest["size"], manifest["num_classes"]) == (6, "native", 11)
    assert manifest["inference"] == {"kind": "multi_scale", "scales": [0.5, 1, 1.5, 2]}
    assert manifest["background"] is None
    assert manifest["tags"] == ImageTags(MASKS, CamVid(root, "train")).fingerprint()
    assert manifest["checkpoints"][0]["file"] == ckpt.name
    assert set(manifest["flags"]) == set(CAM_FLAGS)
    assert manifest["classes"][0] == {"name": "sky", "colour": [128, 128, 128]}


@pytest.mark.parametrize("inference", ["multi_scale", "multi_crop"])
def test_what_a_kill_left_is_completed_to_the_same_bytes(root, ckpt, tmp_path, inference):
    how = {"cam_inference": inference, "cam_scales": [0.75, 1.5], "cam_crop": 32}
    whole = tmp_path / "whole"
    assert run_cam_making(options(root, ckpt=ckpt, cam_dir=whole, **how)) == 0
    half = stop_half_way(whole, 3)
    assert run_cam_making(options(root, ckpt=ckpt, cam_dir=half, **how)) == 0
    assert contents(half) == contents(whole)


def test_a_damaged_file_is_made_again(root, ckpt, made, caplog):
    expected = contents(made)
    path = sorted(made.glob("*_cam.npz"))[2]
    path.write_bytes(path.read_bytes()[:-4])
    assert run_cam_making(options(root, ckpt=ckpt, cam_dir=made)) == 0
    assert f"{path} is damaged" in caplog.text
    assert contents(made) == expected


def test_boxes_of_another_batch_size_differ_by_rounding_alone(root, ckpt, tmp_path):
    readers = []
    for size in (1, 5):
        directory = tmp_path / str(size)
        how = {"cam_inference": "multi_crop", "cam_scales": [0.75, 1.5], "cam_crop": 32}
        how["val_batch_size"] = size
        assert run_cam_making(options(root, ckpt=ckpt, cam_dir=directory, **how)) == 0
        readers.append(CamReader(directory))
    for item in CamVid(root, "train").items:
        one, five = (reader(item)[1] for reader in readers)
        torch.testing.assert_close(one, five, rtol=0, atol=1e-3)
    inference = manifest_of(tmp_path / "1")["inference"]
    assert (inference["crop"], inference["stride"]) == (32, 21)


@pytest.mark.parametrize(
    ("change", "wording"),
    [
        ({"cam_scales": [1.0]}, "inference {'kind': 'multi_scale', 'scales': [1.0]} (there"),
        ({"eval_amp": "bf16"}, "--eval_amp bf16 (there off)"),
        ({"cam_crf_iterations": 2}, "'crf':"),
    ],
)
def test_maps_of_another_making_are_not_mixed(root, ckpt, made, change, wording):
    before = contents(made)
    with pytest.raises(ValueError, match="holds class activation maps of another") as caught:
        run_cam_making(options(root, ckpt=ckpt, cam_dir=made, **change))
    assert wording in str(caught.value)
    assert "--cam_dir" in str(caught.value)
    assert contents(made) == before


def test_other_image_labels_are_another_making(root, ckpt, made, tmp_path):
    other = write_images(tmp_path / "other")
    label = sorted((other / "trainannot").iterdir())[0]
    label.write_bytes((other / "trainannot" / "0006R0_train00001.png").read_bytes())
    with pytest.raises(ValueError, match="of another origin: .*tags "):
        run_cam_making(options(other, ckpt=ckpt, cam_dir=made))


def test_heat_maps_are_maps_of_their_own(root, ckpt, made, tmp_path):
    how = {"cam_dir": tmp_path / "heat", "cam_crf_iterations": 1}
    assert run_cam_making(options(root, ckpt=ckpt, **how)) == 0
    assert manifest_of(tmp_path / "heat")["inference"]["crf"]["iterations"] == 1
    heat, plain = CamReader(tmp_path / "heat"), CamReader(made)
    for item in CamVid(root, "train").items:
        classes, maps = heat(item)
        assert torch.equal(classes, plain(item)[0])
        assert (maps - plain(item)[1]).abs().max() > 0.1


def test_a_background_has_no_map(root, ckpt, tmp_path, monkeypatch):
    monkeypatch.setattr(CamVid, "background", 0)
    use_network(monkeypatch, network=cam_network(11, background=0))
    assert run_cam_making(options(root, ckpt=ckpt, cam_dir=tmp_path / "cams")) == 0
    reader = CamReader(tmp_path / "cams")
    for index, item in enumerate(CamVid(root, "train").items):
        assert reader(item)[0].tolist() == sorted({index % 3, 3 + index % 2} - {0})


def test_a_network_of_another_kind_or_other_classes_is_refused(root, ckpt, tmp_path, monkeypatch):
    opts = options(root, ckpt=ckpt, cam_dir=tmp_path / "cams")
    use_network(monkeypatch, classes=VOC)
    with pytest.raises(ValueError, match=r"has 21 classes \(background, .*camvid has 11"):
        run_cam_making(opts)
    use_network(monkeypatch)
    monkeypatch.setattr("methods.cam.Cam.deployable", lambda self: nn.Conv2d(3, 11, 1))
    with pytest.raises(ValueError, match=r"cam\.pth holds no classifier with activation maps"):
        run_cam_making(opts)
    assert not (tmp_path / "cams").exists()


def test_an_image_without_finite_maps_is_named(tmp_path):
    maps = torch.zeros(2, 1, 3, 4)
    maps[1, 0, 1, 1] = float("nan")
    writer = CamWriter(tmp_path, {"a", "b"}, background=None)
    batch = {"id": ["a", "b"], "image_labels": torch.ones(2, 1)}
    with pytest.raises(ValueError, match="prediction of b is not finite.*no class activation map"):
        writer.update(batch, Prediction(maps))
    writer.all_reduce()


class TestFlags:
    def problems(self, root, *argv, **values):
        opts = options(root, **{"ckpt": "cam.pth", **values})
        opts.typed = frozenset({*opts.typed, *argv})
        return list(check_cam_flags(opts))

    def test_what_is_right_has_no_problem(self, root):
        assert self.problems(root) == []
        assert self.problems(root, "cam_crop", cam_inference="multi_crop") == []
        assert self.problems(root, make_cams=False, ckpt=None) == []

    @pytest.mark.parametrize(
        ("argv", "values", "wording"),
        [
            (["cam_scales"], {"make_cams": False}, "--cam_scales is of the making"),
            ([], {"ckpt": None}, "add --ckpt"),
            ([], {"image_tags": None}, "add --image_tags"),
            (["eval_flip"], {}, "leave --eval_flip out"),
            (["window_overlap"], {}, "leave --window_overlap out"),
            (["eval_crf"], {"eval_crf": True}, "refines maps with --cam_crf_iterations 10"),
            (["calibrator"], {}, "leave --calibrator out"),
            ([], {"cam_scales": [1, float("nan")]}, "--cam_scales nan"),
            ([], {"cam_scales": [0.0]}, "--cam_scales 0"),
            (["cam_crop"], {}, "--cam_crop is of --cam_inference multi_crop"),
            ([], {"cam_inference": "multi_crop", "cam_crop": 2}, "--cam_crop, --cam_stride and"),
            (["cam_stride"], {}, "--cam_stride is of --cam_inference multi_crop"),
            (
                ["cam_stride"],
                {"cam_inference": "multi_crop", "cam_stride": 449},
                "do not go together: boxes of 448 pixels every 449",
            ),
        ],
    )
    def test_each_problem_names_its_flag(self, root, argv, values, wording):
        found = self.problems(root, *argv, **values)
        assert len(found) == 1
        assert wording in found[0]

    def test_boxes_have_the_published_distance_unless_it_is_given(self, root):
        assert boxes_of(options(root)) == (448, 300)
        assert boxes_of(options(root, cam_crop=224)) == (224, 150)
        assert boxes_of(options(root, cam_stride=448)) == (448, 448)

    def test_scales_are_the_published_ones_of_the_inference(self, root):
        assert scales_of(options(root)) == (0.5, 1, 1.5, 2)
        crops = scales_of(options(root, cam_inference="multi_crop"))
        np.testing.assert_allclose(crops, np.arange(0.75, 3.01, 0.25))
        assert scales_of(options(root, cam_scales=[1.0])) == (1.0,)
