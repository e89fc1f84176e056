import pytest
import torch

from utils.class_map import BLOCK_PIXELS, class_map

SIZES = [(1, 1), (1, 7), (7, 1), (33, 20), (5, BLOCK_PIXELS // 2), (2, BLOCK_PIXELS + 3)]


@pytest.mark.parametrize("num_classes", [1, 2, 19])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_argmax_over_any_number_of_blocks(num_classes, size):
    scores = torch.randn(2, num_classes, *size, generator=torch.Generator().manual_seed(0))
    found = class_map(scores)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), scores.argmax(1))


def test_all_indices_of_a_byte():
    scores = torch.eye(256)[None, :, None]  # class c is the highest at column c
    assert torch.equal(class_map(scores)[0, 0].long(), torch.arange(256))


def test_the_first_of_equal_scores_wins():
    scores = torch.randint(0, 3, (1, 19, 40, 50), generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(scores.numpy().argmax(1))
    assert torch.equal(class_map(scores.float()).long(), expected)
    assert (class_map(torch.full((1, 4, 2, 3), -torch.inf)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_layout(dtype):
    scores = torch.randn(2, 5, 30, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = class_map(scores.float())
    layouts = (
        scores.contiguous(memory_format=torch.channels_last),
        scores.transpose(2, 3).contiguous().transpose(2, 3),
        torch.stack((scores, -scores), -1)[..., 0],
        scores.flip(2).flip(2),
    )
    for layout in layouts:
        assert torch.equal(class_map(layout), expected)


def test_scores_in_a_graph_and_without_pixels():
    assert class_map(torch.zeros(1, 3, 2, 2, requires_grad=True)).shape == (1, 2, 2)
    for size in ((0, 3, 2, 2), (1, 3, 0, 2), (1, 3, 2, 0)):
        assert class_map(torch.zeros(size)).shape == (size[0], *size[2:])
