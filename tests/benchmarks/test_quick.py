"""The benchmarks run, on tiny inputs, and write what they print."""

import json

import pytest
import torch

from benchmarks.__main__ import main


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["confusion_matrix", "loading", "validation", "corruptions"])
def test_a_quick_run_prints_a_section_and_writes_its_numbers(name, tmp_path, capsys):
    written = tmp_path / "numbers.json"
    assert main([name, "--quick", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    assert "## " in printed
    content = json.loads(written.read_text())
    assert list(content["benchmarks"]) == [name]
    assert content["machine"]["torch"] == torch.__version__.split("+")[0]


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no benchmark is called speed; there are training_step" in capsys.readouterr().err
