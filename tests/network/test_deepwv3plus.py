import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.backbone import BACKBONES, build_backbone
from network.deeplab import SegmentationModel
from network.deepwv3plus import DeepWV3PlusHead, from_published, published_name
from network.heads import PLAIN, HeadOptions
from tests.network.conftest import rule_weights

RATES = (12, 24, 36)
SMALL = {"low_level": 6, "aux": 5, "out": 8}
ABET = HeadOptions(kind="cosine", temperature="learned")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def model(head=PLAIN):
    backbone = build_backbone("wideresnet38", 8)
    channels = {name: tap.channels for name, tap in backbone.taps.items()}
    return SegmentationModel(backbone, DeepWV3PlusHead(channels, 19, RATES, head))


def on_meta(head=PLAIN):
    with torch.device("meta"):
        return model(head).eval()


def small(head=PLAIN, rates=(2, 4, 6)):
    with torch.device("meta"):
        built = DeepWV3PlusHead(SMALL, 3, rates, head)
    built.load_state_dict(rule_weights(built.state_dict()), assign=True)
    return built.eval()


def features(n=2):
    return {
        "low_level": torch.rand(n, 6, 33, 17),
        "aux": torch.rand(n, 5, 9, 5),
        "out": torch.randn(n, 8, 9, 5),
    }


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("head", "total", "temperature"), [(PLAIN, 137_103_936, 0), (ABET, 137_104_194, 258)]
)
def test_number_of_parameters(head, total, temperature):
    built = on_meta(head)
    classifier = built.classifier
    assert parameters(built) == total
    assert parameters(built.backbone) == 105_062_720
    assert parameters(classifier.aspp) == 30_411_264
    assert parameters(classifier.project) == 6_144
    assert parameters(classifier.reducer) == 327_680
    assert parameters(classifier.classifier[:-1]) == 1_291_264
    assert parameters(classifier.classifier[-1]) == 4_864
    assert (parameters(classifier.temperature) if temperature else 0) == temperature


@pytest.mark.parametrize("size", [(64, 64), (97, 65)])
@pytest.mark.parametrize("head", [PLAIN, ABET])
def test_sizes(size, head):
    built = on_meta(head)
    shapes = {}
    for name, module in built.classifier.named_modules():
        module.register_forward_hook(
            lambda _m, _i, output, name=name: shapes.update({name: getattr(output, "shape", None)})
        )
    output = built(torch.empty(2, 3, *size, device="meta"))
    assert output.logits.shape == (2, 19, *size)
    assert (output.temperature is None) == (head is PLAIN)
    if output.temperature is not None:
        assert output.temperature.shape == (2, 1, *size)
    at = {stride: tuple(-(-side // stride) for side in size) for stride in (2, 8)}
    assert shapes["project"] == (2, 48, *at[2])
    assert shapes["aspp"] == (2, 1280, *at[8])
    assert shapes["reducer"] == (2, 256, *at[8])
    assert shapes["classifier.5"] == (2, 256, *at[2])


def test_whole_network_runs():
    """Once at its full width, with weights as drawn."""
    torch.manual_seed(0)
    built = model(ABET).eval()
    with torch.no_grad():
        output = built(torch.randn(1, 3, 97, 65))
    assert output.logits.shape == (1, 19, 97, 65)
    assert output.logits.isfinite().all()
    assert output.logits.std() > 0
    assert output.temperature.shape == (1, 1, 97, 65)


def conv_norm_relu(state, conv, norm, x, rate=1):
    padding = rate * (state[f"{conv}.weight"].shape[-1] // 2)
    y = F.conv2d(x, state[f"{conv}.weight"], padding=padding, dilation=rate)
    entries = (f"{norm}.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(y, *(state[entry] for entry in entries), eps=1e-5))


def published_state(head):
    """The head's tensors under the names of the published network."""
    own = head.state_dict()
    published = {}
    for name in head_names(with_class_head=True):
        published[name] = own[published_name(name).removeprefix("classifier.")]
    assert len(published) == len(own)
    return published


def head_names(with_class_head):
    units = [
        ("aspp.img_conv.0", "aspp.img_conv.1"),
        *((f"aspp.features.{n}.0", f"aspp.features.{n}.1") for n in range(4)),
        ("final.0", "final.1"),
        ("final.3", "final.4"),
    ]
    convs = [*(conv for conv, _ in units), "bot_fine", "bot_aspp"]
    return [
        *(f"{conv}.weight" for conv in convs),
        *(f"{norm}.{entry}" for _, norm in units for entry in NORM),
        *(["final.6.weight"] if with_class_head else []),
    ]


def test_arithmetic_of_the_specification():
    """The decoder written down from the specification, on the published names."""
    head = small()
    state = published_state(head)
    inputs = features()
    x = inputs["out"]
    pooled = conv_norm_relu(
        state, "aspp.img_conv.0", "aspp.img_conv.1", x.mean((2, 3))[..., None, None]
    )
    branches = [F.interpolate(pooled, (9, 5), mode="bilinear", align_corners=True)]
    for number, rate in enumerate((1, 2, 4, 6)):
        name = f"aspp.features.{number}"
        branches.append(conv_norm_relu(state, f"{name}.0", f"{name}.1", x, rate))
    y = F.conv2d(torch.cat(branches, 1), state["bot_aspp.weight"])
    y = F.interpolate(y, (33, 17), mode="bilinear", align_corners=True)
    low_level = F.conv2d(inputs["low_level"], state["bot_fine.weight"])
    y = torch.cat([low_level, y], 1)
    y = conv_norm_relu(state, "final.0", "final.1", y)
    y = conv_norm_relu(state, "final.3", "final.4", y)
    with torch.no_grad():
        torch.testing.assert_close(head.penultimate(inputs), y, rtol=1e-4, atol=1e-5)
        logits = head(inputs, (66, 35)).logits
    y = F.interpolate(y, (66, 35), mode="bilinear", align_corners=True)
    y = F.conv2d(y, state["final.6.weight"])  # published: the class head at the full size
    torch.testing.assert_close(logits, y, rtol=1e-4, atol=1e-5)


def test_temperature_is_upsampled_with_aligned_corners():
    """T and the cosines of the full-size features, as the published network has them."""
    head = small(ABET)
    inputs = features()
    with torch.no_grad():
        output = head(inputs, (66, 35))
        full = F.interpolate(
            head.penultimate(inputs), (66, 35), mode="bilinear", align_corners=True
        )
        temperature = head.temperature(full)
        logits = head.classifier[-1](full) / temperature
    torch.testing.assert_close(output.temperature, temperature, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, logits, rtol=1e-3, atol=1e-4)


def test_odd_sizes_are_aligned_exactly():
    """Of 33 rows every fourth one is a row of the 9 at stride 8."""
    head = small()
    inputs = features()
    with torch.no_grad():
        joined = head.classifier_input(inputs)
        pooled = head.reducer(head.aspp(inputs["out"]))
    assert joined.shape == (2, 304, 33, 17)
    torch.testing.assert_close(joined[:, 48:, ::4, ::4], pooled, rtol=1e-4, atol=1e-5)


def test_initialisation():
    torch.manual_seed(0)
    head = DeepWV3PlusHead(SMALL, 19, RATES)
    for conv, fan_in in ((head.classifier[0], 304 * 9), (head.classifier[3], 256 * 9)):
        weight = conv.weight.detach()
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
        kurtosis = ((weight / weight.std()) ** 4).mean().item()
        assert kurtosis == pytest.approx(3, rel=0.05)  # normal; 1.8 if uniform
    for conv in (head.project, head.reducer, head.aspp.branches[2][0]):
        fan_in = conv.weight[0].numel()
        assert conv.weight.abs().max() <= fan_in**-0.5  # the framework's, uniform
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 7
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    assert head.classifier[-1].bias is None


def trunk_names():
    return list(on_meta().backbone.state_dict())  # as published, test_wideresnet.py


def test_every_published_name_has_its_place():
    names = [*trunk_names(), *head_names(with_class_head=True)]
    renamed = [published_name(name) for name in names]
    assert len(set(renamed)) == len(names)
    assert set(renamed) == set(on_meta().state_dict())


def test_every_name_of_abet_has_its_place():
    names = [*trunk_names(), *head_names(with_class_head=False)]
    names = [f"underlying_model.{name}" for name in names]
    names += ["h.h.weight", "temperature.0.weight", *(f"temperature.1.{e}" for e in NORM)]
    state = {name: torch.tensor(position) for position, name in enumerate(names)}
    renamed = from_published(state)
    assert set(renamed) == set(on_meta(ABET).state_dict())
    assert renamed["classifier.temperature.conv.weight"] == names.index("temperature.0.weight")
    first = names.index("underlying_model.mod1.conv1.weight")
    assert renamed["backbone.mod1.conv1.weight"] == first


def test_other_states_keep_their_names():
    own = on_meta(ABET).state_dict()
    assert list(from_published(own)) == list(own)
    other = {"temperature.0.weight": torch.ones(1), "final.0.weight": torch.ones(1)}
    assert from_published(other) == other


def test_unknown_names_stay_to_be_reported():
    state = {"mod1.conv1.weight": torch.ones(1), "mod8.conv1.weight": torch.ones(2)}
    assert set(from_published(state)) == {"backbone.mod1.conv1.weight", "mod8.conv1.weight"}
    assert published_name("mod8.conv1.weight") is None


def test_rates_are_those_of_stride_8():
    assert BACKBONES["wideresnet38"].pyramid_stride == 8
    branches = on_meta().classifier.aspp.branches
    assert [branch[0].dilation[0] for branch in list(branches)[1:]] == [1, *RATES]
    assert [branch[0].padding[0] for branch in list(branches)[1:]] == [0, *RATES]
