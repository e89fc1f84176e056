import json

import pytest
import torch

from benchmarks import heads
from benchmarks.__main__ import main
from benchmarks.heads import Case, check_equal, head_pass, network_pass, peak_of_process
from benchmarks.report import Settings
from benchmarks.timing import Ratio, Samples

QUICK = Settings(torch.device("cpu"), quick=True)
SMALL = Case("deeplabv3plus_mobilenet", (40, 56))


@pytest.mark.parametrize("model", ["deeplabv3plus_mobilenet", "deeplabv3_mobilenet"])
def test_the_published_way_gives_the_same_numbers(model):
    rows = check_equal(Case(model, (40, 56)), QUICK)
    assert [(row["part"], row["of"]) for row in rows] == [
        *(("network", "logits"), ("network", "temperature")),
        *(("head", "logits"), ("head", "temperature")),
    ]
    assert all(row["differ by"] < 1e-5 for row in rows)
    assert all(row["greatest"] > 0.3 for row in rows[1:])


def test_ways_that_disagree_are_found(monkeypatch):
    monkeypatch.setattr(heads, "NORM_OFFSET", 1.0)  # of the yardstick alone
    with pytest.raises(AssertionError, match="the ways disagree: logits of the network"):
        check_equal(SMALL, QUICK)


def test_the_yardstick_normalises_what_it_upsampled():
    exact, published = (head_pass(name, SMALL, QUICK.device)() for name in ("exact", "published"))
    cosines = published.logits * published.temperature
    assert cosines.shape == (1, heads.NUM_CLASSES, 40, 56)
    assert cosines.abs().max() < 1
    assert not torch.equal(exact.logits, published.logits)  # another way, other rounding
    assert not published.logits.requires_grad


def test_a_linear_head_has_no_temperature():
    assert network_pass("linear", SMALL, QUICK.device)().temperature is None


def test_a_step_leaves_gradients_that_fast_cosines_change(monkeypatch):
    gradients, build = {}, heads.build
    for name in ("exact", "fast"):
        network = build(name, Case(SMALL.model, (64, 64)), QUICK.device)
        monkeypatch.setattr(heads, "build", lambda *_, network=network: network)
        heads.step(name, Case(SMALL.model, (64, 64)), QUICK.device)()
        gradients[name] = network.classifier.classifier[-1].weight.grad
    assert gradients["exact"].abs().max() > 0
    assert not torch.allclose(gradients["exact"], gradients["fast"])


def test_the_size_is_halved_until_its_maps_fit():
    full = 4 * heads.MAPS_HELD * heads.PENULTIMATE_CHANNELS * 1024 * 2048
    assert heads.size_that_fits((1024, 2048), full) == (1024, 2048)
    assert heads.size_that_fits((1024, 2048), full - 1) == (512, 1024)
    assert heads.size_that_fits((1024, 2048), full / 16) == (256, 512)


@pytest.mark.slow
def test_memory_of_the_published_way_holds_all_features():
    case = Case(SMALL.model, (128, 256))
    upsampled = 4 * heads.PENULTIMATE_CHANNELS * 128 * 256 / 1e6
    logits = 4 * heads.NUM_CLASSES * 128 * 256 / 1e6
    published, exact = (
        peak_of_process("head", name, case, QUICK) for name in ("published", "exact")
    )
    assert published > 2 * upsampled
    assert logits < exact < upsampled / 2


def called_once(candidates, **_):
    for call in candidates.values():
        call()
    return {name: Samples([number], [number]) for number, name in enumerate(candidates, 4)}


def test_the_flags_reach_the_tables(tmp_path, monkeypatch, capsys):
    asked = []

    def peak(part, name, case, settings):
        asked.append((part, case.size))
        return {"linear": 10.0, "exact": 11.0, "published": 50.0, "fast": 10.5}[name]

    monkeypatch.setattr(heads, "peak_of_process", peak)
    monkeypatch.setattr(heads, "interleave", called_once)  # which collects garbage, slowly
    written = tmp_path / "numbers.json"
    flags = ["--size", "32", "64", "--crop_size", "48", "--model", "deeplabv3_mobilenet"]
    assert main(["heads", "--quick", *flags, "--json", str(written)]) == 0
    assert "memory: 1.1 (target at most 1.15): met" in capsys.readouterr().out
    section = json.loads(written.read_text())["benchmarks"]["heads"]
    checked, evaluated, trained = section["tables"]
    assert checked["caption"].endswith("deeplabv3_mobilenet, 32x64:")
    assert [(row["part"], row["head"]) for row in evaluated["rows"]] == [
        (part, name) for part in ("network", "head") for name in heads.EVALUATED
    ]
    assert [row["head"] for row in trained["rows"]] == ["linear", "exact", "fast"]
    assert set(asked) == {("network", (32, 64)), ("head", (32, 64)), ("step", (48, 48))}
    time, memory = section["targets"]
    assert time["value"] == 5 / 4
    assert memory["value"] == pytest.approx(1.1)


def test_without_memory_the_published_way_gets_a_smaller_image(monkeypatch):
    def measured(part, case, names, settings):
        ratio = Ratio(case.size[0] / 64, 0, 9)
        return [
            {"head": name, "of linear's time": ratio, "of linear's memory": 2} for name in names
        ]

    monkeypatch.setattr(heads, "measure", measured)
    monkeypatch.setattr(heads, "free_memory", lambda _: 4 * heads.MAPS_HELD * 256 * 64 * 128 / 4)
    section = heads.run(QUICK)
    checked, whole, smaller, _ = section.tables
    assert [row["head"] for row in whole.rows] == ["linear", "exact"] * 2
    assert [row["head"] for row in smaller.rows] == ["linear", "exact", "published"] * 2
    assert "64x128, 1 image:" in whole.caption
    assert "32x64, 1 image, all that the published way has memory for:" in smaller.caption
    assert "32x64" in checked.caption
    assert [target.value for target in section.targets] == [1, 2]  # of the whole image


def test_a_model_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["heads", "--model", "unet"])
    assert "argument --model" in capsys.readouterr().err
