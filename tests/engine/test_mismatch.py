"""Checkpoints of other heads: what is said, and which flags make them fit."""

from pathlib import Path

import pytest
import torch

from engine import checkpoint
from engine.mismatch import all_of_head, fitting_flags, last_layer
from network import PyramidOptions, build_model
from network.ensemble import DeepEnsemble
from network.heads import HeadOptions

MODEL = "deeplabv3plus_mobilenet"
LAST = "classifier.classifier.3"
TEMPERATURE = "classifier.temperature"
OF_TEMPERATURE = (
    "conv.weight",
    *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    "norm.num_batches_tracked",
)
HEADS = [("linear", "none"), ("linear", "learned"), ("cosine", "none"), ("cosine", "learned")]


def network(kind, temperature, num_classes=3, *, floor=1e-3, model=MODEL):
    return build_model(model, num_classes, head=HeadOptions(kind, temperature, floor))


@pytest.fixture(scope="module")
def networks():
    return {head: network(*head) for head in HEADS}


@pytest.fixture(autouse=True)
def _few_models(monkeypatch):
    """Building all of them to compare takes seconds."""
    monkeypatch.setattr("engine.mismatch.MODELS", ("deeplabv3_mobilenet", MODEL))


def own_names(head, other):
    """The tensors that only the first of two heads has, in their order."""
    bias = [f"{LAST}.bias"] * (head[0] == "linear" != other[0])
    learned = [f"{TEMPERATURE}.{name}" for name in OF_TEMPERATURE]
    return bias + learned * (head[1] == "learned" != other[1])


def load(own, theirs, **options):
    return checkpoint.load_network(own, theirs.state_dict(), Path("some.pth"), **options)


@pytest.mark.parametrize("own", HEADS, ids="-".join)
@pytest.mark.parametrize("theirs", HEADS, ids="-".join)
def test_every_head_fits_itself_and_is_named_to_others(networks, own, theirs):
    """The message names the tensors on both sides and the two flags that the file needs."""
    if own == theirs:
        assert load(networks[own], networks[theirs]) == []
        return
    with pytest.raises(ValueError, match=r"^some\.pth does not fit the network: ") as error:
        load(networks[own], networks[theirs])
    said = str(error.value)
    assert f"it fits --model {MODEL} --head {theirs[0]} --temperature {theirs[1]}," in said
    assert said.endswith("or --reset_head trains a new head on top of it")
    assert "\n" not in said
    for what, names in (("missing", own_names(own, theirs)), ("unknown", own_names(theirs, own))):
        assert (f"{len(names)} {what} ({', '.join(names[:3])}" in said) == bool(names)


def test_other_heads_of_other_classes_are_about_the_classes(networks):
    with pytest.raises(ValueError, match=r"some\.pth classifies 5 classes, this run 3: "):
        load(networks["cosine", "learned"], network("cosine", "none", 5))


@pytest.mark.parametrize("own", HEADS, ids="-".join)
@pytest.mark.parametrize("theirs", HEADS, ids="-".join)
def test_reset_head_leaves_a_new_last_layer_and_what_only_one_side_has(own, theirs):
    torch.manual_seed(1)
    mine = network(*own)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    other = network(*theirs).state_dict()
    left = checkpoint.load_network(mine, other, Path("some.pth"), reset_head=True)
    fresh = last_layer(before)
    assert left == [name for name in before if name not in other or name in fresh]
    for name, tensor in mine.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left else other[name]), name


def test_another_model_is_named_with_its_head(networks):
    other = build_model("deeplabv3_mobilenet", 3, head=HeadOptions("cosine", "learned"))
    with pytest.raises(ValueError, match="--head cosine --temperature learned"):
        load(networks["linear", "none"], other)


def test_the_floor_of_a_temperature_is_no_tensor():
    low, high = (network("cosine", "learned", floor=floor) for floor in (1e-12, 0.5))
    assert load(low, high) == []
    low.eval()
    high.eval()
    image = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = [each(image).temperature for each in (low, high)]
    torch.testing.assert_close(maps[1] - maps[0], torch.full_like(maps[0], 0.5))


@pytest.mark.parametrize("head", HEADS, ids="-".join)
def test_flags_follow_from_the_tensors(networks, head):
    """Whatever the number of classes, and with a separable head too."""
    expected = {"model": MODEL, "separable_conv": False, "head": head[0], "temperature": head[1]}
    expected["aux_head"] = False
    for num_classes in (3, 7):
        state = network(*head, num_classes).state_dict()
        assert fitting_flags(state) == expected
    separable = build_model(MODEL, 3, separable_conv=True, head=HeadOptions(*head)).state_dict()
    assert fitting_flags(separable) == {**expected, "separable_conv": True}


@pytest.mark.parametrize("head", HEADS, ids="-".join)
def test_the_last_layer_is_the_classes_and_not_the_temperature(networks, head):
    state = networks[head].state_dict()
    assert last_layer(state) == (f"{LAST}.weight", f"{LAST}.bias")
    temperature = [name for name in state if ".temperature." in name]
    assert bool(temperature) == (head[1] == "learned")
    assert all_of_head([f"{LAST}.weight", *temperature], state)
    assert not all_of_head([f"{LAST}.weight", "classifier.aspp.project.0.weight"], state)


def test_of_an_ensemble_each_member_has_its_last_layer():
    joint = DeepEnsemble([network("cosine", "learned"), network("linear", "none")]).state_dict()
    expected = [f"members.{m}.{LAST}.{kind}" for m in (0, 1) for kind in ("weight", "bias")]
    assert list(last_layer(joint)) == expected


def test_without_a_convolution_nothing_fits():
    state = {"fc.weight": torch.zeros(2, 3)}
    assert fitting_flags(state) is None
    with pytest.raises(IndexError, match="no convolution"):
        last_layer(state)


MULTI = "deeplab_multi_resnet101"
PYRAMIDS = [PyramidOptions(norm, se) for norm in ("bn", "gn") for se in (False, True)]


def two_heads(pyramid, num_classes=3, model=MODEL):
    with torch.device("meta"):
        return build_model(model, num_classes, pyramid=pyramid)


@pytest.mark.parametrize("pyramid", PYRAMIDS, ids=lambda o: f"{o.norm}-{o.squeeze_excitation}")
@pytest.mark.parametrize("model", [MODEL, MULTI])
def test_flags_of_an_auxiliary_head(monkeypatch, model, pyramid):
    monkeypatch.setattr("engine.mismatch.MODELS", (MODEL, MULTI))
    assert fitting_flags(two_heads(pyramid, 7, model).state_dict()) == {
        "model": model,
        "separable_conv": False,
        "head": "linear",
        "temperature": "none",
        "aux_head": model == MODEL,
        "head_norm": pyramid.norm,
        "use_se": pyramid.squeeze_excitation,
    }


def test_instance_norm_is_taken_for_group_norm():
    """Their tensors are the same."""
    found = fitting_flags(two_heads(PyramidOptions("in")).state_dict())
    assert found["head_norm"] == "gn"


def said(own, theirs):
    with pytest.raises(ValueError, match=r"^some\.pth does not fit the network: ") as error:
        load(own, theirs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_with_an_auxiliary_head_names_its_flags(networks):
    plain = networks["linear", "none"]
    message = said(plain, two_heads(PyramidOptions("gn", squeeze_excitation=True)))
    assert "unknown (aux_classifier." in message
    assert message.endswith(f"it fits --model {MODEL} --aux_head --head_norm gn (or in) --use_se")
    message = said(plain, two_heads(PyramidOptions()))
    assert message.endswith(f"--model {MODEL} --aux_head --head_norm bn without --use_se")


def test_a_file_without_an_auxiliary_head_says_so(networks):
    message = said(two_heads(PyramidOptions()), networks["linear", "none"])
    assert "missing (aux_classifier." in message
    assert message.endswith(f"it fits --model {MODEL} without --aux_head")


def test_other_norms_and_squeeze_and_excitation_are_named():
    own = two_heads(PyramidOptions("bn"))
    assert said(own, two_heads(PyramidOptions("gn"))).endswith(
        "--head_norm gn (or in) without --use_se"
    )
    own = two_heads(PyramidOptions("gn"))
    assert said(own, two_heads(PyramidOptions("gn", True))).endswith("(or in) --use_se")


def test_a_network_that_always_has_two_heads_needs_no_flag(monkeypatch, networks):
    monkeypatch.setattr("engine.mismatch.MODELS", (MODEL, MULTI))
    message = said(networks["linear", "none"], two_heads(PyramidOptions("gn", True), model=MULTI))
    assert message.endswith(f"it fits --model {MULTI} --head_norm gn (or in) --use_se")


def test_two_heads_have_two_last_layers():
    state = two_heads(PyramidOptions()).state_dict()
    aux = "aux_classifier.classifier.classes"
    expected = [f"{name}.{kind}" for name in (LAST, aux) for kind in ("weight", "bias")]
    assert list(last_layer(state)) == expected
    joint = {f"members.{m}.{name}": tensor for m in (0, 1) for name, tensor in state.items()}
    assert list(last_layer(joint)) == [f"members.{m}.{name}" for m in (0, 1) for name in expected]


def test_other_classes_of_two_heads_are_about_the_classes():
    three, five = (build_model(MODEL, n, pyramid=PyramidOptions("gn")) for n in (3, 5))
    with pytest.raises(ValueError, match=r"some\.pth classifies 5 classes, this run 3: "):
        load(three, five)
    before = {name: tensor.clone() for name, tensor in three.state_dict().items()}
    left = load(three, five, reset_head=True)
    assert left == [name for name in last_layer(before) if name in before]
    for name, tensor in three.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left else five.state_dict()[name]), name
