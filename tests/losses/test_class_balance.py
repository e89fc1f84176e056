import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from losses.class_balance import (
    ClassBalance,
    class_counts,
    harder_labels,
    percentile,
    pixel_weights,
    sums_of_map,
    weighted_loss_map,
    weighted_sums,
)

VOID = 255
WEIGHTS = torch.tensor([1.0, 7.0, 2.5, 49.0, 1.5])


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int32, torch.int64])
def test_counts_are_numpy_s(five_classes, label_type):
    _, labels, _ = five_classes
    found = class_counts(labels.to(label_type), 5)
    assert found.dtype == torch.int64
    expected = np.bincount(labels.numpy()[labels.numpy() != VOID], minlength=5)
    assert found.tolist() == expected.tolist()


def test_ids_beyond_the_classes_and_void_count_nowhere():
    labels = torch.tensor([[[0, 2, 3, 254, VOID]]], dtype=torch.uint8)
    assert class_counts(labels, 3).tolist() == [1, 0, 1]
    assert class_counts(torch.full((2, 3, 3), VOID), 4).tolist() == [0, 0, 0, 0]


def test_weights_after_one_batch_of_one_class():
    balance = ClassBalance(3, max_value=7, often=True)
    weights = balance(torch.tensor([4096 * 2, 0, 0]), 2)
    assert weights.tolist() == pytest.approx([1, 11.2, 11.2])


@pytest.mark.parametrize("batches", [1, 2, 5, 30])
def test_running_weight_of_an_absent_class(batches):
    balance = ClassBalance(2, max_value=7, often=True)
    for _ in range(batches):
        weights = balance(torch.tensor([4096, 0]), 1)
    running = 7 - 6 * 0.9**batches
    assert balance.often_weights.tolist() == pytest.approx([1, running])
    assert weights.tolist() == pytest.approx([1, 7 * running])


def test_a_class_is_small_below_the_bound_of_all_images_and_gains_only_when_absent():
    balance = ClassBalance(4, max_value=3, often=True, small_object_pixels=10)
    weights = balance(torch.tensor([20, 19, 1, 0]), 2)
    assert weights.tolist() == pytest.approx([1, 3, 3, 3 * 1.2])


def test_without_often_the_running_weights_stay_exactly_one():
    balance = ClassBalance(3, max_value=7)
    for _ in range(50):
        weights = balance(torch.tensor([5000, 0, 1]), 1)
    assert balance.often_weights.tolist() == [1, 1, 1]
    assert weights.tolist() == [1, 7, 7]


def test_weights_stay_within_one_and_the_square_and_earlier_ones_do_not_change():
    balance = ClassBalance(2, max_value=7, often=True)
    first = balance(torch.tensor([0, 10**6]), 1)
    kept = first.clone()
    for _ in range(300):
        last = balance(torch.tensor([0, 10**6]), 1)
    assert torch.equal(first, kept)
    assert last.tolist() == pytest.approx([49, 1])
    assert last.max() <= 49


def test_state_resumes():
    one, other = (ClassBalance(3, max_value=7, often=True) for _ in range(2))
    one(torch.tensor([0, 1, 10**5]), 1)
    other.load_state_dict(one.state_dict())
    counts = torch.tensor([3, 0, 0])
    assert torch.equal(one(counts, 1), other(counts, 1))
    assert list(one.state_dict()) == ["often_weights"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_value": 0.5}, "greatest class weight is 0.5; it must be at least 1"),
        ({"max_value": float("nan")}, "must be at least 1"),
        ({"small_object_pixels": -1}, "fewer than -1 pixels; give 0 or more"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassBalance(3, **settings)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 10, 101, 1000])
@pytest.mark.parametrize("q", [0, 0.1, 1, 12.5, 33, 50, 66.7, 80, 95, 99.9, 100])
def test_percentile_is_numpy_s(size, q):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size)).double()
    expected = np.percentile(values.numpy(), q)
    assert percentile(values, q).item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    everything = torch.ones(size, dtype=torch.bool)
    found = percentile(values, q, valid=everything).item()
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_percentile_of_ties_is_the_value_itself():
    values = torch.tensor([0.1, 0.3, 0.3, 0.3, 0.7]).view(1, 5)
    for q in (25, 40, 50, 60, 75):
        found = percentile(values, q)
        assert found.dtype == torch.float32
        assert found == values[0, 1]


@pytest.mark.parametrize("q", [0, 3, 50, 80, 100])
def test_percentile_of_the_valid_values_alone(q):
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    valid = values > -0.5
    found = percentile(values, q, valid=valid).item()
    assert found == pytest.approx(np.percentile(values[valid].numpy(), q), abs=1e-6)
    assert percentile(values, q, valid=torch.zeros_like(valid)) == torch.inf


@pytest.mark.parametrize("q", [20, 80])
def test_percentile_of_more_than_sixteen_million_values(q):
    count = 2**24 + 12345  # more than float32 can number, and than torch.quantile took for long
    values = torch.arange(1000.0).repeat(count // 1000 + 1)[:count]
    whole, rest = divmod(count, 1000)
    ends = np.cumsum([whole + (value < rest) for value in range(1000)])  # of each value, sorted
    position = (count - 1) * q / 100
    low, high = (np.searchsorted(ends, int(position) + step, side="right") for step in (0, 1))
    expected = low + (high - low) * (position % 1)
    assert percentile(values, q).item() == pytest.approx(expected)


@pytest.mark.parametrize("q", [-1, 100.5, float("nan")])
def test_percentile_outside_its_range(q):
    with pytest.raises(ValueError, match="must be from 0 to 100"):
        percentile(torch.ones(3), q)


@pytest.mark.parametrize("pixels", [100, 101, 999, 1003])
def test_a_fifth_of_the_pixels_and_no_more_than_one_beyond_survive(pixels):
    loss = torch.randperm(pixels, generator=torch.Generator().manual_seed(0)).float() + 1
    labels = torch.zeros(1, 1, pixels, dtype=torch.uint8)
    loss = loss.view(1, 1, -1)
    kept = harder_labels(loss, labels, percentile(loss, 80)) != VOID
    assert 0.2 * pixels <= kept.sum() <= 0.2 * pixels + 1
    assert loss[kept].min() > loss[~kept].max()


def test_with_nine_tenths_ignored_nothing_is_dropped():
    loss = torch.zeros(1, 10, 10)
    loss[0, 0] = torch.rand(10) + 0.1
    labels = torch.full((1, 10, 10), VOID, dtype=torch.uint8)
    labels[0, 0] = 3
    threshold = percentile(loss, 80)
    assert threshold == 0
    assert torch.equal(harder_labels(loss, labels, threshold), labels)


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int32, torch.int64])
def test_thinned_labels_keep_their_type_and_the_threshold_itself(label_type):
    loss = torch.tensor([[[1.0, 2.0, 3.0]]])
    labels = torch.tensor([[[4, 5, 6]]], dtype=label_type)
    found = harder_labels(loss, labels, torch.tensor(2.0))
    assert found.dtype == label_type
    assert found.tolist() == [[[VOID, 5, 6]]]


def test_pixel_weights_look_up_the_class_and_void_has_none():
    labels = torch.tensor([[[0, 4, 3], [VOID, 1, 7]]], dtype=torch.uint8)
    assert pixel_weights(labels, WEIGHTS).tolist() == [[[1, 1.5, 49], [0, 7, 0]]]


def test_quotient_of_the_sums_is_torch_s_weighted_mean(five_classes):
    logits, labels, _ = five_classes
    numerator, denominator = weighted_sums(logits, labels, WEIGHTS)
    expected = F.cross_entropy(logits, labels.long(), WEIGHTS, ignore_index=VOID)
    torch.testing.assert_close(numerator / denominator, expected)
    (found,) = torch.autograd.grad(numerator / denominator, logits)
    torch.testing.assert_close(found, torch.autograd.grad(expected, logits)[0])


def test_sums_of_halves_add_up_to_the_whole(five_classes):
    logits, labels, _ = five_classes
    whole = weighted_sums(logits, labels, WEIGHTS)
    halves = [weighted_sums(logits[i : i + 1], labels[i : i + 1], WEIGHTS) for i in range(2)]
    for total, parts in zip(whole, zip(*halves, strict=True), strict=True):
        torch.testing.assert_close(sum(parts), total)


def test_thinned_sums_are_those_of_a_second_cross_entropy(five_classes):
    logits, labels, _ = five_classes
    loss_map = weighted_loss_map(logits, labels, WEIGHTS)
    weighted = F.cross_entropy(
        logits, labels.long(), WEIGHTS, ignore_index=VOID, reduction="none"
    ).detach()
    torch.testing.assert_close(loss_map.detach(), weighted)
    thinned = harder_labels(loss_map, labels, percentile(loss_map, 80))
    by_numpy = weighted.numpy() < np.percentile(weighted.numpy(), 80)
    assert torch.equal(thinned, labels.masked_fill(torch.from_numpy(by_numpy), VOID))
    numerator, denominator = sums_of_map(loss_map, thinned, WEIGHTS)
    expected = F.cross_entropy(logits, thinned.long(), WEIGHTS, ignore_index=VOID)
    torch.testing.assert_close(numerator / denominator, expected)
    (found,) = torch.autograd.grad(numerator / denominator, logits)
    torch.testing.assert_close(found, torch.autograd.grad(expected, logits)[0])


def test_gradcheck_in_double_precision(five_classes):
    logits, labels, _ = five_classes
    double = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: weighted_sums(z, labels, WEIGHTS.double())[0], (double,)
    )


def test_constants_added_to_a_pixel_s_logits_change_nothing(five_classes):
    logits, labels, weight = five_classes
    found = weighted_sums(logits + 5 * weight[:, None], labels, WEIGHTS)[0]
    torch.testing.assert_close(found, weighted_sums(logits, labels, WEIGHTS)[0])


def test_void_alone_gives_zero_and_zero_gradient(five_classes):
    logits, labels, _ = five_classes
    numerator, denominator = weighted_sums(logits, torch.full_like(labels, VOID), WEIGHTS)
    assert numerator == 0
    assert denominator == 0
    assert not torch.autograd.grad(numerator, logits)[0].any()


def test_bfloat16_and_large_logits(five_classes):
    logits, labels, _ = five_classes
    exact = weighted_sums(logits, labels, WEIGHTS)[0].detach()
    with torch.autocast("cpu", torch.bfloat16):
        coarse = weighted_sums(logits.bfloat16(), labels, WEIGHTS)[0]
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0)
    extreme = (logits.detach().sign() * 60).requires_grad_()
    numerator = weighted_sums(extreme, labels, WEIGHTS)[0]
    assert numerator.isfinite()
    assert torch.autograd.grad(numerator, extreme)[0].isfinite().all()


def test_nothing_depends_on_what_only_the_device_knows():
    with FakeTensorMode() as fakes:  # refuses to read values or to make shapes of them
        logits = torch.randn(2, 5, 6, 7, requires_grad=True)
        labels = torch.zeros(2, 6, 7, dtype=torch.uint8)
        balance = ClassBalance(5, often=True)
        weights = balance(class_counts(labels, 5), 2)
        for valid in (None, labels != VOID):
            loss_map = weighted_loss_map(logits, labels, weights)
            thinned = harder_labels(loss_map, labels, percentile(loss_map, 80, valid=valid))
            sums_of_map(loss_map, thinned, weights)[0].backward()
        assert fakes is logits.grad.fake_mode
