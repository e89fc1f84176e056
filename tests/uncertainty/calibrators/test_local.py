import pytest
import torch
from torch.nn import functional as F

from tests.uncertainty.calibrators.samples import prediction
from uncertainty.calibrators import LocalTemperature, LocalTemperatureHead

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def trained(reads="both", classes=5, **settings):
    """A head with weights that do something, the image's convolution included."""
    head = LocalTemperatureHead(classes, reads=reads, **settings)
    generator = torch.Generator().manual_seed(3)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.03, generator=generator)
    return head


def inputs(classes=5, size=(9, 11)):
    generator = torch.Generator().manual_seed(0)
    return (
        3 * torch.randn(2, classes, *size, generator=generator),
        torch.rand(2, 3, *size, generator=generator),
    )


def test_it_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in LocalTemperatureHead(19).parameters()) == 3884


def test_zero_start_halves_the_logits_exactly():
    before, images = prediction(size=(9, 11))
    after = LocalTemperature(LocalTemperatureHead(5), MEAN, STD)(before, images)
    assert torch.equal(after.logits, before.logits / 2)
    for name in ("temperature", "aux_logits", "features"):
        assert getattr(after, name) is getattr(before, name)


@pytest.mark.parametrize("floor", ["original", "clamp"])
@pytest.mark.parametrize("start", [1.0, 2.0])
def test_it_starts_at_the_temperature_asked_for(floor, start):
    head = LocalTemperatureHead(5, init_t=start, floor=floor)
    assert torch.equal(head(*inputs()), torch.full((2, 1, 9, 11), start))


@pytest.mark.parametrize("reads", ["both", "logits", "image"])
def test_it_is_the_published_formula_of_nine_convolutions(reads):
    head = trained(reads)
    logits, image = inputs()

    def convolve(source, weight, bias):
        padded = F.pad(source, (4, 4, 4, 4), mode="reflect")
        return F.conv2d(padded, weight[None], bias[None], dilation=2)

    for_eight = image if reads == "image" else logits
    for_ninth = logits if reads == "logits" else image
    eight = [convolve(for_eight, head.maps.weight[i], head.maps.bias[i]) for i in range(8)]
    ninth = convolve(for_ninth, head.image_map.weight[0], head.image_map.bias[0])
    t1, t2, t3, t4 = (part + 1 for part in eight[:4])
    s1, s2, s3, s_image = (part.sigmoid() for part in eight[4:])
    a = t1 * s1 + t2 * (1 - s1)
    b = t3 * s2 + t4 * (1 - s2)
    m = a * s3 + b * (1 - s3)
    expected = torch.relu(m * s_image + (ninth + 1) * (1 - s_image) + 1) + 1e-8
    assert torch.allclose(head(logits, image), expected, atol=1e-5)
    assert expected.std() > 0.02


def test_the_ablations_read_one_input_only():
    logits, image = inputs()
    only_logits, only_image = trained("logits"), trained("image")
    assert torch.equal(only_logits(logits, image), only_logits(logits, 1 - image))
    assert torch.equal(only_image(logits, image), only_image(-logits, image))
    assert not torch.equal(trained()(logits, image), trained()(logits, 1 - image))


def test_one_temperature_serves_all_classes():
    before, images = prediction(size=(9, 11))
    head = trained(floor="clamp")
    after = LocalTemperature(head, MEAN, STD)(before, images)
    assert torch.equal(after.logits.argmax(1), before.logits.argmax(1))
    quotient = before.logits / after.logits
    assert torch.allclose(quotient, quotient[:, :1].expand_as(quotient), rtol=1e-4)


def test_constant_input_gives_a_constant_temperature_up_to_the_borders():
    logits, image = inputs()
    found = trained()(
        logits.mean((2, 3), keepdim=True).expand_as(logits).contiguous(),
        image.mean((2, 3), keepdim=True).expand_as(image).contiguous(),
    )
    assert torch.allclose(found, found[:, :, :1, :1].expand_as(found), atol=1e-5)
    assert (found[0, 0, 0, 0] - 2).abs() > 1e-3


def test_floors():
    logits, image = inputs()
    for floor, least in (("original", 1e-8), ("clamp", 0.05)):
        head = LocalTemperatureHead(5, floor=floor)
        torch.nn.init.constant_(head.maps.bias, -50.0)
        torch.nn.init.constant_(head.image_map.bias, -50.0)
        assert torch.equal(head(logits, image), torch.full((2, 1, 9, 11), least))


def adam_steps(head, steps=4):
    logits, image = inputs()
    labels = torch.randint(0, 5, (2, 9, 11), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(logits / head(logits, image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return head.maps.weight.detach()


def test_under_the_zero_start_six_maps_stay_tied():
    weight = adam_steps(LocalTemperatureHead(5))
    assert weight[0].abs().max() > 0
    for index in (1, 2, 3):
        assert torch.allclose(weight[index], weight[0], atol=1e-7)
    assert torch.equal(weight[4:7], torch.zeros_like(weight[4:7]))
    assert weight[7].abs().max() > 0


def test_the_random_start_unties_them_and_is_seeded():
    weight = adam_steps(LocalTemperatureHead(5, init="random"))
    differences = [(weight[0] - weight[index]).abs().max() for index in (1, 2, 3)]
    assert min(differences) > 1e-3
    assert min(weight[index].abs().max() for index in (4, 5, 6)) > 1e-3
    first, second, third = (
        LocalTemperatureHead(5, init="random", seed=seed).maps.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_images_are_brought_back_to_0_to_1():
    before, _ = prediction(images=2, size=(9, 11))
    _, image = inputs()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    head = trained()
    after = LocalTemperature(head, MEAN, STD)(before, (image - mean) / std)
    expected = before.logits / head(before.logits, image).detach()
    assert torch.allclose(after.logits, expected, rtol=1e-4)
    assert not after.logits.requires_grad


def test_an_ensembles_members_are_divided_by_the_ensembles_temperature():
    before, images = prediction(members=2, size=(9, 11))
    after = LocalTemperature(LocalTemperatureHead(5), MEAN, STD)(before, images)
    assert torch.equal(after.member_logits, before.member_logits / 2)
    assert after.logits.logsumexp(1).abs().max() < 1e-6


def test_images_too_small_for_the_reflected_border_are_refused():
    logits, image = inputs(size=(4, 30))
    message = "the image has 4x30 pixels; local temperature scaling needs at least 5 rows"
    with pytest.raises(ValueError, match=message):
        LocalTemperatureHead(5)(logits, image)
    logits, image = inputs(size=(5, 5))
    assert LocalTemperatureHead(5)(logits, image).shape == (2, 1, 5, 5)


def test_images_of_another_size_than_the_logits_are_refused():
    before, _ = prediction(images=2, size=(9, 11))
    with pytest.raises(ValueError, match=r"images of \(8, 11\) and logits of \(9, 11\)"):
        LocalTemperature(LocalTemperatureHead(5), MEAN, STD)(before, torch.zeros(2, 3, 8, 11))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reads": "none"}, "reads is 'none'; it must be one of both, logits, image"),
        ({"init": "ones"}, "init is 'ones'; it must be one of zero, random"),
        ({"floor": "none"}, "floor is 'none'; it must be one of original, clamp"),
        ({"init_t": 0}, "init_t is 0; a temperature must be above 0"),
    ],
)
def test_unknown_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LocalTemperatureHead(5, **settings)
