import pytest
import torch

from engine.memory import MemoryShortageError, memory_advice, training_gigabytes
from network import build_model
from utils.types import SegOutput

HUGE = 1 << 60


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("train", ["--batch_size", "--crop_size", "--amp bf16", "--accumulate"]),
        ("evaluate", ["--val_batch_size", "--sliding_window", "--infer_size", "--eval_amp"]),
    ],
)
def test_a_real_allocation_failure_names_the_flags(kind, flags):
    with pytest.raises(MemoryShortageError) as caught, memory_advice(kind):
        torch.empty(HUGE, dtype=torch.uint8)
    message = str(caught.value)
    assert "out of memory" in message
    assert all(flag in message for flag in flags)
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_other_kinds_of_shortage(error):
    with pytest.raises(MemoryShortageError, match=r"--val_batch_size"), memory_advice("evaluate"):
        raise error


def test_other_errors_pass_unchanged_and_advice_is_given_once():
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), memory_advice("train"):
        raise RuntimeError("shapes differ")
    with (
        pytest.raises(MemoryShortageError, match="in evaluation"),
        memory_advice("train"),
        memory_advice("evaluate"),
    ):
        raise MemoryError


class Kept(torch.nn.Module):
    """A convolution whose backward pass keeps its input, and a ReLU that keeps its output."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, images):
        return SegOutput(self.conv(images).relu())


@pytest.mark.parametrize("half", [False, True])
def test_the_estimate_counts_weights_loss_and_what_the_backward_pass_keeps(half):
    network = Kept()
    pixels = 2 * 5 * 7
    kept = (3 + 4) * pixels * 4
    expected = 16 * 12 + 3 * 4 * pixels * 4 + kept / (2 if half else 1)
    assert training_gigabytes(network, (2, 5, 7), half=half) == pytest.approx(expected / 1e9)
    assert network.conv.weight.device.type == "cpu"


def test_activation_checkpointing_lowers_the_estimate():
    plain, checkpointed = (
        build_model("deeplabv3plus_mobilenet", 19, checkpoint_activations=on)
        for on in (False, True)
    )
    sizes = [training_gigabytes(n, (4, 128, 128), half=False) for n in (plain, checkpointed)]
    assert sizes[1] < 0.8 * sizes[0]
