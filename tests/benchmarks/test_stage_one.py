import json

import numpy as np
import pytest
import torch

from benchmarks import balancing, memory, stage_one
from benchmarks.__main__ import main
from benchmarks.balancing import Maps, PublishedBalancing, check_equal, our_balancing
from benchmarks.online_ensemble import Mark
from benchmarks.parts import REST, Trace
from benchmarks.report import Settings
from benchmarks.stage_one import (
    BALANCING,
    PARTS,
    PLAIN,
    PUBLISHED,
    VARIANTS,
    Case,
    Step,
    maps_of,
    paired_batch,
    seams,
    total,
)
from benchmarks.timing import Samples
from losses.class_balance import percentile
from methods.two_heads import TwoHeadLoss

CPU = torch.device("cpu")
TINY = Case("deeplabv3plus_mobilenet", (48, 64), (48, 64))


@pytest.fixture(scope="module")
def published():
    return Step(PUBLISHED, TINY, CPU)


@pytest.fixture
def loss(published):
    return TwoHeadLoss(published.method.opts, stage_one.NUM_CLASSES)


def random_maps():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 17, (2, 97, 131), dtype=torch.uint8, generator=generator)
    labels[0, :60] = 3  # more than 4096 pixels an image
    labels[:, -9:] = 255
    main, aux = torch.rand((2, *labels.shape), generator=generator).pow(3).mul_(40)
    return Maps(labels, (main, aux))


def test_the_yardstick_weighs_classes_exactly_as_training_does(loss):
    maps, yardstick = random_maps(), PublishedBalancing(loss)
    for _ in range(20):
        mine, theirs = loss.class_weights(maps.labels), yardstick.class_weights(maps.labels)
        assert torch.equal(mine, theirs)
    assert theirs[3] == 1
    assert (theirs[:3] == 7).all()
    # The last classes are absent: after k batches O = 7 - 6 0.9^k.
    assert theirs[18].item() == pytest.approx(7 * (7 - 6 * 0.9**20), rel=1e-6)


def test_the_yardstick_chooses_pixels_as_training_does(loss):
    maps = random_maps()
    yardstick = PublishedBalancing(loss)
    mine, theirs = our_balancing(loss, maps), yardstick(maps)
    for each, chosen, wanted in zip(maps.losses, mine.labels, theirs.labels, strict=True):
        reference = np.percentile(each.numpy().astype(np.float64), 80)
        assert yardstick.threshold(each) == pytest.approx(reference, rel=1e-6)
        assert percentile(each, 80).item() == pytest.approx(reference, rel=1e-6)
        assert torch.equal(chosen, wanted)
        void = chosen == 255
        assert 0.8 <= void.float().mean() < 0.9
        assert torch.equal(chosen[~void], maps.labels[~void])
    check_equal(loss, maps)


@pytest.mark.parametrize(
    ("way", "message"),
    [("threshold", "the thresholds differ"), ("class_weights", "the class weights differ")],
)
def test_ways_that_disagree_are_found(loss, monkeypatch, way, message):
    right = getattr(PublishedBalancing, way)
    monkeypatch.setattr(PublishedBalancing, way, lambda *given: right(*given) * 1.00001)
    with pytest.raises(AssertionError, match=message):
        check_equal(loss, random_maps())


def test_other_pixels_are_found(loss, monkeypatch):
    hardest = PublishedBalancing.hardest
    monkeypatch.setattr(PublishedBalancing, "hardest", lambda *given: hardest(*given).flip(0))
    with pytest.raises(AssertionError, match="the hard pixels differ"):
        check_equal(loss, random_maps())


def test_parts_of_a_call_interrupt_each_other(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(
        "benchmarks.parts.mark", lambda _: Mark(2.0 * next(clock), float(next(clock)), None)
    )

    class Owner:
        def outer(self):
            return self.inner() + 1

        def inner(self):
            return 1

    owner, trace, found = Owner(), Trace(CPU), []
    parts = [(owner, "outer", ("outer",)), (owner, "inner", ("first", "second"))]
    trace(lambda: found.extend([owner.outer(), owner.inner()]), parts)
    assert found == [2, 1]
    assert vars(owner) == {}  # the functions are the owner's own again
    assert [part for part, _ in trace.calls[0]] == [
        *(REST, "outer", "first", "outer", REST, "second", REST, REST)
    ]
    samples = trace.samples(["outer", "first", "second", "unseen", REST], last=1)
    assert {name: timed.cost for name, timed in samples.items()} == {
        **{"outer": [4.0], "first": [2.0], "second": [2.0], "unseen": [0.0]},
        REST: [6.0],
    }
    assert sum(timed.wall[0] for timed in samples.values()) == 28


def test_every_part_is_in_a_step_and_the_parts_add_up(published):
    trace = Trace(CPU)
    head = published.method.network.aux_classifier.classifier[-1].weight
    before = head.detach().clone()
    trace(published, seams(published))
    assert not torch.equal(head, before)
    (moments,) = trace.calls
    began = list(dict.fromkeys(part for part, _ in moments))
    assert sorted(began) == sorted(PARTS)
    samples = trace.samples(PARTS, last=1)
    assert all(timed.cost[0] > 0 for timed in samples.values())
    whole = moments[-1][1].cpu - moments[0][1].cpu
    assert total(samples, PARTS) == pytest.approx([whole])
    # The penalty is within the discriminators' losses, the choice of pixels within the network's.
    order = [part for part, _ in moments]
    assert order[order.index("R1 penalty") - 1] == "discriminator losses"
    assert order.count("hard pixels") == 2
    assert order[order.index("hard pixels") - 1] == "segmentation losses"


@pytest.mark.parametrize(
    ("variant", "absent"),
    [
        ("without balancing", {"hard pixels"}),
        ("without R1", {"R1 penalty"}),
        ("without discriminators", {"R1 penalty"}),
    ],
)
def test_a_variant_leaves_out_its_part(variant, absent):
    step, trace = Step(VARIANTS[variant], TINY, CPU), Trace(CPU)
    trace(step, seams(step))
    entered = {part for part, _ in trace.calls[0]}
    assert set(PARTS) - entered == absent
    outputs = step.method(step.batch, step.training.step)
    assert len(outputs.losses) == (1 if variant == "without discriminators" else 3)
    assert "loss_agreement" in outputs.logs
    assert (outputs.losses["network"] > 0).all()


def test_a_variant_without_agreement_has_no_such_term():
    step = Step(VARIANTS["without agreement"], TINY, CPU)
    assert "loss_agreement" not in step.method(step.batch, 1).logs


def test_labels_have_an_absent_class_and_void_pixels():
    batch = paired_batch(Case("any", (64, 96), (48, 40)))
    assert batch["label"].shape == (2, 48, 40)
    assert batch["image"].shape == (2, 3, 48, 40)
    assert batch["target_image"].shape == (2, 3, 64, 96)
    assert batch["target_image"].dtype == torch.uint8
    values = batch["label"].unique().tolist()
    assert 255 in values
    assert 18 not in values
    assert len(values) > 5


def test_the_maps_are_those_of_the_batch(published):
    maps = maps_of(published)
    void = maps.labels == 255
    for each in maps.losses:
        assert (each[void] == 0).all()
        assert (each[~void] > 0).all()
        assert not each.requires_grad


def called_once(candidates, **_):
    for call in candidates.values():
        call()
    # Two samples of each: the marks come from the calls themselves.
    for name, call in candidates.items():
        if name == "parts":
            call()
    return {name: Samples([n, n], [n, n]) for n, name in enumerate(candidates, 4)}


def test_the_flags_reach_the_tables(tmp_path, monkeypatch, capsys):
    asked = []

    def peak(function, name, case, threads, *, returning):
        asked.append((function, case, returning))
        return {PLAIN: 100.0, "activation checkpointing": 60.0, "bf16": 70.0}[name]

    monkeypatch.setattr(stage_one, "in_new_process", peak)
    monkeypatch.setattr(stage_one, "interleave", called_once)  # which collects garbage, slowly
    monkeypatch.setattr(balancing, "interleave", called_once)
    written = tmp_path / "numbers.json"
    flags = ["--size", "32", "48", "--crop_size", "40", "--model", "deeplabv3_mobilenet"]
    assert main(["stage_one", "--quick", *flags, "--json", str(written)]) == 0
    assert "of the step's time" in capsys.readouterr().out
    section = json.loads(written.read_text())["benchmarks"]["stage_one"]
    parts, steps, ways = section["tables"]
    assert parts["caption"].startswith(
        "Parts of a step, deeplabv3_mobilenet, source 40x40, target 32x48,"
    )
    assert [row["part"] for row in parts["rows"]] == [*PARTS, "all, of the plain step"]
    shares = [row["of the step"]["median"] for row in parts["rows"][:-1]]
    assert sum(shares) == pytest.approx(1, abs=1e-6)  # medians of two steps
    assert [row["step"] for row in steps["rows"]] == [PLAIN, "activation checkpointing", "bf16"]
    assert [row["of plain's memory"] for row in steps["rows"]] == [1, 0.6, 0.7]
    assert [row["of plain's time"]["median"] for row in steps["rows"]] == [1, 5 / 4, 6 / 4]
    assert [row["of the balancing"] for row in ways["rows"]] == [*BALANCING, "both"]
    assert (
        asked == [(stage_one.grown_memory, ("deeplabv3_mobilenet", (32, 48), (40, 40)), True)] * 3
    )
    (target,) = section["targets"]
    assert target["bound"] == 0.03
    assert 0 < target["value"] < 1


@pytest.mark.slow
def test_checkpointing_takes_less_memory_than_the_plain_step():
    case = Case(TINY.model, (128, 128), (128, 128))
    plain, saved = (
        memory.in_new_process(stage_one.grown_memory, name, tuple(case), 1, returning=True)
        for name in (PLAIN, "activation checkpointing")
    )
    assert saved < 0.9 * plain


def test_a_section_is_made_from_settings_alone(monkeypatch):
    monkeypatch.setattr(stage_one, "peaks", lambda *_: {PLAIN: 1.0})
    monkeypatch.setattr(stage_one, "QUICK_SIZE", (48, 48))
    monkeypatch.setattr(stage_one, "QUICK_VARIANTS", (PLAIN,))
    monkeypatch.setattr(stage_one, "interleave", called_once)
    monkeypatch.setattr(balancing, "interleave", called_once)
    section = stage_one.run(Settings(CPU, quick=True))
    assert "deeplabv3plus_mobilenet, 48x48, 2 images of each domain" in section.tables[0].caption
