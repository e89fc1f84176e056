import json

import pytest
import torch

from benchmarks import response_weights
from benchmarks.__main__ import main
from benchmarks.report import Settings
from benchmarks.response_weights import (
    BATCH,
    IN_TURN,
    INFERENCE,
    PRESENT,
    InTurn,
    check_equal,
    images_and_network,
    writer_of,
)
from benchmarks.timing import Samples
from datasets.label_files import decode_label
from datasets.weight_files import decode_weight
from uncertainty.response_decoders import argmax_decoder

QUICK = Settings(torch.device("cpu"), quick=True)


def made(over, folder, workers):
    over([writer_of(folder, argmax_decoder, workers)])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def over():
    return images_and_network(2 * BATCH, QUICK)


def test_images_have_as_many_classes_as_the_text_says_and_uncertain_pixels(over, tmp_path):
    files = made(over, tmp_path, 1)
    assert len(files) == 2 * over.images == 4 * BATCH
    assert len(set(decode_label(files["image0.png"]).ravel().tolist())) == PRESENT
    assert {0, 255} <= set(decode_weight(files["image0_weight.png"]).ravel().tolist())


def test_decoding_in_the_pass_writes_the_same_files_before_the_pass_goes_on(over, tmp_path):
    writer = writer_of(tmp_path / "turn", argmax_decoder, 0)
    assert writer.pool.submit(lambda: 3).done()
    assert made(over, tmp_path / "turn", 0) == made(over, tmp_path / "threads", 4)


def test_an_error_in_the_pass_itself_rises_at_once():
    with pytest.raises(ZeroDivisionError):
        InTurn().submit(lambda: 1 / 0)


def test_folders_that_differ_are_noticed(over, tmp_path):
    made(over, tmp_path / "a", 0)
    made(over, tmp_path / "b", 0)
    check_equal(tmp_path / "a", tmp_path / "b")
    label = tmp_path / "b" / "image0_weight.png"
    label.write_bytes((tmp_path / "b" / "image1_weight.png").read_bytes())
    with pytest.raises(AssertionError, match=r"image0_weight\.png differs"):
        check_equal(tmp_path / "a", tmp_path / "b")


def test_a_quick_run_has_a_row_for_every_way_of_decoding(tmp_path, monkeypatch, capsys):
    def called_once(candidates, **_):
        for call in candidates.values():
            call()
        return {name: Samples([1.0], [n]) for n, name in enumerate(candidates, 1)}

    monkeypatch.setattr(response_weights, "interleave", called_once)
    monkeypatch.setattr(response_weights, "FEW_IMAGES", BATCH)
    monkeypatch.setattr(response_weights, "QUICK_SIZE", (24, 32))
    written = tmp_path / "numbers.json"
    assert main(["response_weights", "--quick", "--json", str(written)]) == 0
    assert "## Response weights" in capsys.readouterr().out
    section = json.loads(written.read_text())["benchmarks"]["response_weights"]
    rows = section["tables"][0]["rows"]
    assert [(row["decoder"], row["decoding"]) for row in rows] == [
        (decoder, way)
        for decoder in ("argmax", "affinity", "crf")
        for way in (INFERENCE, IN_TURN, "1 worker", "2 workers", "4 workers")
    ]
    assert [row["images per second"] for row in rows[:5]] == [BATCH / n for n in range(1, 6)]
    shares = [row[f"of the time {IN_TURN}"]["median"] for row in rows[-5:]]
    assert shares == [n / 2 for n in range(1, 6)]
    (target,) = section["targets"]
    assert (target["value"], target["bound"], target["met"]) == (2.5, 0.7, False)
