"""Deep ensembles from files: architectures from flags, names or tensors, classes that agree."""

from pathlib import Path

import pytest
import torch

from engine.checkpoint import plain
from engine.trained import published_classes, trained_method
from methods import METHODS
from network import build_model
from options import parse

CLASSES = 5
CAT = {"classes": list("abcde"), "colours": [(i, i, i) for i in range(5)]}


def write(path, model="deeplabv3plus_mobilenet", seed=0, separable=False, **more):
    torch.manual_seed(seed)
    network = build_model(model, CLASSES, separable_conv=separable)
    torch.save({"model_state": network.state_dict(), **more}, path)
    return network.eval()


def ensemble(*paths, argv=()):
    weights = [word for path in paths for word in ("--weight", str(path))]
    opts = parse(["--model", "deep_ensemble", *weights, "--test_only", "--data_root", "x", *argv])
    return trained_method(opts)


@pytest.fixture
def images():
    return torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_members_of_three_architectures_from_three_sources(tmp_path, images):
    flags = {"model": "deeplabv3_mobilenet", "dataset": "streets", "dropout": 0.2}
    networks = [
        write(tmp_path / "any.pth", "deeplabv3_mobilenet", opts=flags, **CAT),
        write(
            tmp_path / "best_deeplabv3plus_mobilenet_camvid_os8_seed3.pth",
            cur_itrs=7, separable=True, **CAT,
        ),
        write(tmp_path / "unnamed.pth", "deeplabv3plus_resnet50", seed=2, **CAT),
    ]  # fmt: skip
    trained = ensemble(*sorted(tmp_path.iterdir()), argv=["--dataset", "camvid"])
    assert list(trained.method.members()) == [
        "deeplabv3_mobilenet",
        "deeplabv3plus_mobilenet",
        "deeplabv3plus_resnet50",
    ]
    assert [source.step for source in trained.sources] == [None, 7, None]
    assert trained.class_names == tuple("abcde")
    found = trained.method.predict(images)
    for index in (0, 2):  # the second one's stride is 8
        expected = networks[index](images).logits
        torch.testing.assert_close(found.member_logits[index], expected)
    mean = found.member_logits.softmax(2).mean(0)
    torch.testing.assert_close(found.logits.softmax(1), mean, rtol=0, atol=1e-6)
    members = dict(trained.method.members())
    assert members["deeplabv3_mobilenet"].backbone.dropout.p == 0.2
    stride = images.shape[-1] / members["deeplabv3plus_mobilenet"].backbone(images)["out"].shape[-1]
    assert round(stride) == 8
    assert not any(module.training for module in trained.method.modules())


@torch.no_grad()
def test_typed_strides_hold_for_all_members(tmp_path, images):
    write(tmp_path / "a.pth", opts={"model": "deeplabv3plus_mobilenet", "output_stride": 16}, **CAT)
    one = ensemble(tmp_path / "a.pth", argv=["--output_stride", "8"])
    (member,) = one.method.members().values()
    assert member.backbone(images)["out"].shape[-1] == 7


@torch.no_grad()
def test_a_trained_ensemble_can_be_a_member(tmp_path, images):
    argv = ["--model", "ensemble", "--num_models", "2", "--backbone", "mobilenet"]
    opts = parse(["--pretrained_backbone", "none", "--crop_size", "40x56", *argv])
    torch.manual_seed(0)
    method = METHODS["ensemble"](opts, CLASSES).eval()
    content = {"model_state": method.deployable().state_dict(), "opts": plain(opts), **CAT}
    torch.save(content, tmp_path / "joint.pth")
    alone = write(tmp_path / "alone.pth", seed=4, **CAT)
    found = ensemble(tmp_path / "joint.pth", tmp_path / "alone.pth").method.predict(images)
    expected = [method.predict(images).logits.softmax(1), alone(images).logits.softmax(1)]
    torch.testing.assert_close(found.logits.softmax(1), sum(expected) / 2, rtol=0, atol=1e-6)


def test_members_with_other_classes_are_refused(tmp_path):
    write(tmp_path / "a.pth", **CAT)
    other = {"classes": list("xyzde"), "colours": CAT["colours"]}
    write(tmp_path / "b.pth", **other)
    with pytest.raises(ValueError, match=r"same classes: .*a\.pth has 5 \(a, b, c, \.\.\.\).*x, y"):
        ensemble(tmp_path / "a.pth", tmp_path / "b.pth")


def test_a_file_without_names_has_the_classes_that_its_number_tells():
    for count, name in ((19, "road"), (21, "background"), (65, "Bird"), (91, "background")):
        assert published_classes(Path("a.pth"), count)[0].name == name
    with pytest.raises(ValueError, match=r"a\.pth has 20 classes .* or COCO-14 \(91\)"):
        published_classes(Path("a.pth"), 20)


def test_an_unknown_architecture_is_refused(tmp_path):
    state = {"conv.weight": torch.zeros(3, 3, 1, 1), "conv.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"nothing tells the architecture of .*a\.pth"):
        ensemble(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "deep_ensemble", "--weight", "a.pth"], "joins trained networks"),
        (["--model", "deep_ensemble", "--test_only"], "needs its members: --weight"),
        (["--model", "deep_ensemble", "--test_only", "--weight", "no/a.pth"], "--weight no/a.pth"),
        (["--weight", "a.pth", "--test_only"], "--weight names members of --model deep_ensemble"),
        (["--make_uncertainty_masks"], "--make_uncertainty_masks needs a trained network"),
        (["--scores", "mutual_information", "--test_only", "--ckpt", "x"], "compares members"),
    ],
)
def test_mistakes_are_one_sentence(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(argv)
    assert message in capsys.readouterr().err


def test_a_released_classifier_has_as_many_classes_as_its_head(tmp_path):
    network = build_model("cam_mobilenet", 21, background=0)
    state = network.state_dict()
    released = {
        name.removeprefix("backbone."): value
        for name, value in state.items()
        if name.startswith("backbone.")
    }
    for ours, theirs in (
        ("classifier", "fc8"),
        ("correlation.sides.middle", "f8_3"),
        ("correlation.sides.aux", "f8_4"),
        ("correlation.joint", "f9"),  # the last convolution of the file, and no class head
    ):
        released[f"{theirs}.weight"] = state[f"{ours}.weight"]
    path = tmp_path / "released.pth"
    torch.save(released, path)
    argv = ["--test_only", "--ckpt", str(path), "--model", "cam_mobilenet", "--dataset", "voc"]
    trained = trained_method(parse([*argv, "--data_root", "x"]))
    assert len(trained.class_names) == 21
    loaded = trained.method.deployable().state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
