import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from losses.adversarial import discriminator_loss, generator_loss, gradient_penalty


class Scales(nn.Module):
    """Three small networks; each sees the input pooled once more than the one before."""

    def __init__(self, activation):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, 4, 3, stride=2, padding=1), activation, nn.Conv2d(4, 1, 3, padding=1)
            )
            for _ in range(3)
        )

    def forward(self, inputs):
        outputs = []
        for net in self.nets:
            outputs.append(net(inputs))
            inputs = F.avg_pool2d(inputs, 3, 2, 1, count_include_pad=False)
        return outputs


@pytest.fixture
def scales():
    torch.manual_seed(0)
    return Scales(nn.Tanh()).double()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64).requires_grad_()


def test_hand_worked_losses():
    one = [torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[3.0]]]])]
    other = [torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[0.5]]]])]
    assert generator_loss(one) == 2 * (1 + 4)
    assert discriminator_loss(one, other) == (2 + 9) + (0 + 0.25)


def test_perfect_answers_cost_nothing():
    right, wrong = [torch.ones(2, 1, 3, 4)] * 3, [torch.zeros(2, 1, 3, 4)] * 3
    assert generator_loss(right) == 0
    assert generator_loss(wrong) == 6
    assert discriminator_loss(wrong, right) == 0
    assert discriminator_loss(right, wrong) == 6


def test_generator_and_discriminator_pull_apart(scales, images):
    outputs = scales(images)
    fooling = torch.autograd.grad(generator_loss(outputs), outputs, retain_graph=True)
    telling = torch.autograd.grad(discriminator_loss(outputs, []), outputs)
    for output, up, down in zip(outputs, fooling, telling, strict=True):
        torch.testing.assert_close(up, 4 * (output - 1) / output.numel())
        torch.testing.assert_close(down, 2 * output / output.numel())


def test_losses_are_wide_for_narrow_outputs(scales, images):
    outputs = [output.detach().bfloat16() for output in scales(images)]
    wide = [output.float() for output in outputs]
    assert generator_loss(outputs) == generator_loss(wide)
    assert discriminator_loss(outputs, outputs) == discriminator_loss(wide, wide)
    assert generator_loss(outputs).dtype == torch.float32
    assert generator_loss([output.double() for output in outputs]).dtype == torch.float64


def test_penalty_is_that_of_each_image_and_scale_apart(scales, images):
    expected = 0.0
    for image in images.detach():
        single = image[None].requires_grad_()
        for scale in range(3):
            (gradient,) = torch.autograd.grad(scales(single)[scale].sum(), single)
            expected += gradient.pow(2).sum().item()
    found = gradient_penalty(scales(images), images)
    assert found.item() == pytest.approx(0.01 * expected / 2, rel=1e-10)


def test_penalty_is_not_the_square_of_the_sum_of_the_scales(scales, images):
    outputs = scales(images)
    (together,) = torch.autograd.grad(
        sum(output.sum() for output in outputs), images, retain_graph=True
    )
    merged = 0.01 * together.square().sum().item() / 2
    assert abs(gradient_penalty(outputs, images).item() - merged) > 0.01 * merged


def test_closed_form_of_linear_discriminators():
    weights = [torch.randn(1, 3, 4, 5, requires_grad=True) for _ in range(3)]
    images = torch.randn(6, 3, 4, 5, requires_grad=True)
    outputs = [F.conv2d(images, weight) for weight in weights]  # one number an image: <w, x>
    penalty = gradient_penalty(outputs, images)
    expected = 0.01 * sum(weight.detach().square().sum() for weight in weights)
    torch.testing.assert_close(penalty.detach(), expected)
    for weight, gradient in zip(weights, torch.autograd.grad(penalty, weights), strict=True):
        torch.testing.assert_close(gradient, 0.02 * weight.detach())


def test_finite_differences_of_the_penalty_by_the_discriminator_s_parameters(scales, images):
    parameters = [scales.nets[0][0].weight, scales.nets[2][2].weight]

    def penalty(*values):
        outputs = torch.func.functional_call(
            scales, {"nets.0.0.weight": values[0], "nets.2.2.weight": values[1]}, (images,)
        )
        return gradient_penalty(outputs, images)

    assert torch.autograd.gradcheck(penalty, parameters)


def test_other_losses_of_the_same_outputs_still_have_their_graph(scales, images):
    outputs = scales(images)
    loss = discriminator_loss(outputs, outputs) + gradient_penalty(outputs, images)
    loss.backward()
    apart = Scales(nn.Tanh()).double()
    apart.load_state_dict(scales.state_dict())
    first, second = apart(images), apart(images)
    (discriminator_loss(first, first) + gradient_penalty(second, images)).backward()
    for one, other in zip(scales.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_penalty_is_float32_under_autocast(scales, images):
    single = scales.float()
    inputs = images.detach().float().requires_grad_()
    expected = gradient_penalty(single(inputs), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = single(inputs)
        with torch.autocast("cpu", enabled=False):
            outputs = single(inputs)
        found = gradient_penalty(outputs, inputs)
        with pytest.raises(AssertionError, match="ran without autocast"):
            gradient_penalty(narrow, inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, [single.nets[1][0].weight])
    assert gradient.dtype == torch.float32


def test_flat_discriminators_have_no_penalty_and_finite_gradients(images):
    flat = Scales(nn.LeakyReLU(0.2)).double()
    for net in flat.nets:
        nn.init.zeros_(net[2].weight)
    penalty = gradient_penalty(flat(images), images)
    assert penalty == 0
    for gradient in torch.autograd.grad(penalty, [net[2].weight for net in flat.nets]):
        assert gradient.isfinite().all()


def test_nothing_depends_on_what_only_the_device_knows():
    with FakeTensorMode() as fakes:  # refuses to read values or to make shapes of them
        scales = Scales(nn.LeakyReLU(0.2))
        images = torch.randn(2, 3, 9, 8, requires_grad=True)
        outputs = scales(images)
        loss = discriminator_loss(outputs, outputs) + gradient_penalty(outputs, images)
        (loss + generator_loss(outputs)).backward()
        assert fakes is scales.nets[0][0].weight.grad.fake_mode
