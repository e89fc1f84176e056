import json

import torch

from benchmarks import reliability
from benchmarks.__main__ import main
from benchmarks.report import Settings


def test_every_set_of_metrics_is_timed_against_the_bare_pass(tmp_path, monkeypatch, capsys):
    peaks = {2: 900.0, 4: 903.5}
    monkeypatch.setattr(reliability, "peak_memory", peaks.__getitem__)
    written = tmp_path / "numbers.json"
    assert main(["reliability", "--quick", "--json", str(written)]) == 0
    assert "all metrics, of the bare pass's time" in capsys.readouterr().out
    section = json.loads(written.read_text())["benchmarks"]["reliability"]
    names = [row["metrics"] for row in section["tables"][0]["rows"]]
    assert names == ["forward", *reliability.SETS, "all + entropy"]
    assert section["targets"][1]["value"] == 3.5


def test_a_pass_walks_over_its_images_under_new_names(monkeypatch):
    seen = []

    class Names:
        """In place of the counts of every image."""

        needs, variant = frozenset(), None

        def __init__(self, names):
            assert names == reliability.NAMES

        def update(self, batch, prediction):
            assert torch.isfinite(prediction.logits).all()
            assert set(batch["ood"].unique().tolist()) == {0, 1}
            seen.extend(batch["id"])

    monkeypatch.setattr(reliability, "PerImageCounts", Names)
    evaluate = reliability.evaluator(2, (32, 64), Settings(torch.device("cpu")).device, repeats=3)
    evaluate(("segmentation",))
    assert len(seen) == len(set(seen)) == 6
