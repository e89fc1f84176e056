import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from datasets.transforms import normalize
from engine.evaluate import run_pass
from engine.score_maps import ScoreMapWriter, score_scale, score_writers
from uncertainty import SCORES
from uncertainty.scores import PLAIN, ScoreSettings, build_score
from utils.colour_maps import colour_indices, colour_table, coloured, read_scale
from utils.types import ForwardVariant, Prediction, Score

PALETTE = torch.tensor([[128, 64, 128], [0, 0, 142], [70, 130, 180]], dtype=torch.uint8)
NAMES = ("road", "car", "sky")
SIZE = (6, 8)
CLIPPED = ForwardVariant("clipped", lambda predict, network, images: predict(images))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, 2, (2, *SIZE), dtype=torch.uint8, generator=generator)
    return {"image": normalize(raw), "label": label, "id": ["city/first", "city/second"]}


@pytest.fixture
def prediction():
    """Two members; the first image is surer than the second."""
    generator = torch.Generator().manual_seed(1)
    members = (
        torch.randn(2, 2, 3, *SIZE, generator=generator)
        * torch.tensor([8, 1.0])[None, :, None, None, None]
    )
    mean = members.log_softmax(2).logsumexp(0) - math.log(2)
    temperatures = 0.1 + 0.9 * torch.rand(2, 2, 1, *SIZE, generator=generator)
    return Prediction(
        mean,
        member_logits=members,
        temperature=temperatures.mean(0),
        member_temperatures=temperatures,
        main_logits=members[0],
        aux_logits=members[1],
    )


def write(folder, batch, prediction, *names, **more):
    for writer in score_writers(folder, [SCORES[name] for name in names], PALETTE, **more):
        writer.update(batch, prediction)
        writer.all_reduce()
        assert writer.compute() == {}
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def rgb(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_every_score_is_written_as_numbers_and_in_colours(tmp_path, batch, prediction):
    names = write(tmp_path, batch, prediction, *SCORES)
    endings = sorted(["scores.npz", "uncertainty.png", *(f"{name}.png" for name in SCORES)])
    assert names == [f"city/{image}_{end}" for image in ("first", "second") for end in endings]
    for index, image in enumerate(("first", "second")):
        with np.load(tmp_path / f"city/{image}_scores.npz") as file:
            assert set(file) == set(SCORES)
            for name, score in SCORES.items():
                values = file[name]
                assert values.dtype == np.float32
                np.testing.assert_array_equal(values, score.function(prediction)[index].numpy())
                path = tmp_path / f"city/{image}_{name}.png"
                scale = score_scale(name, 3, values)
                assert read_scale(path) == scale
                np.testing.assert_array_equal(rgb(path), coloured(values, scale))


def test_the_maps_of_two_images_and_of_two_entropies_have_one_scale(tmp_path, batch, prediction):
    write(tmp_path, batch, prediction, "entropy", "instance", "expected_entropy")
    maps = [*tmp_path.rglob("*_entropy.png"), *tmp_path.rglob("*_instance.png")]
    assert len(maps) == 2 * 3
    (scale,) = {read_scale(path) for path in maps}
    assert (scale.low, scale.high, scale.unit) == (0, math.log(3), "nats")
    means = [rgb(tmp_path / f"city/{name}_entropy.png").mean() for name in ("first", "second")]
    assert means[0] < means[1], "the surer image is darker"


@pytest.mark.parametrize(
    ("classes", "high", "clipped"), [(2, math.log(2), False), (11, 1.5, True), (19, 1.5, True)]
)
def test_entropy_is_shown_to_its_maximum_or_to_where_good_networks_end(classes, high, clipped):
    for name in ("entropy", "instance"):
        scale = score_scale(name, classes, np.float32([[0.1]]))
        assert (scale.high, scale.clipped) == (high, clipped)
        assert scale.note == f"the maximum is log {classes} = {math.log(classes):.2f}"


def test_unbounded_scores_are_shown_over_the_range_of_the_image(tmp_path, batch, prediction):
    write(tmp_path, batch, prediction, "energy")
    first, second = (read_scale(tmp_path / f"city/{n}_energy.png") for n in ("first", "second"))
    energy = SCORES["energy"].function(prediction)
    assert (first.low, first.high) == (energy[0].min().item(), energy[0].max().item())
    assert first != second
    assert "this image" in first.note
    with Image.open(tmp_path / "city/first_energy.png") as picture:
        assert (np.asarray(picture).min(), np.asarray(picture).max()) == (0, 255)


def test_a_constant_map_is_dark_and_breaks_nothing():
    values = np.full((3, 3), 4.0, np.float32)
    scale = score_scale("energy", 3, values)
    assert colour_indices(values, scale).max() == 0


def test_what_a_diverged_network_gives_is_bright():
    values = np.float32([[np.nan, -np.inf], [np.inf, -3], [-2, 1]])
    scale = score_scale("energy", 3, values)
    assert (scale.low, scale.high) == (-3, 1)
    np.testing.assert_array_equal(colour_indices(values, scale), [[255, 0], [255, 0], [64, 255]])
    nothing = score_scale("energy", 3, values[:1])
    assert (nothing.low, nothing.high) == (0, 1)


@pytest.mark.parametrize("name", SCORES)
def test_no_score_exceeds_a_scale_that_is_not_called_clipped(name, prediction):
    values = SCORES[name].function(prediction).numpy()
    scale = score_scale(name, 3, values)
    assert values.min() >= scale.low - 1e-6
    assert scale.clipped or values.max() <= scale.high + 1e-6


def test_the_panel_shows_image_target_overlay_and_scores_at_their_places(
    tmp_path, batch, prediction
):
    write(tmp_path, batch, prediction, "entropy", "instance", class_names=NAMES)
    panel = rgb(tmp_path / "city/first_uncertainty.png")
    margin, gap, tile, height = 15, 6, 320, 240
    assert panel.shape[1] == 5 * tile + 4 * gap + 2 * margin
    top = panel.shape[0] - (panel[::-1, margin + 5] != 255).any(-1).argmax() - 1
    image = rgb_image(batch, 0)
    corner = np.argwhere((panel[:, margin] == image[0, 0]).all(-1))[0, 0]
    assert corner < 60 < top
    map_left = margin + 3 * (tile + gap)
    shown = panel[corner : corner + height, map_left : map_left + tile]
    entropy = SCORES["entropy"].function(prediction)[0].numpy()
    expected = coloured(entropy, score_scale("entropy", 3, entropy))
    centres = np.arange(20, height, 40), np.arange(20, tile, 40)
    np.testing.assert_array_equal(shown[np.ix_(*centres)], expected)
    below = panel[corner + height :]
    assert (below == colour_table()[255]).all(-1).any(), "a colour bar"
    assert (below == PALETTE[1].numpy()).all(-1).sum() > 100, "the legend"


def rgb_image(batch, index):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = batch["image"][index].permute(1, 2, 0) * std + mean
    return (255 * image).round().byte().numpy()


def test_the_panel_has_no_target_without_labels(tmp_path, batch, prediction):
    write(tmp_path / "with", batch, prediction, "entropy")
    del batch["label"]
    write(tmp_path / "without", batch, prediction, "entropy")
    widths = [
        rgb(tmp_path / f"{k}/city/first_uncertainty.png").shape[1] for k in ("with", "without")
    ]
    assert widths[0] - widths[1] == 326


def test_many_scores_stand_in_rows(tmp_path, batch, prediction):
    write(tmp_path, batch, prediction, *list(SCORES)[:8])
    panel = rgb(tmp_path / "city/first_uncertainty.png")
    assert panel.shape[1] == 4 * 320 + 3 * 6 + 2 * 15
    assert 3 * 240 < panel.shape[0] < 3 * 240 + 300


def test_large_images_make_small_panels(tmp_path, batch, prediction):
    large = prediction._replace(logits=F.interpolate(prediction.logits, size=(90, 1300)))
    batch["label"] = torch.zeros(2, 90, 1300, dtype=torch.uint8)
    write(tmp_path, batch, large, "msp")
    assert rgb(tmp_path / "city/first_uncertainty.png").shape[1] < 4 * 640 + 150
    assert rgb(tmp_path / "city/first_msp.png").shape == (90, 1300, 3)


def test_one_writer_for_each_forward_variant(tmp_path, batch, prediction):
    clipped = Score("clipped_energy", SCORES["energy"].function, CLIPPED)
    scores = [SCORES["entropy"], clipped, SCORES["mutual_information"]]
    plain, other = score_writers(tmp_path, scores, PALETTE)
    assert [score.name for score in plain.scores] == ["entropy", "mutual_information"]
    assert plain.needs == {"member_logits"}
    assert plain.variant is None
    assert (other.scores, other.needs, other.variant) == ((clipped,), frozenset(), CLIPPED)
    for writer in (plain, other):
        writer.update(batch, prediction)
        writer.all_reduce()
    names = {path.name for path in (tmp_path / "city").glob("first_*")}
    assert names == {
        *("first_entropy.png", "first_mutual_information.png", "first_clipped_energy.png"),
        *("first_scores.npz", "first_uncertainty.png"),
        *("first_scores_clipped.npz", "first_uncertainty_clipped.png"),
    }


def test_scores_of_members_are_refused_for_a_single_network(tmp_path, batch):
    network = nn.Conv2d(3, 3, 1)
    writers = score_writers(tmp_path, [SCORES["mutual_information"]], PALETTE)

    def predict(images, needs=frozenset()):
        return Prediction(network(images))

    with pytest.raises(
        ValueError, match="ScoreMapWriter needs member_logits, which this model does not give"
    ):
        run_pass(predict, network, [batch], writers, prepare=lambda batch: batch)


def test_an_image_called_like_the_score_of_another_is_refused(tmp_path, batch, prediction):
    batch["id"] = ["x", "x_expected"]
    with pytest.raises(ValueError, match="two images would be written as .*x_expected_entropy"):
        write(tmp_path, batch, prediction, "entropy", "expected_entropy")


@pytest.mark.gpu
def test_a_device_s_maps_are_those_of_the_cpu(tmp_path, batch, prediction):
    write(tmp_path / "cpu", batch, prediction, "entropy", "instance")
    moved = {k: v.cuda() if torch.is_tensor(v) else v for k, v in batch.items()}
    there = Prediction(prediction.logits.cuda(), prediction.member_logits.cuda())
    write(tmp_path / "gpu", moved, there, "entropy", "instance")
    files = [np.load(tmp_path / device / "city/first_scores.npz") for device in ("cpu", "gpu")]
    for name in ("entropy", "instance"):
        np.testing.assert_allclose(files[1][name], files[0][name], atol=1e-5)


def test_a_writer_has_the_scores_of_one_variant(tmp_path):
    scores = [SCORES["entropy"], Score("clipped_energy", SCORES["energy"].function, CLIPPED)]
    with pytest.raises(AssertionError, match="one writer for each variant"):
        ScoreMapWriter(tmp_path, scores, PALETTE)


def test_entropy_in_the_published_scale_has_the_same_colours_and_no_unit(
    tmp_path, batch, prediction
):
    for folder, settings in (("plain", PLAIN), ("paper", ScoreSettings(norm="paper"))):
        score = build_score("entropy", settings)
        (writer,) = score_writers(tmp_path / folder, [score], PALETTE)
        writer.update(batch, prediction)
        writer.all_reduce()
        writer.compute()
    plain, paper = (tmp_path / f"{name}/city/first_entropy.png" for name in ("plain", "paper"))
    assert (read_scale(plain).unit, read_scale(paper).unit) == ("nats", "")
    assert (read_scale(plain).high, read_scale(paper).high) == (math.log(3), 1)
    np.testing.assert_allclose(rgb(paper).astype(int), rgb(plain), atol=3)


def test_entropy_of_one_class_has_a_scale():
    scale = score_scale("entropy", 1, np.zeros((2, 2), np.float32), published=True)
    assert (scale.low, scale.high) == (0, 1)
