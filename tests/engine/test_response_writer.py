import threading

import numpy as np
import pytest
import torch

from datasets.label_files import decode_label
from datasets.transforms import normalize
from datasets.weight_files import decode_uncertainty, decode_weight
from engine.response_writer import ResponseWriter
from uncertainty.response_decoders import DECODERS
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS
from utils.types import Prediction
from utils.weight_levels import weight_levels

IDS = ["city/first", "second", "third", "fourth"]
SIZE = (16, 20)


def images(seed=0):
    """Noise of 8 bits, (4, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 3, *SIZE), generator=generator).to(torch.uint8)


def random_logits(classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(4, classes, 4, 5, generator=generator)
    return 3 * torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")


def scaling(decoder="argmax", scales=PRESETS["voc"], **more):
    return ResponseScaling(scales, DECODERS[decoder].decoder, **more)


def write(directory, logits, batch_size=4, tags=None, device="cpu", **settings):
    """The files of a prediction by their relative path, however it is cut into batches."""
    values = {"num_classes": logits.shape[1], "scaling": scaling(), "wanted": set(IDS), **settings}
    writer = ResponseWriter(directory, values.pop("wanted"), **values)
    for start in range(0, 4, batch_size):
        part = slice(start, start + batch_size)
        batch = {"id": IDS[part], "image": normalize(images()[part].to(device))}
        if tags is not None:
            batch["image_labels"] = tags[part].to(device)
        writer.update(batch, Prediction(logits[part].to(device)))
    writer.all_reduce()
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("decoder", DECODERS)
def test_files_hold_label_and_weight_of_each_image_alone(tmp_path, decoder):
    logits = random_logits()
    files = write(tmp_path, logits, scaling=scaling(decoder))
    assert set(files) == {f"{name}{end}" for name in IDS for end in (".png", "_weight.png")}
    for index, name in enumerate(IDS):
        probabilities = logits[index].softmax(0)
        expected = scaling(decoder)(probabilities, images()[index])
        np.testing.assert_array_equal(decode_label(files[f"{name}.png"]), expected.label)
        levels = decode_weight(files[f"{name}_weight.png"])
        np.testing.assert_array_equal(levels, weight_levels(expected.uncertainty))
        assert set(np.unique(levels)) <= {255, 159, 113, 95, 28, 0}, "six scales"
        assert levels.min() == 0
        assert levels.max() == 255


def test_one_scale_of_1_changes_nothing(tmp_path):
    logits = random_logits()
    files = write(tmp_path, logits, scaling=scaling(scales=(1.0,)))
    for index, name in enumerate(IDS):
        assert (decode_weight(files[f"{name}_weight.png"]) == 255).all()
        label = decode_label(files[f"{name}.png"])
        np.testing.assert_array_equal(label, logits[index].softmax(0).argmax(0))


@pytest.mark.parametrize("decoder", DECODERS)
def test_no_byte_depends_on_threads_or_on_who_shares_a_batch(tmp_path, decoder):
    made = [
        write(
            tmp_path / f"{workers}{batch_size}",
            random_logits(),
            batch_size,
            scaling=scaling(decoder),
            workers=workers,
            save_uncertainty=True,
        )
        for workers, batch_size in ((1, 4), (4, 4), (1, 1), (4, 3))
    ]
    assert len(made[0]) == 12
    assert all(other == made[0] for other in made[1:])


def test_decoding_does_not_hold_the_pass_up(tmp_path):
    """All batches are taken in while the first image is still being decoded."""
    go_on = threading.Event()

    def patient(probabilities, image, tags):
        """Scaling that waits until the pass is over."""
        assert go_on.wait(20)
        return scaling()(probabilities, image, tags)

    writer = ResponseWriter(tmp_path, set(IDS), num_classes=5, scaling=patient, workers=2)
    for index, name in enumerate(IDS):
        image = normalize(images()[index : index + 1])
        writer.update({"id": [name], "image": image}, Prediction(random_logits()[index][None]))
    assert not list(tmp_path.rglob("*.png"))
    go_on.set()
    writer.all_reduce()
    assert len(list(tmp_path.rglob("*.png"))) == 8


def test_only_what_is_wanted_is_decoded_and_written(tmp_path):
    asked = []

    def counted(probabilities, image, tags):
        """Scaling that notes every call."""
        asked.append(probabilities)
        return scaling()(probabilities, image, tags)

    files = write(tmp_path, random_logits(), wanted={"second"}, scaling=counted)
    assert set(files) == {"second.png", "second_weight.png"}
    assert len(asked) == 1


def test_the_uncertainty_itself_is_written_on_request(tmp_path):
    logits = random_logits()
    files = write(tmp_path, logits, save_uncertainty=True)
    for index, name in enumerate(IDS):
        expected = scaling()(logits[index].softmax(0)).uncertainty
        found = decode_uncertainty(files[f"{name}_uncertainty.png"])
        np.testing.assert_allclose(found, expected, atol=0.5001 / 65535)


def test_only_classes_of_the_tags_appear(tmp_path):
    logits = random_logits()
    tags = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    free = write(tmp_path / "free", logits)
    files = write(tmp_path / "tagged", logits, tags=tags.float(), restrict=True)
    shown = [set(np.unique(decode_label(files[f"{name}.png"]))) for name in IDS]
    assert shown[0] == {0, 2}
    assert shown[1] == {0, 1}
    assert shown[2] == {0}
    assert (decode_weight(files["third_weight.png"]) == 255).all(), "one class flips nowhere"
    for ending in (".png", "_weight.png"):
        assert files[f"fourth{ending}"] == free[f"fourth{ending}"]
    assert files["second.png"] != free["second.png"]


def test_tags_that_name_no_class_are_named_with_their_image(tmp_path):
    tags = torch.ones(4, 5)
    tags[1] = 0
    with pytest.raises(ValueError, match="the response of second cannot be scaled: .* no class"):
        write(tmp_path, random_logits(), tags=tags, restrict=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_without_a_finite_prediction_is_named(tmp_path, value):
    logits = random_logits()
    logits[2, 1, 3, 4] = value
    with pytest.raises(ValueError, match="the prediction of third is not finite.*no label"):
        write(tmp_path, logits)
    assert not (tmp_path / "third.png").exists()


def test_an_image_that_waits_holds_neither_its_batch_nor_what_depends_on_it(tmp_path):
    logits, batch = random_logits(), {"id": IDS, "image": normalize(images())}
    writer = ResponseWriter(tmp_path, set(IDS), num_classes=5, scaling=scaling())
    arrays = writer.arrays_of(batch, Prediction(logits))
    for index, name in enumerate(IDS):
        part = slice(index, index + 1)
        one = {"id": [name], "image": batch["image"][part]}
        alone = writer.arrays_of(one, Prediction(logits[part]))
        for key, channels, bytes_each in (("probabilities", 5, 4), ("image", 3, 1)):
            own = arrays[key][index]
            assert own.shape == (channels, *SIZE)
            assert own.untyped_storage().nbytes() == channels * SIZE[0] * SIZE[1] * bytes_each
            assert torch.equal(own, alone[key][0])
    assert torch.equal(arrays["image"][3], images()[3])


def test_so_many_threads_work_on_one_core_each(tmp_path):
    writer = ResponseWriter(tmp_path, set(IDS), num_classes=5, scaling=scaling(), workers=3)
    together, before = threading.Barrier(3, timeout=20), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cores = [
            writer.pool.submit(lambda: (together.wait(), torch.get_num_threads())[1])
            for _ in range(3)
        ]
        assert [found.result() for found in cores] == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        writer.cancel()


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", DECODERS)
def test_files_of_a_gpu_are_those_of_the_cpu_but_for_single_pixels(tmp_path, decoder):
    tags = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    how = {"scaling": scaling(decoder), "tags": tags.float(), "restrict": True, "workers": 2}
    expected = write(tmp_path / "cpu", random_logits(), **how)
    found = write(tmp_path / "cuda", random_logits(), device="cuda", **how)
    assert found.keys() == expected.keys()
    for name, content in found.items():
        decode = decode_weight if name.endswith("_weight.png") else decode_label
        apart = np.mean(decode(content) != decode(expected[name]))
        assert apart < 0.03, f"sums in another order change few pixels, not {apart} of {name}"
