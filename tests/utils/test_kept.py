import torch

from utils.kept import score_map
from utils.types import Prediction, Score


def counted(name, factor, calls):
    def function(prediction):
        calls.append(name)
        return prediction.logits.amax(1) * factor

    return Score(name, function)


def test_a_score_is_computed_once_for_all_who_read_it():
    calls = []
    score = counted("max", 1, calls)
    prediction = Prediction(torch.randn(2, 3, 4, 4))
    first, second = (score_map(score, prediction) for _ in range(2))
    assert calls == ["max"]
    assert first is second
    assert torch.equal(first, prediction.logits.amax(1))


def test_two_scores_of_one_name_keep_their_own_values():
    calls = []
    plain, scaled = counted("max", 1, calls), counted("max", 0.5, calls)
    prediction = Prediction(torch.randn(2, 3, 4, 4))
    torch.testing.assert_close(score_map(plain, prediction) / 2, score_map(scaled, prediction))


def test_what_is_kept_ends_with_the_prediction():
    calls = []
    score = counted("max", 1, calls)
    for _ in range(2):
        score_map(score, Prediction(torch.randn(1, 3, 2, 2)))
    assert calls == ["max", "max"]
