import pickle
import urllib.error

import pytest
import torch

from network import build_model
from network.backbone import build_backbone, hrnetv2, xception
from network.weights import download_weights, load_into, read_weights


class Harmful:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def torchvision_file(path, drop=(), **extra):
    """A file with MobileNetV2's keys as torchvision writes them."""
    state = build_backbone("mobilenet", 16).state_dict()
    weights = {
        key.replace("low_level_", "").replace("high_level_", ""): torch.rand(value.shape)
        for key, value in state.items()
    }
    weights = {key: value for key, value in weights.items() if key not in drop}
    weights |= {"features.18.0.weight": torch.rand(4), "classifier.1.bias": torch.rand(4)} | extra
    torch.save(weights, path)
    return weights


def test_imagenet_file_loads(mobilenet_weights):
    weights = torch.load(mobilenet_weights, weights_only=True)
    model = build_model("deeplabv3plus_mobilenet", 11, pretrained_backbone=str(mobilenet_weights))
    torch.testing.assert_close(
        model.backbone.low_level_features[0][0].weight, weights["features.0.0.weight"]
    )
    torch.testing.assert_close(
        model.backbone.high_level_features[-1].conv[-1].running_var,
        weights["features.17.conv.3.running_var"],
    )


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state"])
def test_every_tensor_is_loaded(tmp_path, wrapper):
    path = tmp_path / "weights.pth"
    weights = torchvision_file(path)
    if wrapper:
        torch.save({wrapper: {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, path)
    state = build_backbone("mobilenet", 16, pretrained=str(path)).state_dict()
    for key, value in state.items():
        name = key.replace("low_level_", "").replace("high_level_", "")
        torch.testing.assert_close(value, weights[name].to(value.dtype))


def test_old_files_count_no_batches(tmp_path):
    path = tmp_path / "weights.pth"
    weights = torchvision_file(path)
    torch.save({k: v for k, v in weights.items() if not k.endswith("batches_tracked")}, path)
    backbone = build_backbone("mobilenet", 16, pretrained=str(path))
    torch.testing.assert_close(
        backbone.low_level_features[0][0].weight, weights["features.0.0.weight"]
    )


def test_missing_tensor(tmp_path):
    path = tmp_path / "weights.pth"
    torchvision_file(path, drop=("features.5.conv.2.weight",))
    with pytest.raises(ValueError, match=r"1 tensors are missing.*high_level_features\.5\.conv\.2"):
        build_backbone("mobilenet", 16, pretrained=str(path))


def test_other_shape_and_stray_tensor(tmp_path):
    path = tmp_path / "weights.pth"
    torchvision_file(
        path, **{"features.0.0.weight": torch.rand(32, 1, 3, 3), "stray": torch.rand(1)}
    )
    with pytest.raises(ValueError, match="does not fit MobileNetV2") as caught:
        build_backbone("mobilenet", 16, pretrained=str(path))
    message = str(caught.value)
    assert "is (32, 1, 3, 3) and should be (32, 3, 3, 3)" in message
    assert "1 have no place, such as stray" in message


def test_other_architecture(tmp_path):
    path = tmp_path / "weights.pth"
    torchvision_file(path)
    with pytest.raises(ValueError, match=r"does not fit ResNet-50: \d+ tensors are missing"):
        build_backbone("resnet50", 16, pretrained=str(path))


def test_a_misfit_changes_nothing(tmp_path):
    model = torch.nn.Linear(2, 2)
    before = model.weight.clone()
    with pytest.raises(ValueError, match="1 tensors are missing, such as bias"):
        load_into(
            model,
            {"weight": torch.ones(2, 2)},
            rename=lambda key: key,
            source="file",
            architecture="Linear",
        )
    torch.testing.assert_close(model.weight, before)


def test_missing_file(tmp_path):
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match=r"wieghts.pth: no such file .*has weights.pth.*none"):
        read_weights(tmp_path / "wieghts.pth")
    with pytest.raises(ValueError, match="there is no folder"):
        read_weights(tmp_path / "absent" / "weights.pth")


def test_broken_files(tmp_path):
    path = tmp_path / "weights.pth"
    torchvision_file(path)
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"not weights", content[:100]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"weights.pth: not a readable file of weights"):
            read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_not_run(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"weight": Harmful(trace)}, path)
    with pytest.raises(ValueError, match="objects other than tensors"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(ValueError, match="not a readable file"):
        read_weights(path)
    assert not trace.exists()


def test_not_a_dict_of_tensors(tmp_path):
    path = tmp_path / "weights.pth"
    for content in (torch.ones(3), [1, 2], {"weight": 1.0}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"not the dict of tensors"):
            read_weights(path)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), RuntimeError("invalid hash value")]
)
def test_no_network(monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"cannot download .*--pretrained_backbone none.* PATH"):
        build_model("deeplabv3plus_mobilenet", 3, pretrained_backbone="imagenet")


def test_download_is_checked_and_safe(monkeypatch):
    asked = {}

    def load(url, **options):
        asked.update(options, url=url)
        return {}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    download_weights("https://example.org/model-0123abcd.pth")
    assert asked["check_hash"]
    assert asked["weights_only"]


def test_hrnet_has_no_address(tmp_path):
    with torch.device("meta"), pytest.raises(ValueError, match=r"no address .*HRNetV2-W32.*PATH"):
        build_model("deeplabv3plus_hrnetv2_32", 3, pretrained_backbone="imagenet")


@pytest.mark.parametrize(
    ("timm_name", "name", "rename"),
    [
        ("legacy_xception", "xception", xception.published_name),
        ("hrnet_w32", "hrnetv2_32", hrnetv2.published_name),
        ("hrnet_w48", "hrnetv2_48", hrnetv2.published_name),
    ],
)
def test_published_names(timm_name, name, rename):
    """timm keeps the names and shapes of the published ImageNet files."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        published = timm.create_model(timm_name).state_dict()
        ours = build_backbone(name, 16).state_dict()
    renamed = {rename(key): value.shape for key, value in published.items()}
    renamed.pop(None)
    assert renamed == {key: value.shape for key, value in ours.items()}
