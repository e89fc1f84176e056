import importlib
import sys
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.external import (
    External,
    external_network,
    logits_of,
    mask_classification,
    state_hash,
)

MODULE = """
import torch
from PIL import Image
from torch import nn

class Third(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)  # counts its batches in a scalar
    def forward(self, images):
        return {"out": self.norm(self.layer(images))[..., ::3, ::3]}

def build():
    torch.manual_seed(0)
    return Third()

def number():
    return 3

def of_classes(classes):
    return nn.Conv2d(3, classes, 1)

def raises():
    raise RuntimeError("no weights\\nat all")

text = "no callable"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of another project in the working directory."""
    (tmp_path / "other_project.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "other_project"


def test_network_of_another_module_gives_logits_at_the_size_of_the_images(module):
    network = external_network(f"{module}:build")
    method = External(Namespace(), 4, network, "its name")
    images = torch.randn(2, 3, 12, 18)
    logits = method.predict(images).logits
    assert logits.shape == (2, 4, 12, 18)
    small = network(images)["out"]
    expected = nn.functional.interpolate(small, (12, 18), mode="bilinear", align_corners=False)
    assert torch.equal(logits, expected)
    assert method.deployable() is network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other_project", "write module:callable"),
        ("nothing_like_this:build", "nothing_like_this cannot be imported"),
        ("other_project:missing", "other_project has no callable missing"),
        ("other_project:text", "no callable text"),
        ("other_project:number", "returned int, not a torch.nn.Module"),
    ],
)
def test_wrong_names_are_explained(module, text, message):
    with pytest.raises(ValueError, match=message):
        external_network(text)


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("of_classes", TypeError, "of_classes() missing 1 required positional argument"),
        ("raises", RuntimeError, "(RuntimeError: no weights at all, in "),
    ],
)
def test_what_fails_when_it_is_called_is_named_with_its_file(module, name, cause, words):
    with pytest.raises(
        ValueError, match=r"of \S+other_project\.py failed when it was call"
    ) as said:
        external_network(f"{module}:{name}")
    assert str(said.value).startswith(f"--external other_project:{name}: {name} of ")
    assert words in str(said.value)
    assert "\n" not in str(said.value)
    assert isinstance(said.value.__cause__, cause)


@pytest.mark.parametrize(
    ("source", "cause", "words"),
    [
        ("def build(:", SyntaxError, r"SyntaxError: .*\(broken_project\.py, line 1\)"),
        ("\n1 / 0", ZeroDivisionError, r"division by zero, in \S+broken_project\.py line 2\)"),
        ("import no_such_thing", ImportError, r"'no_such_thing', in \S+broken_project\.py line 1"),
    ],
)
def test_a_module_that_fails_is_named_with_its_file(module, source, cause, words, monkeypatch):
    Path("broken_project.py").write_text(source)
    monkeypatch.delitem(sys.modules, "broken_project", raising=False)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(ValueError, match=f"broken_project cannot be imported .*{words}") as said:
        external_network("broken_project:build")
    assert isinstance(said.value.__cause__, cause)


def test_other_number_of_classes_is_refused(module):
    method = External(Namespace(), 19, external_network(f"{module}:build"), "mine")
    with pytest.raises(ValueError, match=r"mine gives logits .*\(1, 4, 2, 2\); expected \(N, 19"):
        method.predict(torch.randn(1, 3, 6, 6))


def test_features_are_refused(module):
    method = External(Namespace(), 4, external_network(f"{module}:build"), "mine")
    with pytest.raises(ValueError, match="no pooled features"):
        method.predict(torch.randn(1, 3, 6, 6), frozenset({"features"}))


def test_logits_are_found_in_tensors_mappings_and_objects():
    logits = torch.randn(1, 2, 3, 3)
    for output in (logits, OrderedDict(out=logits, aux=1), SimpleNamespace(logits=logits)):
        assert torch.equal(logits_of(output, "x"), logits)
    with pytest.raises(ValueError, match="x returned list without logits"):
        logits_of([logits], "x")


def test_mask_classification_sums_class_probabilities_over_the_queries():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(2, 5, 4, generator=generator)
    masks = torch.randn(2, 5, 3, 6, generator=generator)
    found = logits_of({"class_queries_logits": classes, "masks_queries_logits": masks}, "x")
    assert torch.equal(found, mask_classification(classes, masks))
    scores = torch.zeros(2, 3, 3, 6)
    for image in range(2):
        for query in range(5):
            share = classes[image, query].softmax(0)[:3]
            scores[image] += share[:, None, None] * masks[image, query].sigmoid()
    assert torch.allclose(found.softmax(1), scores / scores.sum(1, keepdim=True), atol=1e-6)


def test_hash_follows_the_weights(module):
    one, other = external_network(f"{module}:build"), external_network(f"{module}:build")
    assert state_hash(one) == state_hash(other)
    other.layer.bias.data[0] += 1
    assert state_hash(one) != state_hash(other)
    third = external_network(f"{module}:build")
    third.norm.num_batches_tracked += 1
    assert state_hash(one) != state_hash(third)
