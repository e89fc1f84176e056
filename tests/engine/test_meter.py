"""Means and extremes of what is logged, over steps and over processes."""

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from engine.meter import Meter, NonFiniteLossError
from utils.types import StepOutput

CPU = torch.device("cpu")


def out(loss, **logs):
    return StepOutput(
        {"network": torch.tensor(loss, requires_grad=True)},
        {name: torch.tensor(value) for name, value in logs.items()},
    )


def filled(*steps):
    meter = Meter(CPU)
    for number, step in enumerate(steps):
        meter.add(number, step, [f"image{number}"])
    return meter


def test_names_that_end_so_are_extremes_and_all_others_means():
    meter = filled(
        out(1.0, t=0.5, t_min=0.2, t_max=0.7, minimum=4.0, max_t=1.0),
        out(2.0, t=0.1, t_min=-0.3, t_max=0.6, minimum=2.0, max_t=5.0),
        out(6.0, t=0.3, t_min=0.1, t_max=0.9, minimum=0.0, max_t=0.0),
    )
    expected = {"loss": 3.0, "t": 0.3, "t_min": -0.3, "t_max": 0.9, "minimum": 2.0, "max_t": 2.0}
    assert meter.means() == pytest.approx(expected)
    assert meter.means() == pytest.approx(expected), "asking changes nothing"


def test_an_interval_starts_without_the_extremes_of_the_last():
    meter = filled(out(1.0, t_min=0.1, t_max=0.9))
    meter.means()
    meter.reset()
    meter.add(1, out(1.0, t_min=0.4, t_max=0.5), ["a"])
    assert meter.means() == pytest.approx({"loss": 1.0, "t_min": 0.4, "t_max": 0.5})


def test_the_extreme_of_equal_values_is_that_value_bit_for_bit():
    value = torch.rand((), generator=torch.Generator().manual_seed(0)).item()
    meter = filled(*[out(1.0, t_min=value, t_max=value)] * 3)
    found = meter.means()
    assert found["t_min"] == found["t_max"] == value


def test_several_losses_are_logged_by_name_and_in_sum():
    losses = {"a_min": torch.tensor(1.0), "b": torch.tensor(3.0)}
    meter = filled(StepOutput(losses, {}))
    found = meter.means()
    assert (found["loss"], found["loss_b"]) == (4.0, 3.0)


def of_processes(rank, folder, steps):
    """One process: its share of the steps, and what it says of all."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(steps)
    )
    means = filled(*(out(float(rank), **logs) for logs in steps[rank])).means()
    torch.save(means, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_extremes_are_those_of_all_processes(tmp_path):
    steps = (
        ({"t": 0.4, "t_min": 0.3, "t_max": 0.5}, {"t": 0.4, "t_min": 0.2, "t_max": 0.6}),
        ({"t": 0.8, "t_min": 0.7, "t_max": 0.9}, {"t": 0.6, "t_min": 0.4, "t_max": 0.8}),
    )
    mp.spawn(of_processes, (str(tmp_path), steps), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    expected = {"loss": 0.5, "t": 0.55, "t_min": 0.2, "t_max": 0.9}
    assert found[0] == pytest.approx(expected)
    assert found[1] == found[0]


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_images():
    meter = filled(out(1.0, t_min=0.1), out(float("nan"), t_min=0.1), out(float("inf"), t_min=0.2))
    with pytest.raises(NonFiniteLossError, match="not finite at step 1 on images image1"):
        meter.means()
