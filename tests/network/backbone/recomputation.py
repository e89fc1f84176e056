"""What holds of every backbone that recomputes its activations."""

import copy

import torch


def assert_checkpointing_changes_nothing(plain, images):
    """Features, gradients and statistics of one step are those of the plain backbone."""
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations = True
    found = []
    for each in (plain, saving):
        features = each(images)
        sum(feature.square().mean() for feature in features.values()).backward()
        gradients = {name: p.grad for name, p in each.named_parameters()}
        found.append((features, gradients, each.state_dict()))
    for expected, values in zip(*found, strict=True):
        for name, value in expected.items():
            assert torch.equal(values[name], value), name
    counts = {int(t) for name, t in found[1][2].items() if name.endswith("num_batches_tracked")}
    assert counts == {1}
