import math

import pytest
import torch
from scipy.special import softmax
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from losses.rectified import rectified_cross_entropy, rectified_losses

VOID = 255
DIRECTIONS = ["per_head", "main_aux", "aux_main", "mse"]
WEIGHTS = torch.tensor([1.0, 7.0, 2.5, 49.0, 1.5], dtype=torch.float64)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
both_means = pytest.mark.parametrize("normalize", ["all", "valid"])


@pytest.fixture
def pseudo():
    """Double logits (2, 5, 4, 5) of the main and the auxiliary head, labels with some void."""
    generator = torch.Generator().manual_seed(2)
    main, aux = (
        torch.randn(2, 5, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    labels = torch.randint(0, 5, (2, 4, 5), generator=generator).to(torch.uint8)
    labels[:, 2] = VOID
    return main, aux, labels


def by_loops(head, other, labels, *, reference, normalize, class_weights=WEIGHTS):
    """The loss after the formula, pixel by pixel; ``reference`` is "head", "other" or "mse"."""
    p, q = (softmax(each.detach().numpy(), axis=1) for each in (head, other))
    entropy_sum = variance_sum = weight_sum = 0.0
    for image in range(2):
        for row in range(4):
            for column in range(5):
                pixel_p, pixel_q = p[image, :, row, column], q[image, :, row, column]
                if reference == "mse":
                    variance = ((pixel_p - pixel_q) ** 2).sum()
                else:
                    first, second = (
                        (pixel_p, pixel_q) if reference == "head" else (pixel_q, pixel_p)
                    )
                    variance = sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))
                label = int(labels[image, row, column])
                if label != VOID:
                    weight = float(class_weights[label])
                    weight_sum += weight
                    entropy_sum -= weight * math.log(pixel_p[label]) * math.exp(-variance)
                if label != VOID or normalize == "all":
                    variance_sum += variance
    if normalize == "all":
        return (entropy_sum + variance_sum) / labels.numel()
    return entropy_sum / weight_sum + variance_sum / (labels != VOID).sum().item()


REFERENCES = {  # of the main head's loss and of the auxiliary head's
    "per_head": ("other", "other"),
    "main_aux": ("head", "other"),
    "aux_main": ("other", "head"),
    "mse": ("mse", "mse"),
}


@both_means
@every_direction
def test_formula_pixel_by_pixel(pseudo, direction, normalize):
    main, aux, labels = pseudo
    settings = {"class_weights": WEIGHTS, "direction": direction, "normalize": normalize}
    for head, other, is_main, reference in (
        (main, aux, True, REFERENCES[direction][0]),
        (aux, main, False, REFERENCES[direction][1]),
    ):
        found = rectified_cross_entropy(head, other, labels, is_main=is_main, **settings)
        expected = by_loops(head, other, labels, reference=reference, normalize=normalize)
        assert found.item() == pytest.approx(expected, rel=1e-10)


@both_means
@every_direction
@pytest.mark.parametrize("detach", [False, True])
def test_both_heads_at_once_are_each_alone(pseudo, direction, detach, normalize):
    main, aux, labels = pseudo
    settings = {
        "class_weights": WEIGHTS,
        "direction": direction,
        "detach": detach,
        "normalize": normalize,
    }
    pair = rectified_losses(main, aux, labels, **settings)
    alone = (
        rectified_cross_entropy(main, aux, labels, is_main=True, **settings),
        rectified_cross_entropy(aux, main, labels, is_main=False, **settings),
    )
    for found, expected in zip(pair, alone, strict=True):
        torch.testing.assert_close(found, expected)
    found = torch.autograd.grad(pair[0] + 0.5 * pair[1], (main, aux))
    expected = torch.autograd.grad(alone[0] + 0.5 * alone[1], (main, aux))
    torch.testing.assert_close(found, expected)


@every_direction
def test_heads_that_agree_leave_weighted_cross_entropy_over_all_pixels(pseudo, direction):
    main, _, labels = pseudo
    for weights in (None, WEIGHTS):
        found = rectified_cross_entropy(
            main,
            main.detach(),
            labels,
            class_weights=weights,
            direction=direction,
            is_main=True,
        )
        expected = F.cross_entropy(
            main, labels.long(), weights, ignore_index=VOID, reduction="none"
        ).mean()
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_heads_that_agree_leave_torch_s_weighted_mean_over_labelled_pixels(pseudo):
    main, _, labels = pseudo
    found = rectified_cross_entropy(
        main, main, labels, class_weights=WEIGHTS, is_main=True, normalize="valid"
    )
    expected = F.cross_entropy(main, labels.long(), WEIGHTS, ignore_index=VOID)
    torch.testing.assert_close(found, expected)


@both_means
@every_direction
@pytest.mark.parametrize("is_main", [True, False])
def test_finite_differences_of_both_heads(pseudo, direction, is_main, normalize):
    main, aux, labels = pseudo

    def loss(head, other):
        return rectified_cross_entropy(
            head,
            other,
            labels,
            class_weights=WEIGHTS,
            direction=direction,
            is_main=is_main,
            normalize=normalize,
        )

    assert torch.autograd.gradcheck(loss, (main, aux), rtol=1e-5, atol=1e-6)


def test_detached_only_in_the_exponent(pseudo):
    main, aux, labels = pseudo
    loss = rectified_cross_entropy(main, aux, labels, is_main=True, detach=True)
    found = torch.autograd.grad(loss, (main, aux))
    variance = (aux.softmax(1) * (aux.log_softmax(1) - main.log_softmax(1))).sum(1)
    entropy = F.cross_entropy(main, labels.long(), ignore_index=VOID, reduction="none")
    expected = (entropy * (-variance.detach()).exp()).mean() + variance.mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (main, aux)))
    attached = rectified_cross_entropy(main, aux, labels, is_main=True)
    torch.testing.assert_close(attached, loss)
    assert not torch.allclose(torch.autograd.grad(attached, aux)[0], found[1])


def test_void_pixels_keep_their_variance_only_in_the_published_mean(pseudo):
    main, aux, _ = pseudo
    void = torch.full((2, 4, 5), VOID, dtype=torch.uint8)
    loss = rectified_cross_entropy(main, aux, void, class_weights=WEIGHTS, is_main=True)
    variance = (aux.softmax(1) * (aux.log_softmax(1) - main.log_softmax(1))).sum(1)
    torch.testing.assert_close(loss, variance.mean())
    valid = rectified_cross_entropy(
        main, aux, void, class_weights=WEIGHTS, is_main=True, normalize="valid"
    )
    assert valid == 0
    for gradient in torch.autograd.grad(valid, (main, aux)):
        assert not gradient.any()
    agreed = rectified_cross_entropy(main, main, void, class_weights=WEIGHTS, is_main=True)
    assert agreed == 0
    assert torch.autograd.grad(agreed, main)[0].abs().max() < 1e-12


@both_means
@every_direction
def test_constants_added_to_a_pixel_s_logits_change_nothing(pseudo, direction, normalize):
    main, aux, labels = pseudo
    main, aux = main.detach().float(), aux.detach().float()
    shift = torch.linspace(-5, 5, 20).view(1, 1, 4, 5)
    settings = {"direction": direction, "is_main": True, "normalize": normalize}
    torch.testing.assert_close(
        rectified_cross_entropy(main + shift, aux - 2 * shift, labels, **settings),
        rectified_cross_entropy(main, aux, labels, **settings),
        atol=1e-5,
        rtol=0,
    )


@every_direction
def test_bfloat16_is_within_two_percent(pseudo, direction):
    main, aux, labels = pseudo
    main, aux, weights = main.detach().float(), aux.detach().float(), WEIGHTS.float()
    settings = {"class_weights": weights, "direction": direction}
    with torch.autocast("cpu", torch.bfloat16):
        coarse = rectified_losses(main.bfloat16(), aux.bfloat16(), labels, **settings)
    for found, exact in zip(coarse, rectified_losses(main, aux, labels, **settings), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0.02, atol=0)


@both_means
@every_direction
def test_logits_up_to_sixty_stay_finite(pseudo, direction, normalize):
    main, aux, labels = pseudo
    extreme = [(head.detach().float().sign() * 60).requires_grad_() for head in (main, aux)]
    pair = rectified_losses(*extreme, labels, direction=direction, normalize=normalize)
    assert all(loss.isfinite() and loss >= 0 for loss in pair)
    for gradient in torch.autograd.grad(sum(pair), extreme):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("label_type", [torch.int32, torch.int64])
def test_labels_of_any_integer_type(pseudo, label_type):
    main, aux, labels = pseudo
    settings = {"class_weights": WEIGHTS, "is_main": True, "normalize": "valid"}
    assert rectified_cross_entropy(
        main, aux, labels.to(label_type), **settings
    ) == rectified_cross_entropy(main, aux, labels, **settings)


def test_nothing_depends_on_what_only_the_device_knows():
    with FakeTensorMode() as fakes:  # refuses to read values or to make shapes of them
        main, aux = (torch.randn(2, 5, 4, 5, requires_grad=True) for _ in range(2))
        labels, weights = torch.zeros(2, 4, 5, dtype=torch.uint8), torch.ones(5)
        for direction in DIRECTIONS:
            for normalize in ("all", "valid"):
                settings = {"direction": direction, "normalize": normalize}
                pair = rectified_losses(main, aux, labels, class_weights=weights, **settings)
                sum(pair).backward()
        assert fakes is main.grad.fake_mode
