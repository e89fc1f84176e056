import pytest
import torch

from engine.memory import MemoryShortageError, memory_advice

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
