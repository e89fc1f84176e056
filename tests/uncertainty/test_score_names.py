import pytest

from uncertainty.score_functions import KINDS
from uncertainty.score_names import MODIFIERS, ScoreName, parse_score_name, split_names


@pytest.mark.parametrize(
    ("text", "parts", "canonical"),
    [
        ("abet", (None, "abet", "mean_score"), "abet"),
        ("msp", (None, "msp", "mean_prob"), "msp"),
        (" msp@mean_prob ", (None, "msp", "mean_prob"), "msp"),
        ("abet@mean_score", (None, "abet", "mean_score"), "abet"),
        ("max_logit@mean_logit", (None, "max_logit", "mean_logit"), "max_logit@mean_logit"),
        ("react", ("react", "abet", "mean_score"), "react+abet"),
        ("dice", ("dice", "abet", "mean_score"), "dice+abet"),
        ("odin", ("odin", "msp", "mean_prob"), "odin+msp"),
        ("odin@deviation", ("odin", "msp", "deviation"), "odin+msp@deviation"),
        ("react+energy", ("react", "energy", "mean_score"), "react+energy"),
        ("mutual_information", (None, "mutual_information", None), "mutual_information"),
        ("odin+mutual_information", ("odin", "mutual_information", None), None),
        ("disagreement", (None, "disagreement", None), "disagreement"),
        ("react+disagreement", ("react", "disagreement", None), None),
        ("odin+entropy@mean_score", ("odin", "entropy", "mean_score"), None),
    ],
)
def test_names_and_their_canonical_form(text, parts, canonical):
    parsed = parse_score_name(text)
    assert (parsed.modifier, parsed.name, parsed.rule) == parts
    assert str(parsed) == (canonical or text)
    assert parse_score_name(str(parsed)) == parsed


def test_every_combination_reads_back():
    for modifier in (None, *MODIFIERS):
        for name, kind in KINDS.items():
            for rule in kind.rules or (None,):
                score = ScoreName(modifier, name, rule)
                assert parse_score_name(str(score)) == score


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no score is called ''; choose from entropy,.*abet.*react, dice, odin"),
        ("abett", "'abett': no score is called 'abett'; did you mean abet"),
        ("vim", "no score is called 'vim'; choose from .*energy"),
        ("react+", "no score is called ''"),
        ("react+odin", "no score is called 'odin'; did you mean godin"),
        ("ract+abet", "no modifier of scores is called 'ract'; did you mean react"),
        ("+abet", "no modifier of scores is called ''; choose from react, dice, odin"),
        ("odin+react+abet", "no modifier of scores is called 'odin\\+react'"),
        ("abet@mean_logits", "no rule over members is called 'mean_logits'; did you mean mean_l"),
        ("abet@", "no rule over members is called ''; choose from mean_score, mean_logit, dev"),
        ("abet@mean@score", "no rule over members is called 'mean@score'"),
        ("mutual_information@deviation", "compares the members itself and takes no rule"),
        ("disagreement@mean_score", "compares the heads itself and takes no rule"),
        ("disagreemnt", "did you mean disagreement"),
    ],
)
def test_wrong_names_are_explained_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as refusal:
        parse_score_name(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["abet", "energy", "max_logit", "godin", "sml"])
def test_no_logit_score_of_a_mean_softmax(name):
    with pytest.raises(ValueError, match=f"what {name} reads.*logsumexp 0.*mean_score, mean_logit"):
        parse_score_name(f"{name}@mean_prob")


def test_lists_with_commas_and_spaces():
    assert split_names("abet,energy") == ["abet", "energy"]
    assert split_names(" react , odin+msp  msp@mean_prob,abet@deviation, ") == [
        "react+abet",
        "odin+msp",
        "msp",
        "abet@deviation",
    ]
    assert split_names("msp,odin,msp@mean_prob,odin+msp") == ["msp", "odin+msp"]
    with pytest.raises(ValueError, match="names no score; choose from"):
        split_names(" ,")
    with pytest.raises(ValueError, match="did you mean energy"):
        split_names("abet,enrgy")


@pytest.mark.parametrize(
    ("text", "members", "temperature", "statistics", "gradients", "network"),
    [
        ("abet", False, False, set(), False, False),
        ("abet@deviation", True, False, set(), False, False),
        ("member_variance", True, False, set(), False, False),
        ("godin", False, True, set(), False, False),
        ("sml", False, False, {"sml"}, False, False),
        ("react", False, False, {"react"}, False, True),
        ("react+sml", False, False, {"react", "sml"}, False, True),
        ("dice+godin@deviation", True, True, {"dice"}, False, True),
        ("odin", False, False, set(), True, True),
        ("odin+expected_entropy", True, False, set(), True, True),
        ("disagreement", False, False, set(), False, False),
    ],
)
def test_what_a_score_needs(text, members, temperature, statistics, gradients, network):
    score = parse_score_name(text)
    assert score.needs_members is members
    assert score.needs_temperature is temperature
    assert score.needs_statistics == statistics
    assert score.needs_gradients is gradients
    assert score.needs_network is network


def test_only_disagreement_needs_two_heads():
    assert [name for name in KINDS if parse_score_name(name).needs_heads] == ["disagreement"]
    assert parse_score_name("odin+disagreement").needs_heads
    assert not parse_score_name("odin+disagreement").needs_logits
