from argparse import ArgumentParser, Namespace

import pytest

from engine.prediction_flags import add_prediction_flags, check_prediction_flags


def parsed(*arguments):
    parser = ArgumentParser()
    add_prediction_flags(parser.add_argument_group("evaluation"))
    return parser.parse_args(arguments, Namespace())


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        (
            ("--infer_fit", "8", "--infer_short_side", "8"),
            "--infer_fit and --infer_short_side both",
        ),
        (("--infer_size", "8", "--infer_fit", "8"), "--infer_size and --infer_fit both"),
        (("--infer_short_side", "4", "--eval_scales", "1", "0.2"), "0.2 is less than one pixel"),
    ],
)
def test_a_contradiction_is_one_sentence(arguments, wording):
    (problem,) = check_prediction_flags(parsed(*arguments))
    assert wording in problem
    assert "give" in problem


@pytest.mark.parametrize(
    "arguments",
    [(), ("--infer_size", "8"), ("--infer_short_side", "512", "--eval_scales", "0.5", "1.75")],
)
def test_one_size_is_no_problem(arguments):
    assert not list(check_prediction_flags(parsed(*arguments)))


def test_a_short_side_is_a_whole_number():
    assert parsed("--infer_short_side", "512").infer_short_side == 512
    with pytest.raises(SystemExit):
        parsed("--infer_short_side", "1")
