import numpy as np
import pytest
from scipy import stats

from utils.statistics import (
    Difference,
    ImageCounts,
    Summary,
    draw_images,
    holm,
    iou_percent,
    percentile_interval,
    resampled_iou,
    summarise,
    welch,
)


def test_a_summary_worked_by_hand():
    found = summarise([1.0, 2.0, 3.0])
    assert (found.mean, found.std, found.n) == (2.0, 1.0, 3)
    # t(0.975, 2) = 4.30265 from the tables, over sqrt(3)
    assert found.low == pytest.approx(2 - 4.30265 / 3**0.5, abs=1e-5)
    assert found.high == pytest.approx(2 + 4.30265 / 3**0.5, abs=1e-5)


def test_too_few_values_have_no_deviation():
    assert summarise([]) == Summary(None, None, 0)
    assert summarise([5.0]) == Summary(5.0, None, 1)


def test_welch_worked_by_hand():
    # means 2 and 6, variances 1 and 4, n 3 and 3: t = 4 / sqrt(5 / 3), df = (5/3)^2 / (17/18)
    found = welch([1, 2, 3], [4, 6, 8])
    error, freedom = (5 / 3) ** 0.5, (25 / 9) / (17 / 18)
    reach = stats.t.ppf(0.975, freedom) * error
    assert found.value == 4
    assert found.p == pytest.approx(2 * stats.t.sf(4 / error, freedom))
    assert (found.low, found.high) == pytest.approx((4 - reach, 4 + reach))


def test_welch_changes_sign_with_its_order():
    one, other = [40.0, 41.5, 39.0, 42.0], [44.0, 47.0, 43.0]
    there, back = welch(one, other), welch(other, one)
    assert there.p == pytest.approx(back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize("lone", [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([1.0], [3.0])])
def test_a_single_run_has_no_test(lone):
    found = welch(*lone)
    assert found.value is not None
    assert (found.low, found.high, found.p) == (None, None, None)


def test_welch_without_values_or_without_variation():
    assert welch([], [1.0]) == Difference(None)
    assert welch([1.0, 1.0], [3.0, 3.0]) == Difference(2.0, 2.0, 2.0, None)


def test_holm_worked_by_hand():
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    generator = np.random.default_rng(0)
    for _ in range(50):
        p_values = generator.random(6) ** 3
        rejected = np.zeros(6, bool)
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (6 - rank):
                break
            rejected[index] = True
        np.testing.assert_array_equal(np.array(holm(list(p_values))) <= 0.05, rejected)


def test_iou_skips_classes_that_do_not_occur():
    hits, label, prediction = np.array([[2.0, 0, 0], [4, 2, 0], [4, 1, 0]])
    np.testing.assert_allclose(
        iou_percent(hits, label, prediction), [100 / 3, 0, np.nan, 100 / 6], rtol=1e-12
    )


def counts(images=40, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    in_label, in_prediction = generator.integers(5, 90, (2, images, classes))
    hits = generator.binomial(np.minimum(in_label, in_prediction), 0.6)
    ids = tuple(f"i{index:02}" for index in range(images))
    return ImageCounts(ids, tuple("abc"[:classes]), hits, in_label, in_prediction)


def test_images_are_drawn_with_replacement():
    drawn = draw_images(30, 400, seed=1)
    assert drawn.shape == (400, 30)
    assert (drawn.sum(1) == 30).all()
    assert 0.33 < (drawn == 0).mean() < 0.40  # (1 - 1/n)^n is about 1 / e
    np.testing.assert_array_equal(drawn, draw_images(30, 400, seed=1))
    assert (drawn != draw_images(30, 400, seed=2)).any()


def test_resampled_scores_equal_a_loop_over_the_drawn_images():
    data = counts()
    found = resampled_iou(data, 300, seed=3)
    for index in (0, 255, 256, 299):  # either side of the bound of one block
        chosen = np.repeat(np.arange(40), draw_images(40, 300, 3)[index])
        total = [part[chosen].sum(0).astype(float) for part in data[2:]]
        np.testing.assert_allclose(found[index], iou_percent(*total), rtol=1e-12)


def test_the_bootstrap_agrees_with_scipys():
    data = counts(images=60)

    def miou(*places):
        chosen = places[0].astype(int)
        total = [part[chosen].sum(0).astype(float) for part in data[2:]]
        return iou_percent(*total)[-1]

    reference = stats.bootstrap(
        (np.arange(60),), miou, n_resamples=2000, method="percentile", vectorized=False, rng=0
    ).confidence_interval
    found = percentile_interval(resampled_iou(data, 2000, seed=0))[-1]
    width = reference.high - reference.low
    assert found == pytest.approx((reference.low, reference.high), abs=0.1 * width)


def test_a_class_that_is_never_drawn_has_no_interval():
    values = np.column_stack((np.full(50, np.nan), np.linspace(0, 1, 50)))
    assert percentile_interval(values) == [None, pytest.approx((0.025, 0.975))]
