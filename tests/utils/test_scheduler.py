"""Learning-rate schedules against their formulas."""

import pytest
import torch

from utils.scheduler import build_scheduler


def rates(policy, steps, **options):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr": 0.01}, {"params": [parameters[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule = build_scheduler(optimizer, policy, **options)
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    return [*seen, schedule.get_last_lr()]


def test_poly_is_the_published_formula_for_every_group():
    seen = rates("poly", 100, total_itrs=100, step_size=1)
    for step, (backbone, head) in enumerate(seen):
        factor = (1 - step / 100) ** 0.9
        assert backbone == pytest.approx(max(0.01 * factor, 1e-6))
        assert head == pytest.approx(max(0.1 * factor, 1e-6))


def test_poly_ends_at_the_floor_and_stays_there():
    assert rates("poly", 12, total_itrs=10, step_size=1)[-1] == [1e-6, 1e-6]


def test_step_divides_by_ten():
    seen = [head for _, head in rates("step", 5, total_itrs=9, step_size=2)]
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_poly_resumes_from_its_state():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    first = build_scheduler(optimizer, "poly", total_itrs=10, step_size=1)
    for _ in range(4):
        optimizer.step()
        first.step()
    second = build_scheduler(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), "poly", 10, 1
    )
    second.load_state_dict(first.state_dict())
    assert second.get_last_lr() == first.get_last_lr()
