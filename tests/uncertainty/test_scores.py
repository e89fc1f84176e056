import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from tests.uncertainty.maps import literal_response
from tests.uncertainty.toys import class_moments, ensemble, statistics_of
from uncertainty import (
    SCORES,
    ScoreSettings,
    build_score,
    describe_scores,
    instance_uncertainty,
)
from uncertainty.score_functions import KINDS
from uncertainty.score_names import parse_score_name
from utils.types import Prediction

VOC = (0.15, 0.2, 0.25, 4, 5, 6)
NAMES = {
    "entropy",
    "expected_entropy",
    "mutual_information",
    "msp",
    "margin",
    "abet",
    "energy",
    "max_logit",
    "godin",
    "member_variance",
    "instance",
    "response_scaling",
}
SINGLE = sorted(name for name, kind in KINDS.items() if kind.rules)
COMBINED = [f"{name}@{rule}" for name in SINGLE for rule in KINDS[name].rules]
PUBLISHED = ("entropy", "msp", "abet", "max_logit", "godin", "sml")
OF_MEMBERS = {"expected_entropy", "mutual_information", "member_variance"}


@pytest.fixture
def members():
    return torch.randn(3, 2, 5, 12, 17, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def temperatures():
    """Of the members, (M, N, 1, H, W), in (0.1, 1)."""
    return torch.rand(3, 2, 1, 12, 17, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.1


@pytest.fixture
def prediction(members, temperatures):
    return ensemble(members, temperatures)


@pytest.fixture
def settings():
    """With moments of three members."""
    return ScoreSettings(statistics=statistics_of(3, classes=5))


@pytest.fixture
def softmaxes(members):
    """Members' probabilities (M, N, C, H, W), float64, by scipy."""
    return special.softmax(members.double().numpy(), axis=2)


def score(name, prediction):
    return SCORES[name].function(prediction)


def test_the_names_and_what_they_need():
    assert SCORES.keys() == NAMES | {"disagreement"}
    special_needs = {"godin": {"temperature"}, "disagreement": {"main_logits", "aux_logits"}}
    for name, entry in SCORES.items():
        assert entry.name == name
        needs = {"member_logits"} if name in OF_MEMBERS else set()
        assert entry.needs == needs | special_needs.get(name, set())
        assert entry.variant is None
        assert entry.function.__doc__
        assert entry.function.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_map_for_each_image_in_float32_and_outside_the_graph(name, members, temperatures):
    leaves = members.bfloat16().requires_grad_(), temperatures.bfloat16().requires_grad_()
    found = score(name, ensemble(*leaves))
    assert found.shape == (2, 12, 17)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_entropies_and_mutual_information_against_scipy(prediction, softmaxes):
    total = stats.entropy(softmaxes.mean(0), axis=1)
    expected = stats.entropy(softmaxes, axis=2).mean(0)
    np.testing.assert_allclose(score("entropy", prediction), total, atol=3e-6)
    np.testing.assert_allclose(score("expected_entropy", prediction), expected, atol=3e-6)
    information = score("mutual_information", prediction)
    np.testing.assert_allclose(information, total - expected, atol=5e-6)
    assert information.max() <= math.log(3)


def test_probability_scores_against_numpy(prediction, softmaxes):
    ordered = np.sort(softmaxes.mean(0), axis=1)
    np.testing.assert_allclose(score("msp", prediction), 1 - ordered[:, -1], atol=1e-6)
    lead = ordered[:, -1] - ordered[:, -2]
    np.testing.assert_allclose(score("margin", prediction), 1 - lead, atol=1e-6)
    variance = softmaxes.var(axis=0).mean(axis=1)
    np.testing.assert_allclose(score("member_variance", prediction), variance, atol=1e-6)


@pytest.fixture
def two_heads(members):
    """A prediction of whatever logits with two heads."""
    return Prediction(members[2], main_logits=members[0], aux_logits=members[1])


def test_disagreement_is_the_divergence_of_the_auxiliary_from_the_main_head(two_heads, softmaxes):
    found = score("disagreement", two_heads)
    expected = stats.entropy(softmaxes[0], softmaxes[1], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    other_way = Prediction(
        two_heads.logits, main_logits=two_heads.aux_logits, aux_logits=two_heads.main_logits
    )
    assert (score("disagreement", other_way) - found).abs().max() > 0.1
    assert SCORES["disagreement"].highest is SCORES["disagreement"].published is None


def test_heads_that_agree_do_not_disagree(two_heads):
    offset = torch.randn(2, 1, 12, 17, generator=torch.Generator().manual_seed(4)) * 20
    shifted = two_heads._replace(aux_logits=two_heads.main_logits + offset)
    values = score("disagreement", shifted)
    assert values.min() >= 0
    assert values.max() < 1e-5
    same = score("disagreement", two_heads._replace(aux_logits=two_heads.main_logits))
    assert (same == 0).all()


def test_disagreement_in_half_precision_leaves_the_heads_alone(two_heads):
    main, aux = (
        maps.bfloat16().requires_grad_() for maps in (two_heads.main_logits, two_heads.aux_logits)
    )
    before = main.detach().clone(), aux.detach().clone()
    found = score("disagreement", Prediction(main, main_logits=main, aux_logits=aux))
    assert found.shape == (2, 12, 17)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(main, before[0])
    assert torch.equal(aux, before[1])


def test_disagreement_row_block_by_row_block(monkeypatch, two_heads):
    whole = score("disagreement", two_heads)
    monkeypatch.setattr("uncertainty.score_functions.BLOCK_PIXELS", 40)
    torch.testing.assert_close(score("disagreement", two_heads), whole)


def test_instance_is_the_instance_mask(prediction):
    assert torch.equal(score("instance", prediction), instance_uncertainty(prediction.logits))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_members_do_not_disagree(members, count):
    identical = ensemble(members[:1].expand(count, -1, -1, -1, -1))
    information = score("mutual_information", identical)
    assert information.min() >= 0
    assert information.max() < 1e-6
    assert score("member_variance", identical).max() < 1e-12
    torch.testing.assert_close(
        score("expected_entropy", identical), score("entropy", identical), atol=3e-6, rtol=0
    )


def test_certain_members_that_contradict_each_other():
    logits = torch.full((2, 1, 2, 1, 1), -torch.inf)
    logits[0, 0, 0] = logits[1, 0, 1] = 0
    prediction = ensemble(logits)
    expected = {
        "entropy": math.log(2),
        "expected_entropy": 0.0,
        "mutual_information": math.log(2),
        "msp": 0.5,
        "margin": 1.0,
        "member_variance": 0.25,
        "instance": math.log(2),
    }
    for name, value in expected.items():
        assert score(name, prediction).item() == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("name", sorted(NAMES - OF_MEMBERS - {"godin"}))
def test_flatter_logits_are_more_uncertain(name):
    logits = torch.zeros(1, 4, 1, 3)
    logits[0, 0, 0] = torch.tensor([8.0, 2.0, 0.5])
    logits[0, 1, 0, 1] = 0.1
    # one class per pixel, so that every pixel is its own instance
    for pixel in range(3):
        logits[0, :, 0, pixel] = logits[0, :, 0, pixel].roll(pixel)
    low, middle, high = score(name, Prediction(logits)).flatten().tolist()
    assert low < middle < high


def test_one_class_is_certain():
    prediction = Prediction(torch.randn(1, 1, 3, 4))
    for name in ("entropy", "msp", "margin", "instance"):
        assert (score(name, prediction) == 0).all(), name


def reference(name, logits, temperature, moments=None):
    """A score of one network in float64, (N, H, W), by SciPy."""
    z = logits.double().numpy()
    likely = special.softmax(z, axis=1)
    ordered = np.sort(likely, axis=1)
    total = special.logsumexp(z, axis=1)
    if name == "sml":
        mean, variance = (moments[part][z.argmax(1)] for part in ("mean", "variance"))
        return -(z.max(1) - mean) / np.sqrt(variance)
    if name in {"energy", "godin"}:
        cold = temperature[:, 0].double().numpy()
        return cold if name == "godin" else -cold * total
    return {
        "entropy": stats.entropy(likely, axis=1),
        "msp": 1 - ordered[:, -1],
        "margin": 1 - (ordered[:, -1] - ordered[:, -2]),
        "abet": -total,
        "max_logit": -z.max(1),
        "instance": instance_uncertainty(logits).double().numpy(),
        "response_scaling": np.stack([literal_response(each, VOC)[1] for each in likely]),
    }[name]


def in_float64(moments):
    return {"mean": moments.mean.numpy(), "variance": moments.variance.numpy()}


@pytest.mark.parametrize("name", SINGLE)
def test_scores_of_one_network_against_scipy(name, members, temperatures):
    single = ScoreSettings(statistics=statistics_of(1, classes=5))
    found = build_score(name, single).function(Prediction(members[0], temperature=temperatures[0]))
    moments = in_float64(single.statistics.members[0])
    expected = reference(name, members[0], temperatures[0], moments)
    np.testing.assert_allclose(found, expected, atol=3e-6, rtol=1e-6)


@pytest.mark.parametrize("name", SINGLE)
def test_rules_against_numpy(name, members, temperatures, prediction, settings):
    moments = [in_float64(each) for each in settings.statistics.members]
    each = [reference(name, *one) for one in zip(members, temperatures, moments, strict=True)]
    joint = in_float64(settings.statistics.joint)
    expected = {
        "mean_score": np.mean(each, axis=0),
        "mean_logit": reference(name, members.mean(0), temperatures.mean(0), joint),
        "deviation": np.std(each, axis=0),
    }
    if "mean_prob" in KINDS[name].rules:
        expected["mean_prob"] = reference(name, prediction.logits, None)
    assert expected.keys() == set(KINDS[name].rules)
    for rule, values in expected.items():
        found = build_score(f"{name}@{rule}", settings).function(prediction)
        np.testing.assert_allclose(found, values, atol=1e-5, rtol=1e-5, err_msg=rule)


def test_without_temperature_abet_is_the_energy(members):
    for plain in (Prediction(members[0]), ensemble(members)):
        assert torch.equal(score("abet", plain), score("energy", plain))
    np.testing.assert_allclose(
        score("energy", ensemble(members)),
        -special.logsumexp(members.double().numpy(), axis=2).mean(0),
        atol=1e-5,
    )


def test_the_published_forms(prediction, members, temperatures, settings):
    single = Prediction(members[0], temperature=temperatures[0])
    z = members[0].double().numpy()
    own = in_float64(settings.statistics.members[0])
    alone = ScoreSettings("paper", statistics=statistics_of(1, classes=5))
    standardised = -reference("sml", members[0], None, own)
    expected = {
        "abet": 1 - special.logsumexp(z, axis=1) / 5,
        "msp": 1 - special.softmax(z, axis=1).max(1),
        "entropy": stats.entropy(special.softmax(z, axis=1), axis=1) / math.log(5),
        "max_logit": 1 - z.max(1) / 30,
        "godin": temperatures[0, :, 0],
        "sml": 0.3 - standardised / 10,
    }
    assert expected.keys() == set(PUBLISHED)
    for name, values in expected.items():
        paper = build_score(name, alone)
        np.testing.assert_allclose(paper.function(single), values, atol=1e-6, err_msg=name)
        plain = build_score(name, ScoreSettings(statistics=alone.statistics))
        assert torch.equal(plain.published(single), paper.function(single))
        assert paper.name == plain.name == name
    for name in ("msp", "entropy"):
        values = build_score(name, alone).function(prediction)
        assert build_score(name, alone).highest(5) == 1.0
        assert values.min() >= 0
        assert values.max() <= 1
    assert build_score("abet", alone).highest is None


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("rule", ["mean_score", "mean_logit"])
def test_the_published_form_has_the_order_of_the_score(name, rule, prediction, settings):
    plain = build_score(f"{name}@{rule}", settings)
    values, published = plain.function(prediction).flatten(), plain.published(prediction).flatten()
    ordered = published[values.argsort()]
    assert (ordered.diff() >= -1e-6).all()
    assert ordered[-1] > ordered[0]


def test_equal_logits_have_entropy_one_and_a_zero_feature_the_abet_of_no_class():
    flat = Prediction(torch.zeros(1, 19, 2, 3))
    paper = ScoreSettings("paper")
    assert build_score("entropy", paper).function(flat) == pytest.approx(np.ones((1, 2, 3)))
    abet = build_score("abet", paper).function(flat)
    assert abet == pytest.approx(np.full((1, 2, 3), 1 - math.log(19) / 19), abs=1e-6)


@pytest.mark.parametrize("name", COMBINED)
def test_finite_for_logits_of_ten_thousand(name):
    members = torch.empty(3, 1, 5, 8, 9).uniform_(-1e4, 1e4)
    members[:, :, :, 0] = 1e4
    members[:, :, 0, 1] = -1e4
    huge = ensemble(members, torch.full((3, 1, 1, 8, 9), 1e-12))
    narrow = [class_moments(0.0, 0.0, 5) for _ in range(4)]
    chosen = ScoreSettings(statistics=statistics_of(3, classes=5, moments=narrow))
    assert build_score(name, chosen).function(huge).isfinite().all()


def test_the_slope_of_abet_in_the_inverse_temperature():
    generator = torch.Generator().manual_seed(3)
    cosines = torch.rand(1, 7, 20, 20, generator=generator, dtype=torch.float64) * 2 - 1
    inverse = 3.0
    likely = (cosines * inverse).softmax(1)
    slope = (likely * cosines).sum(1)
    step = 1e-5
    above, below = ((cosines * (inverse + sign * step)).logsumexp(1) for sign in (1, -1))
    torch.testing.assert_close((above - below) / (2 * step), slope, atol=1e-6, rtol=0)
    before, halved = (Prediction((cosines * factor).float()) for factor in (inverse, 2 * inverse))
    rises = slope >= 0
    assert rises.any()
    assert (score("abet", halved) < score("abet", before))[rises].all()
    assert (score("msp", halved) < score("msp", before)).all()
    assert torch.equal(halved.logits.argmax(1), cosines.argmax(1))


@pytest.mark.parametrize("name", [*COMBINED, *sorted(OF_MEMBERS)])
def test_one_member_is_the_single_network_bit_for_bit(name, members, temperatures):
    chosen = ScoreSettings(statistics=statistics_of(1, classes=5))
    built = build_score(name, chosen)
    alone = built.function(ensemble(members[:1], temperatures[:1]))
    if name.endswith("deviation") or name in {"mutual_information", "member_variance"}:
        assert (alone == 0).all()
        return
    plain = "entropy" if name == "expected_entropy" else name
    single = Prediction(members[0], temperature=temperatures[0])
    assert torch.equal(alone, build_score(plain, chosen).function(single))


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("count", [2, 5])
def test_identical_members_say_what_one_says(name, count, members, temperatures):
    chosen = ScoreSettings(statistics=statistics_of(1, classes=5))
    copies = [maps[:1].expand(count, -1, -1, -1, -1) for maps in (members, temperatures)]
    found = build_score(name, chosen).function(ensemble(*copies))
    if name.endswith("deviation"):
        assert (found == 0).all()
        return
    single = Prediction(members[0], temperature=temperatures[0])
    expected = build_score(name, chosen).function(single)
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=1e-6)


@pytest.mark.parametrize("name", [*COMBINED, *sorted(OF_MEMBERS)])
def test_the_order_of_the_members_does_not_matter(name, members, temperatures, settings):
    turned = ensemble(members.flip(0), temperatures.flip(0))
    reversed_ = statistics_of(3, classes=5, reverse=True)
    found = build_score(name, ScoreSettings(statistics=reversed_)).function(turned)
    expected = build_score(name, settings).function(ensemble(members, temperatures))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*COMBINED, *sorted(OF_MEMBERS)])
def test_a_score_changes_nothing_in_the_prediction(name, prediction, settings):
    before = [None if maps is None else maps.clone() for maps in prediction]
    built = build_score(name, settings)
    first = built.function(prediction).clone()
    for maps, copy in zip(prediction, before, strict=True):
        assert (maps is None and copy is None) or torch.equal(maps, copy)
    assert torch.equal(built.function(prediction), first)


def test_needs_and_limits_follow_the_rule(settings):
    assert build_score("abet@deviation").needs == {"member_logits"}
    assert build_score("godin@deviation").needs == {"member_logits", "temperature"}
    assert build_score("abet@mean_logit").needs == frozenset()
    assert build_score("entropy@mean_score").highest(4) == pytest.approx(math.log(4))
    assert build_score("msp@deviation").highest(4) == 0.5
    assert build_score("sml@deviation", settings).highest is None


def test_what_cannot_be_built_says_why(settings):
    with pytest.raises(ValueError, match="sml needs statistics of data.*--fit_score sml"):
        build_score("sml")
    with pytest.raises(ValueError, match=r"react\+abet needs statistics .*--fit_score react\+abet"):
        build_score("react")
    with pytest.raises(ValueError, match="dice.*class head.*only those of logits"):
        build_score("dice", settings)
    published = "entropy, msp, abet, max_logit, godin, sml"
    for name in ("margin", "energy", "mutual_information", "abet@deviation"):
        with pytest.raises(ValueError, match=f"{name} has no published form.*{published}"):
            build_score(name, ScoreSettings("paper"))


def test_statistics_of_another_model_are_refused(prediction, members):
    two = build_score("sml", ScoreSettings(statistics=statistics_of(2, classes=5)))
    with pytest.raises(ValueError, match="made with 2 members and this prediction has 3"):
        two.function(prediction)
    with pytest.raises(ValueError, match="made with 2 members and this prediction has 1"):
        two.function(Prediction(members[0]))
    other = build_score("sml", ScoreSettings(statistics=statistics_of(1, classes=4)))
    with pytest.raises(ValueError, match="of 4 classes and this prediction of 5"):
        other.function(Prediction(members[0]))


def test_every_form_has_its_line():
    described = describe_scores()
    assert described.keys() == {
        *KINDS,
        *(f"{modifier}+SCORE" for modifier in ("react", "dice", "odin")),
        *(f"SCORE@{rule}" for rule in ("mean_prob", "mean_score", "mean_logit", "deviation")),
    }
    assert all(line.endswith(".") and len(line) > 20 for line in described.values())


def test_a_parsed_name_builds_the_same_score(prediction):
    name = "abet@mean_logit"
    built = build_score(parse_score_name(name))
    assert built.name == name
    assert torch.equal(built.function(prediction), build_score(name).function(prediction))


@pytest.mark.gpu
def test_the_gpu_agrees(prediction, members):
    prediction = prediction._replace(main_logits=members[0], aux_logits=members[1])
    moved = Prediction(*(None if maps is None else maps.cuda() for maps in prediction))
    for name in SCORES:
        found = score(name, moved)
        assert found.is_cuda
        torch.testing.assert_close(
            found.cpu(), score(name, prediction), atol=1e-5, rtol=0, msg=name
        )
