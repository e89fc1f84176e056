import pytest
import torch

from uncertainty.monte_carlo import top_class_deviation


@pytest.fixture
def passes():
    logits = torch.randn(7, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    return logits.softmax(2)


def test_it_is_the_deviation_of_the_class_with_the_highest_mean(passes):
    top = passes.mean(0).argmax(1, keepdim=True)
    expected = passes.std(0).gather(1, top).squeeze(1)
    torch.testing.assert_close(top_class_deviation(passes), expected)
    torch.testing.assert_close(top_class_deviation(p for p in passes), expected)


def test_equal_passes_do_not_deviate_and_inputs_stay(passes):
    same = [passes[0]] * 4
    before = passes.clone()
    assert top_class_deviation(same).abs().max() < 1e-6
    top_class_deviation(passes)
    assert torch.equal(passes, before)


def test_two_certain_passes_that_disagree_deviate_most():
    one = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert top_class_deviation([one, 1 - one]).item() == pytest.approx(0.5**0.5)


def test_one_pass_has_no_deviation(passes):
    with pytest.raises(AssertionError, match="at least two"):
        top_class_deviation(passes[:1])
