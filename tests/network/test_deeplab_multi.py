"""The network with two heads, and an auxiliary head beside every other model's."""

import copy

import pytest
import torch
from torch.nn import functional as F

from network import (
    CAM_MODELS,
    MODELS,
    PSPNET_MODELS,
    TWO_HEADED,
    DeepEnsemble,
    PyramidOptions,
    build_model,
    from_published,
)
from network.deeplab_multi import published_name
from network.heads import HeadOptions
from network.pyramid_head import NORMS
from tests.network.conftest import rule_weights

MULTI = "deeplab_multi_resnet101"
PLUS = "deeplabv3plus_mobilenet"
PUBLISHED = PyramidOptions("gn", squeeze_excitation=True)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
OTHERS = sorted(MODELS.keys() - TWO_HEADED - CAM_MODELS - {"deeplabv3plus_timm"})


def on_meta(name=MULTI, num_classes=19, **options):
    with torch.device("meta"):
        return build_model(name, num_classes, **options)


def built(name=MULTI, num_classes=5, **options):
    model = on_meta(name, num_classes, **options)
    model.load_state_dict(rule_weights(model.state_dict()), assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def multi():
    return built(pyramid=PUBLISHED)


@pytest.fixture(scope="module")
def plus():
    return built(PLUS, pyramid=PUBLISHED)


def images(n=2, height=65, width=49):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("se", "aux", "main", "total"),
    [(True, 15_818_832, 35_217_488, 93_536_480), (False, 15_612_672, 35_011_328, 93_124_160)],
)
def test_number_of_parameters(se, aux, main, total):
    model = on_meta(pyramid=PyramidOptions("gn", se))
    assert parameters(model) == total
    assert parameters(model.aux_classifier) == aux
    assert parameters(model.classifier) == main


@pytest.mark.parametrize(
    ("side", "expected"),
    [(256, 33), (512, 65), (640, 81), (768, 97), (960, 121), (1024, 129), (1280, 161)],
)
def test_size_of_the_heads(side, expected):
    output = on_meta().eval()(torch.empty(1, 3, 512, side, device="meta"), at_stride=True)
    assert output.logits.shape == output.aux_logits.shape == (1, 19, 65, expected)


def published_names(norm, se):
    """Written down from the published network: trunk, layer5 (auxiliary), layer6 (main)."""
    stem = ["conv1.weight", *(f"bn1.{entry}" for entry in NORM)]
    blocks = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
    trunk = []
    for layer, count in blocks.items():
        for block in range(count):
            for n in (1, 2, 3):
                trunk += [f"{layer}.{block}.conv{n}.weight"]
                trunk += [f"{layer}.{block}.bn{n}.{entry}" for entry in NORM]
        trunk += [f"{layer}.0.downsample.0.weight"]
        trunk += [f"{layer}.0.downsample.1.{entry}" for entry in NORM]
    entries = NORM if norm == "bn" else NORM[:2]
    heads = []
    for layer in ("layer5", "layer6"):
        units = [(f"conv2d_list.{n}.0", f"conv2d_list.{n}.1") for n in range(5)]
        units += [("bottleneck.1", "bottleneck.2") if se else ("bottleneck.0", "bottleneck.1")]
        linear = [f"bottleneck.0.se.{n}" for n in (0, 2)] if se else []
        for unit in [*(conv for conv, _ in units), *linear]:
            heads += [f"{layer}.{unit}.{entry}" for entry in ("weight", "bias")]
        heads += [f"{layer}.{norm}.{entry}" for _, norm in units for entry in entries]
        heads += [f"{layer}.head.1.weight"]
    return [*stem, *trunk, *heads]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("se", [False, True])
def test_every_published_name_has_its_place(norm, se):
    names = published_names(norm, se)
    renamed = [published_name(name) for name in names]
    assert len(set(renamed)) == len(names)
    assert set(renamed) == set(on_meta(pyramid=PyramidOptions(norm, se)).state_dict())


def test_a_published_state_loads_bit_for_bit(multi):
    """And back; other tensors of the same shape would be seen, each being of its own rule."""
    own = multi.state_dict()
    published = {name: own[published_name(name)] for name in published_names("gn", True)}
    assert set(from_published(published)) == set(own)
    other = on_meta(num_classes=5, pyramid=PUBLISHED)
    other.load_state_dict(from_published(published), assign=True)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, own[name]), name
    trunk = published["layer3.7.conv2.weight"]
    assert torch.equal(other.backbone.layer3[7].conv2.weight, trunk)
    assert torch.equal(
        other.aux_classifier.classifier.classes.weight, published["layer5.head.1.weight"]
    )
    with torch.no_grad():
        assert torch.equal(other.eval()(images(1)).logits, multi(images(1)).logits)


def test_both_kinds_of_published_files_are_known():
    one = torch.ones(1)
    wide = from_published({"mod1.conv1.weight": one, "final.6.weight": one})
    assert set(wide) == {"backbone.mod1.conv1.weight", "classifier.classifier.6.weight"}
    two = from_published({"layer6.head.1.weight": one, "conv1.weight": one, "layer7.x": one})
    expected = {"classifier.classifier.classes.weight", "backbone.conv1.weight", "layer7.x"}
    assert set(two) == expected
    assert published_name("layer7.x") is None


def test_other_states_keep_their_names(multi):
    own = multi.state_dict()
    assert list(from_published(own)) == list(own)
    trunk = {"conv1.weight": torch.ones(1), "layer5.conv2d_list.0.weight": torch.ones(1)}
    assert from_published(trunk) == trunk


@pytest.mark.parametrize("name", ["multi", "plus"])
def test_an_image_does_not_see_its_batch(request, name):
    model = request.getfixturevalue(name)
    with torch.no_grad():
        together, alone = model(images()), model(images()[1:])
    for found, expected in ((together.logits, alone.logits), (together[1], alone[1])):
        scale = expected.abs().max()
        torch.testing.assert_close(found[1:] / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["multi", "plus"])
def test_upsampling_what_comes_at_the_heads_resolution(request, name):
    """Linear heads of one resolution: the plain output, by the model's own align_corners."""
    model = request.getfixturevalue(name)
    assert model.align_corners == (name == "multi")
    with torch.no_grad():
        plain, small = model(images()), model(images(), at_stride=True)
    assert plain.logits.shape == plain.aux_logits.shape == (2, 5, 65, 49)
    size = (9, 7) if name == "multi" else (16, 12)
    assert small.logits.shape == small.aux_logits.shape == (2, 5, *size)
    up = [
        F.interpolate(each, (65, 49), mode="bilinear", align_corners=model.align_corners)
        for each in (small.logits, small.aux_logits)
    ]
    assert torch.equal(up[0], plain.logits)
    if name == "multi":
        assert torch.equal(up[1], plain.aux_logits)
    else:  # of stride 16, it is brought to 4 on the way
        own = model.aux_classifier(model.backbone(images())).logits
        assert own.shape[-2:] == (4, 3)
        expected = F.interpolate(own, size, mode="bilinear")
        torch.testing.assert_close(small.aux_logits, expected)
        assert not torch.equal(up[1], plain.aux_logits)


def test_temperature_at_the_heads_resolution():
    model = built(PLUS, head=HeadOptions("cosine", "learned"))
    with torch.no_grad():
        output = model(images(), at_stride=True, pooled_features=True)
    assert output.logits.shape[-2:] == output.temperature.shape[-2:] == (16, 12)
    assert output.aux_logits is None
    assert output.features is not None
    assert (output.logits * output.temperature).abs().max() < 1


@pytest.mark.parametrize("name", OTHERS)
def test_every_model_takes_an_auxiliary_head(name):
    """It adds tensors and changes none; it reads the stage before the last."""
    plain, with_aux = on_meta(name), on_meta(name, pyramid=PUBLISHED).eval()
    images = torch.empty(1, 3, 128, 160, device="meta")
    own, more = plain.state_dict(), with_aux.state_dict()
    assert plain.aux_classifier is None
    assert list(own) == list(more)[: len(own)]
    assert all(name.startswith("aux_classifier.") for name in list(more)[len(own) :])
    assert with_aux.aux_classifier.taps == ("aux",)
    assert with_aux.aux_classifier.align_corners == with_aux.align_corners
    output = with_aux(images)
    assert output.logits.shape == output.aux_logits.shape == (1, 19, 128, 160)
    small = with_aux(images, at_stride=True)
    assert small.logits.shape == small.aux_logits.shape
    assert small.logits.shape[-1] < 160


def test_a_timm_backbone_takes_one():
    pytest.importorskip("timm")
    name = {"backbone": "resnet18", "pyramid": PyramidOptions("in")}
    model = build_model("deeplabv3plus_timm", 3, **name).eval()
    with torch.no_grad():
        output = model(torch.rand(1, 3, 64, 64))
    assert output.aux_logits.shape == (1, 3, 64, 64)
    assert not torch.equal(output.aux_logits, output.logits)


def test_both_heads_always():
    assert PSPNET_MODELS | {MULTI} == TWO_HEADED
    default, given = on_meta(), on_meta(pyramid=PyramidOptions())
    assert list(default.state_dict()) == list(given.state_dict())
    assert default.classifier.taps == ("out", "aux")
    assert default.aux_classifier.taps == ("aux",)


def test_the_main_head_is_drawn_as_without_another():
    states = []
    for pyramid in (None, PUBLISHED):
        torch.manual_seed(0)
        states.append(build_model(PLUS, 3, pyramid=pyramid).state_dict())
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())


@pytest.mark.parametrize(
    ("name", "separable"),
    [(MULTI, False), (PLUS, False), (PLUS, True), ("deeplabv3_mobilenet", False)],
)
def test_options_of_the_head_are_the_main_ones(name, separable):
    options = {"head": HeadOptions("cosine", "learned"), "separable_conv": separable}
    model = built(name, pyramid=PyramidOptions("gn"), **options)
    assert model.aux_classifier.temperature is None
    with torch.no_grad():
        output = model(images(1))
        linear = model.aux_classifier(model.backbone(images(1)))
        last = model.aux_classifier.classifier[-1]
        expected = F.conv2d(
            model.aux_classifier.penultimate(model.backbone(images(1))), last.weight
        )
    assert output.temperature.shape == (1, 1, 65, 49)
    assert (output.logits * output.temperature).abs().max() < 1
    torch.testing.assert_close(linear.logits, expected)
    assert any(".body." in key for key in model.aux_classifier.state_dict()) == separable


def test_parameter_groups_hold_both_heads(multi):
    groups = multi.parameter_groups()
    sizes = {group: sum(p.numel() for p in members) for group, members in groups.items()}
    heads = parameters(multi.classifier) + parameters(multi.aux_classifier)
    assert sizes == {"backbone": parameters(multi.backbone), "classifier": heads}


def test_the_auxiliary_loss_stops_before_the_last_stage(plus):
    model = copy.deepcopy(plus)
    model(images()).aux_logits.square().mean().backward()
    assert all(p.grad is not None for p in model.aux_classifier.parameters())
    assert all(p.grad is None for p in model.classifier.parameters())
    reached = [p.grad is not None for p in model.backbone.parameters()]
    assert any(reached)
    assert not all(reached)


def test_checkpointing_changes_nothing():
    plain = built(PLUS, pyramid=PyramidOptions("bn", True)).train()
    saving = copy.deepcopy(plain)
    saving.backbone.checkpoint_activations = True
    found = []
    for model in (plain, saving):
        torch.manual_seed(0)
        output = model(images(2, 33, 33))
        (output.logits.square().mean() + output.aux_logits.square().mean()).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
        found.append(model.state_dict())
    for expected, values in zip(found[:2], found[2:], strict=True):
        assert all(torch.equal(values[name], tensor) for name, tensor in expected.items())


def test_bfloat16_autocast_gives_float32_logits(plus):
    with torch.no_grad():
        exact = plus(images())
        with torch.autocast("cpu", torch.bfloat16):
            outputs = [plus(images()), plus(images(), at_stride=True)]
    for output in outputs:
        assert output.logits.dtype == output.aux_logits.dtype == torch.float32
    assert (outputs[0].aux_logits - exact.aux_logits).abs().max() < 0.2 * exact.aux_logits.std()


@torch.no_grad()
def test_an_ensemble_joins_auxiliary_heads_that_all_have(plus):
    other = built(PLUS, pyramid=PyramidOptions("bn"))
    mean = torch.stack([each(images()).aux_logits.softmax(1) for each in (plus, other)]).mean(0)
    joint = DeepEnsemble([plus, other])(images())
    torch.testing.assert_close(joint.aux_logits.softmax(1), mean, rtol=0, atol=1e-6)
    assert DeepEnsemble([plus, built(PLUS)])(images()).aux_logits is None
