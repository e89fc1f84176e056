import json

import torch

from benchmarks.__main__ import main
from benchmarks.online_ensemble import (
    PUBLISHED,
    SMALL,
    WITH,
    WITHOUT,
    Mark,
    cost,
    ensemble,
    means,
    member_choices,
    step,
)
from benchmarks.report import Settings

QUICK = Settings(torch.device("cpu"), quick=True)


def test_the_published_members_are_for_a_gpu_or_a_single_round():
    assert member_choices(Settings(torch.device("cpu"))) == [SMALL]
    assert member_choices(Settings(torch.device("cpu"), repeats=1)) == [SMALL, PUBLISHED]
    assert member_choices(Settings(torch.device("cuda"))) == [SMALL, PUBLISHED]


def test_the_cost_of_a_span_is_cpu_time_and_samples_are_means_of_calls():
    assert cost(Mark(10.0, 1.0, None), Mark(20.0, 1.5, None)) == 0.5
    assert means([1.0, 3.0, 5.0, 9.0], 2) == [2.0, 7.0]


def test_only_the_step_with_the_uncertainty_measures_it():
    for loss, calls in ((WITH, 1), (WITHOUT, 0)):
        method = ensemble(SMALL[:2], loss, "off", QUICK)
        heads = [member.classifier.classifier[3].weight for member in method.members().values()]
        before = [head.detach().clone() for head in heads]
        step(method, QUICK.device)()
        assert len(method.spans) == calls
        assert not any(map(torch.equal, heads, before))


def test_a_quick_run_prints_the_table_and_writes_its_numbers(tmp_path, capsys):
    written = tmp_path / "numbers.json"
    assert main(["online_ensemble", "--quick", "--json", str(written)]) == 0
    section = json.loads(written.read_text())["benchmarks"]["online_ensemble"]
    assert f"## {section['title']}" in capsys.readouterr().out
    (row,) = section["tables"][0]["rows"]
    assert 0 < row["U, CPU s"] < row["step, CPU s"]
    assert 0 < row["U of the step"]["least"] <= row["U of the step"]["greatest"] < 1
    assert [target["bound"] for target in section["targets"]] == [0.1]
