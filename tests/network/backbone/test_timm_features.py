import sys

import pytest
import torch

from network import build_model
from network.backbone.timm_features import build_timm_backbone

timm = pytest.importorskip("timm")


def model(name, **options):
    return build_model("deeplabv3plus_timm", 3, backbone=name, **options)


@pytest.mark.parametrize(
    ("name", "output_stride", "aux", "out"),
    [
        ("resnet18", 16, "layer3", "layer4"),  # dilated
        ("resnet18", 8, "layer3", "layer4"),
        ("convnext_atto", 16, "stages.2", "stages.3"),
        ("pvt_v2_b0", 16, "stages.1", "stages.2"),  # cannot be dilated
        ("efficientnet_b0", 16, "blocks.4", "blocks.6"),
    ],
)
def test_features(name, output_stride, aux, out):
    backbone = build_timm_backbone(name, output_stride).eval()
    assert (backbone.taps["aux"].layer, backbone.taps["out"].layer) == (aux, out)
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 96))
    assert features["low_level"].shape[-2:] == (16, 24)
    assert features["out"].shape[-2:] == (64 // output_stride, 96 // output_stride)
    for tap, feature in features.items():
        assert feature.shape[1] == backbone.taps[tap].channels


def test_trains_at_odd_sizes():
    net = model("resnet18", dropout=0.1, checkpoint_activations=True).train()
    logits = net(torch.rand(2, 3, 37, 51)).logits
    assert logits.shape == (2, 3, 37, 51)
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert int(net.backbone.net.bn1.num_batches_tracked) == 1


def test_stages_beyond_the_output_are_left_out():
    keys = build_timm_backbone("pvt_v2_b0", 16).state_dict()
    assert any("stages_2" in key for key in keys)
    assert not any("stages_3" in key for key in keys)


def test_dropout():
    backbone = build_timm_backbone("efficientnet_b0", 16, dropout=0.5).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain = backbone(images)
        backbone.dropout.train()
        dropped = backbone(images)
    assert not any((feature == 0).any() for feature in plain.values())
    for feature in dropped.values():
        assert 0.4 < (feature == 0).float().mean() < 0.6
    assert (
        backbone.state_dict().keys()
        == build_timm_backbone("efficientnet_b0", 16).state_dict().keys()
    )


def test_weights_from_a_file(tmp_path):
    path = tmp_path / "weights.pth"
    published = timm.create_model("resnet18")
    torch.save(published.state_dict(), path)
    backbone = build_timm_backbone("resnet18", 16, pretrained=str(path))
    torch.testing.assert_close(
        backbone.net.layer4[1].conv2.weight, published.layer4[1].conv2.weight
    )
    with pytest.raises(ValueError, match="does not fit resnet34: 80 tensors are missing"):
        build_timm_backbone("resnet34", 16, pretrained=str(path))
    with pytest.raises(ValueError, match="no such file"):
        build_timm_backbone("resnet34", 16, pretrained=str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("name", "output_stride", "message"),
    [
        (None, 16, "needs --backbone NAME"),
        ("resnet81", 16, r"has no such model; nearest: resnet\d"),
        ("resnet18.nope", 16, "resnet18.nope"),
        ("vit_tiny_patch16_224", 16, r"offers strides \[16\].*needs 4 and 16"),
        ("pvt_v2_b0", 8, "cannot be dilated .*--output_stride 16"),
        ("swin_tiny_patch4_window7_224", 16, "224x224 pixels only"),
    ],
)
def test_wrong_names(name, output_stride, message):
    with pytest.raises(ValueError, match=message):
        model(name, output_stride=output_stride)


def test_weights_that_cannot_be_had(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match=r"cannot get timm's .*no route.*--pretrained_backbone none"
    ):
        build_timm_backbone("resnet18", 16, pretrained="imagenet")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        model("resnet18")
    build_model("deeplabv3plus_mobilenet", 3)  # the others do not need it
