"""Checkpoints: what is accepted, what is refused and how it is explained, whole or not at all."""

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from datasets.taxonomy import SegClass
from engine import checkpoint
from engine.train import start
from network import build_model
from tests.engine.toys import Adversaries, options
from utils.files import WriteError

CPU = torch.device("cpu")
CLASSES = (SegClass("a", (1, 2, 3)), SegClass("b", (4, 5, 6)))


@pytest.fixture(scope="module")
def mobilenet():
    torch.manual_seed(0)
    return build_model("deeplabv3plus_mobilenet", 3).eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))


def logits(network, image):
    with torch.no_grad():
        return network.eval()(image).logits


def published(network, **extra):
    """A file as the upstream project writes it."""
    return {
        "cur_itrs": 7,
        "model_state": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": []},
        "scheduler_state": {"last_epoch": 7},
        "best_score": np.float64(0.5),
        **extra,
    }


def as_is(content):
    return content


def data_parallel(content):
    state = {f"module.{name}": value for name, value in content["model_state"].items()}
    return {**content, "model_state": state}


def bare(content):
    return content["model_state"]


def compiled(content):
    return {f"_orig_mod.{name}": value for name, value in content["model_state"].items()}


def uncounted(content):
    """As an old torch wrote it, whose norms did not count their batches."""
    state = content["model_state"]
    return {name: state[name] for name in state if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("form", [as_is, data_parallel, bare, compiled, uncounted])
def test_published_forms_load_and_predict_the_same(form, mobilenet, image, tmp_path):
    path = tmp_path / "published.pth"
    torch.save(form(published(mobilenet)), path)
    torch.manual_seed(1)
    other = build_model("deeplabv3plus_mobilenet", 3)
    checkpoint.load_network(other, checkpoint.read(path)["model_state"], path)
    assert torch.equal(logits(other, image), logits(mobilenet, image))


def test_a_numpy_scalar_written_by_an_old_numpy_loads(mobilenet, tmp_path):
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save(published(mobilenet), new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
                assert b"numpy.core.multiarray" in content
            target.writestr(name, content)
    assert checkpoint.read(old)["best_score"] == 0.5


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def truncated(path, network):
    torch.save(published(network), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_tensors(path, network):
    torch.save({"words": ["no", "network"]}, path)


def text(path, network):
    path.write_text("hello")


def empty(path, network):
    path.write_bytes(b"")


def picture(path, network):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


def plain_pickle(path, network):
    path.write_bytes(pickle.dumps({"model_state": Evil()}))


def evil(path, network):
    torch.save({"model_state": Evil()}, path)


@pytest.mark.parametrize(
    "write", [truncated, not_tensors, text, empty, picture, plain_pickle, evil]
)
def test_anything_else_is_refused_by_name(write, mobilenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    write(path, mobilenet)
    with pytest.raises(ValueError, match=r"file\.pth") as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "hacked").exists()


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    evil(path, None)
    with pytest.raises(
        ValueError, match=r"cannot be loaded safely|loaded safely: it asks for posix"
    ):
        checkpoint.read(path)


def load(network, state):
    return checkpoint.load_network(network, state, "some.pth")


def test_another_model_is_named_with_its_flag(mobilenet):
    other = build_model("deeplabv3plus_resnet50", 3)
    with pytest.raises(ValueError, match="it fits --model deeplabv3plus_resnet50") as error:
        load(mobilenet, other.state_dict())
    assert "missing (" in str(error.value)


def test_a_separable_head_is_named_with_its_flag(mobilenet):
    other = build_model("deeplabv3plus_mobilenet", 3, separable_conv=True)
    with pytest.raises(ValueError, match="--model deeplabv3plus_mobilenet --separable_conv"):
        load(mobilenet, other.state_dict())


def test_another_class_count_says_both(mobilenet):
    other = build_model("deeplabv3plus_mobilenet", 5)
    with pytest.raises(ValueError, match="classifies 5 classes, this run 3.*--reset_head"):
        load(mobilenet, other.state_dict())


def test_reset_head_takes_the_rest(image):
    torch.manual_seed(2)
    trained, fresh = (build_model("deeplabv3plus_mobilenet", c) for c in (5, 3))
    before = fresh.state_dict()["classifier.classifier.3.weight"].clone()
    left = checkpoint.load_network(fresh, trained.state_dict(), "x", reset_head=True)
    assert left == ["classifier.classifier.3.weight", "classifier.classifier.3.bias"]
    state = fresh.state_dict()
    assert torch.equal(state["classifier.classifier.3.weight"], before)
    assert torch.equal(
        state["backbone.low_level_features.0.0.weight"],
        trained.state_dict()["backbone.low_level_features.0.0.weight"],
    )


def test_a_missing_tensor_is_named(mobilenet):
    state = dict(mobilenet.state_dict())
    del state["classifier.aspp.project.0.weight"]
    with pytest.raises(ValueError, match=r"1 missing \(classifier.aspp.project.0.weight\)"):
        load(mobilenet, state)


def test_a_foreign_network_fits_no_model(mobilenet):
    with pytest.raises(ValueError, match="it fits no model of this project"):
        load(mobilenet, {"fc.weight": torch.zeros(2, 2)})


def saved(tmp_path, **changes):
    opts = options(**changes)
    training = start(Adversaries(opts), opts, CPU)
    training.step, training.best_score = 4, 33.0
    path = tmp_path / "latest_toy.pth"
    checkpoint.save([path], training, opts=opts, classes=CLASSES, sampler={})
    return path, training, opts


def test_the_file_has_the_published_keys_and_the_deployable_network(tmp_path):
    path, training, _ = saved(tmp_path)
    content = checkpoint.read(path)
    published_keys = {"cur_itrs", "model_state", "optimizer_state", "scheduler_state", "best_score"}
    assert published_keys <= content.keys()
    assert content["model_state"].keys() == training.method.painter.state_dict().keys()
    assert set(content["optimizer_state"]) == {"painter", "critic"}
    assert set(content["method_state"]) == {"critic.weight", "critic.bias", "seen"}
    assert content["colours"] == [(1, 2, 3), (4, 5, 6)]
    assert len(content["rng"]) == 1


def test_resume_restores_everything(tmp_path):
    path, training, opts = saved(tmp_path)
    torch.manual_seed(5)
    other = start(Adversaries(opts), opts, CPU)
    checkpoint.resume(checkpoint.read(path), path, other)
    assert (other.step, other.best_score) == (4, 33.0)
    for name, value in training.method.state_dict().items():
        assert torch.equal(value, other.method.state_dict()[name])


def test_a_published_file_cannot_be_continued(tmp_path):
    path, training, _ = saved(tmp_path)
    content = checkpoint.read(path)
    del content["rng"], content["format"]
    with pytest.raises(ValueError, match="start a new run from it with --ckpt"):
        checkpoint.resume(content, path, training)


def test_another_method_is_refused(tmp_path):
    path, training, _ = saved(tmp_path)
    content = checkpoint.read(path)
    del content["method_state"]["seen"]
    with pytest.raises(ValueError, match="another method"):
        checkpoint.resume(content, path, training)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, training, opts = saved(tmp_path)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match=r"latest_toy\.pth.*disk is full"):
        checkpoint.save([path], training, opts=opts, classes=CLASSES, sampler={})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_ordered_dict_of_tensors_is_a_network(tmp_path):
    path = tmp_path / "state.pth"
    torch.save(collections.OrderedDict(weight=torch.ones(2)), path)
    assert list(checkpoint.read(path)["model_state"]) == ["weight"]
