"""Learning-rate schedules against their formulas."""

from itertools import pairwise

import pytest
import torch

from utils.scheduler import LR_POLICIES, build_scheduler

# AbeT's runs: 175 epochs, on Cityscapes a restart at 100.
MAPILLARY = {"policy": "epoch_poly", "total_itrs": 175, "step_size": 1, "epoch_itrs": 1}
CITYSCAPES = {**MAPILLARY, "policy": "scl_poly", "restart_epoch": 100}


def one_schedule(policy, lr=0.1, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    return optimizer, build_scheduler(optimizer, policy, **options)


def rates(policy, steps, **options):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr": 0.01}, {"params": [parameters[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule = build_scheduler(optimizer, policy, **options)
    return follow(optimizer, schedule, steps)


def follow(optimizer, schedule, steps):
    """The rates of all groups before the first and after each of some steps."""
    seen = [schedule.get_last_lr()]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        seen.append(schedule.get_last_lr())
    return seen


def by_epoch(lr, **options):
    return [rate for (rate,) in follow(*one_schedule(lr=lr, **options), steps=175)]


def test_poly_is_the_published_formula_for_every_group():
    seen = rates("poly", 100, total_itrs=100, step_size=1)
    for step, (backbone, head) in enumerate(seen):
        factor = (1 - step / 100) ** 0.9
        assert backbone == pytest.approx(max(0.01 * factor, 1e-6))
        assert head == pytest.approx(max(0.1 * factor, 1e-6))


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 2e-5), (2500, 1.1e-4), (5000, 1.909771e-4), (25_000, 1.543779e-4)]
)
def test_the_rates_of_mrnet_s_first_stage(step, rate):
    backbone, heads = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [backbone], "lr": 2e-4}, {"params": [heads], "lr": 2e-3}]
    optimizer = torch.optim.SGD(groups, lr=1)
    schedule = build_scheduler(optimizer, "poly", 100_000, 1, warm_up=5000)
    schedule.last_epoch = step
    assert schedule.get_lr() == pytest.approx([rate, 10 * rate], rel=1e-6)


def test_poly_takes_another_exponent():
    seen = rates("poly", 10, total_itrs=10, step_size=1, poly_exp=2.0)
    assert [head for _, head in seen[:4]] == pytest.approx([0.1, 0.081, 0.064, 0.049])


def test_poly_ends_at_the_floor_and_stays_there():
    assert rates("poly", 12, total_itrs=10, step_size=1)[-1] == [1e-6, 1e-6]


def test_step_divides_by_ten():
    seen = [head for _, head in rates("step", 5, total_itrs=9, step_size=2)]
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.02), (35, 0.016), (99, 0.02 * 76 / 175), (100, 0.02 * 3 / 7), (174, 0.02 / 175)],
)
def test_the_rates_of_the_mapillary_run(epoch, rate):
    assert by_epoch(0.02, **MAPILLARY)[epoch] == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.001),
        (35, 0.0008),
        (99, 0.001 * (1 - 99 / 175)),
        (100, 0.001),
        (148, 0.001 * 0.36**1.5),  # (75 - 48) / 75 = 0.36, so 0.000216
        (174, 0.001 * (1 / 75) ** 1.5),
    ],
)
@pytest.mark.parametrize("rescale", [1.0, 0.5])
def test_the_rates_of_the_cityscapes_run(epoch, rate, rescale):
    found = by_epoch(0.001, rescale=rescale, **CITYSCAPES)[epoch]
    assert found == pytest.approx(rate * (rescale if epoch >= 100 else 1), rel=1e-12)


def test_the_restarted_part_by_hand():
    assert by_epoch(0.001, **CITYSCAPES)[148] == pytest.approx(0.000216, rel=1e-12)
    linear = by_epoch(0.001, repoly=1.0, **CITYSCAPES)
    assert linear[148] == pytest.approx(0.00036, rel=1e-12)


def test_exponents_of_both_parts():
    seen = by_epoch(1.0, poly_exp=2.0, repoly=0.5, **CITYSCAPES)
    assert seen[70] == pytest.approx(0.36, rel=1e-12)
    assert seen[148] == pytest.approx(0.6, rel=1e-12)


@pytest.mark.parametrize("restart", [174, 175, 400])
def test_a_late_restart_leaves_the_rest_as_it_is(restart):
    plain = by_epoch(0.001, **MAPILLARY)
    late = by_epoch(0.001, **{**CITYSCAPES, "restart_epoch": restart})
    assert late[:174] == plain[:174]
    assert late[174] == (0.001 if restart == 174 else plain[174])
    assert late[175] == 0


@pytest.mark.parametrize("policy", ["epoch_poly", "scl_poly"])
def test_the_rate_is_constant_within_an_epoch_and_a_begun_epoch_counts(policy):
    options = {"total_itrs": 11, "step_size": 1, "restart_epoch": 2}
    seen = rates(policy, 12, epoch_itrs=3, **options)
    coarse = rates(policy, 4, epoch_itrs=1, **{**options, "total_itrs": 4})
    assert seen == [coarse[step // 3] for step in range(13)]
    assert [head for _, head in coarse[:2]] == pytest.approx([0.1, 0.075])


def test_groups_keep_their_ratio():
    seen = rates("scl_poly", 19, total_itrs=20, step_size=1, epoch_itrs=2, restart_epoch=5)
    assert all(head == pytest.approx(10 * backbone, rel=1e-12) for backbone, head in seen)


@pytest.mark.parametrize("policy", LR_POLICIES)
@pytest.mark.parametrize("done", [1, 7, 12])
def test_resuming_is_bit_for_bit_that_of_an_unbroken_run(policy, done):
    options = {"total_itrs": 20, "step_size": 4, "epoch_itrs": 3, "restart_epoch": 3}
    unbroken = follow(*one_schedule(policy, **options), steps=20)
    optimizer, schedule = one_schedule(policy, **options)
    follow(optimizer, schedule, done)
    resumed, later = one_schedule(policy, **options)
    resumed.load_state_dict(optimizer.state_dict())
    later.load_state_dict(schedule.state_dict())
    assert follow(resumed, later, 20 - done) == unbroken[done:]
    assert resumed.param_groups[0]["lr"] == unbroken[-1][0]


@pytest.mark.parametrize("restart", [-1, 0])
def test_a_restart_needs_its_epoch(restart):
    with pytest.raises(ValueError, match=f"--rlx_off_epoch, which is {restart}: give an epoch"):
        one_schedule(**{**CITYSCAPES, "restart_epoch": restart})


VOC = {"policy": "poly_floor", "total_itrs": 20_000, "step_size": 1, "floor": 1e-4}


def rate_at(schedule, step):
    schedule.last_epoch = step
    return schedule.get_lr()[0]


def test_poly_with_a_floor_on_voc():
    _, schedule = one_schedule(lr=0.005, **VOC)
    assert schedule.get_last_lr() == [0.005]
    assert rate_at(schedule, 10_000) == pytest.approx(1e-4 + 0.0049 * 0.5**0.9, rel=1e-12)
    assert rate_at(schedule, 10_000) == pytest.approx(0.0027258, abs=5e-8)
    seen = [rate_at(schedule, step) for step in range(20_001)]
    assert all(later < earlier for earlier, later in pairwise(seen))
    assert seen[-1] == rate_at(schedule, 30_000) == 1e-4


def test_poly_with_a_floor_differs_from_poly_with_a_least_rate():
    options = {"total_itrs": 100, "step_size": 1, "poly_exp": 2.0}
    for step, group in enumerate(rates("poly_floor", 100, floor=0.005, **options)):
        for found, base in zip(group, (0.01, 0.1), strict=True):
            expected = (base - 0.005) * (1 - step / 100) ** 2 + 0.005
            assert found == pytest.approx(expected)
    assert rates("poly", 50, **options)[50] == pytest.approx((0.0025, 0.025))
    assert rates("poly_floor", 100, **options)[100] == pytest.approx([1e-6, 1e-6])


def test_a_floor_above_a_learning_rate_is_refused():
    with pytest.raises(ValueError, match=r"--lr_floor 0\.05 is above the learning rate 0\.01 of"):
        rates("poly_floor", 1, total_itrs=9, step_size=1, floor=0.05)
    assert rates("poly_floor", 1, total_itrs=9, step_size=1, floor=0.01)[1][0] == 0.01
