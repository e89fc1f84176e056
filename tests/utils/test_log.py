import io
import json
import logging
import sys
import threading
import time

import numpy as np
import pytest
import torch

from utils import log
from utils.files import WriteError
from utils.log import RunLog, logger, progress, read_metrics, setup_logging


@pytest.fixture(autouse=True)
def restore_logger():
    level = logger.level
    yield
    for handler in tuple(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_have_time_and_message_and_warnings_say_so(capsys):
    setup_logging()
    logger.debug("unseen")
    logger.info("seen %d", 1)
    logger.warning("mind")
    lines = capsys.readouterr().err.splitlines()
    assert [line[8:] for line in lines] == [" seen 1", " warning: mind"]
    assert time.strptime(lines[0][:8], "%H:%M:%S")


def test_setting_up_twice_does_not_double_the_lines(capsys):
    setup_logging()
    setup_logging("debug")
    logger.debug("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_log_file_grows(tmp_path):
    path = tmp_path / "new" / "run.log"
    for text in ("first", "second"):
        setup_logging("info", path)
        logger.info(text)
    lines = path.read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "second"]
    assert time.strptime(lines[0][:19], "%Y-%m-%d %H:%M:%S")


def test_an_unknown_level_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown log level 'loud'; choose from debug, info"):
        setup_logging("loud")


def test_an_impossible_log_file_names_its_path(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WriteError, match=r"taken/run\.log"):
        setup_logging("info", tmp_path / "taken" / "run.log")


def test_other_processes_only_report_errors(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "1")
    setup_logging("debug", tmp_path / "run.log")
    logger.warning("not twice")
    logger.error("broken")
    assert capsys.readouterr().err.rstrip().endswith("[process 1] error: broken")
    assert not (tmp_path / "run.log").exists()


def test_a_log_line_clears_the_bar_first_and_draws_it_again(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    setup_logging()
    with progress(total=10, desc="train") as bar:
        bar.update()
        written = terminal.getvalue()
        logger.info("between")
        after = terminal.getvalue()[len(written) :]
    clearing, line, drawn = after.partition("between\n")
    assert clearing.startswith("\r")
    assert clearing.split("\r")[1].strip() == ""
    assert line
    assert "train" in drawn


def test_a_bar_shows_the_values_and_leaves_the_terminal_clean(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(total=4, desc="train", unit="it", initial=1) as bar:
        bar.set_postfix(loss=0.123456, lr=1e-4, best="n/a")
        time.sleep(0.15)  # more than tqdm's interval between two drawings
        bar.update(2)
    text = terminal.getvalue()
    assert "loss=0.1235, lr=0.0001, best=n/a" in text
    assert "3/4" in text
    assert text.rpartition("\r")[2].strip() == ""


def test_an_iterable_is_passed_through_and_counted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(iter("abc"), total=3, desc="x")) == list("abc")
    walked = progress("abc", desc="x", unit="img")
    list(walked)
    assert walked.line().startswith("x: 3/3 ")


def test_without_a_terminal_there_is_a_line_every_half_minute(monkeypatch, capsys):
    setup_logging()
    now = [1000.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    with progress(total=100, desc="train", unit="it") as bar:
        bar.set_postfix(loss=2.5)
        for _ in range(100):
            now[0] += 1
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("train: 30/100 [00:30 spent, 01:10 left,  1.00it/s, loss=2.5]")


def test_a_short_pass_without_a_terminal_is_silent(capsys):
    setup_logging()
    list(progress(range(50), desc="val"))
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_an_unknown_length_is_no_obstacle():
    assert "7/?" in progress(desc="x", initial=7).line()


def test_other_processes_show_no_progress(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    now = [0.0]
    setup_logging("info")
    monkeypatch.setattr(log.time, "monotonic", lambda: now.append(now.pop() + 100) or now[0])
    for stream in (sys.stderr, Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress(range(3), desc="x")) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""
    assert capsys.readouterr().err == ""


def test_logging_from_threads_while_reporting_does_not_lock_up(monkeypatch, capsys):
    setup_logging()
    monkeypatch.setattr(log, "SECONDS_BETWEEN_LINES", 0.0)
    others = [
        threading.Thread(target=lambda: [logger.info("thread") for _ in range(200)], daemon=True)
        for _ in range(2)
    ]
    for thread in others:
        thread.start()
    list(progress(range(200), desc="main"))
    for thread in others:
        thread.join(20)
    assert not any(thread.is_alive() for thread in others)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 600


def test_metrics_are_one_strict_json_object_a_line_at_once(tmp_path):
    run = RunLog(tmp_path / "run", tensorboard=False)
    values = {"loss": float("nan"), "lr": np.float32(0.5), "miou": None, "iou": [1.0, None]}
    run.log_scalars("train", 3, {**values, "count": torch.tensor(2)})
    line = run.path.read_text().splitlines()[-1]
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 3,
        "kind": "train",
        "loss": None,
        "lr": 0.5,
        "miou": None,
        "iou": [1.0, None],
        "count": 2,
    }


def test_the_last_line_of_a_kind_and_step_counts(tmp_path):
    run = RunLog(tmp_path, tensorboard=False)
    for kind, step, loss in (("train", 1, 9.0), ("val", 1, 5.0), ("train", 1, 8.0)):
        run.log_scalars(kind, step, {"loss": loss})
    assert [(r["kind"], r["loss"]) for r in read_metrics(run.path)] == [("train", 8.0), ("val", 5)]


def test_continuing_supersedes_what_lies_beyond_the_step(tmp_path):
    first = RunLog(tmp_path, tensorboard=False)
    for step in (5, 10, 15):
        first.log_scalars("train", step, {"loss": float(step)})
    again = RunLog(tmp_path, tensorboard=False, resume_step=10)
    again.log_scalars("train", 12, {"loss": 0.0})
    assert [r["step"] for r in read_metrics(again.path)] == [5, 10, 12]
    assert [r["loss"] for r in lines_of(again.path) if "loss" in r] == [5.0, 10.0, 15.0, 0.0]


def test_a_new_run_in_an_old_folder_supersedes_everything(tmp_path):
    RunLog(tmp_path, tensorboard=False).log_scalars("val", 0, {"miou": 1.0})
    new = RunLog(tmp_path, tensorboard=False)
    assert read_metrics(new.path) == []
    new.log_scalars("val", 100, {"miou": 2.0})
    assert [r["miou"] for r in read_metrics(new.path)] == [2.0]


def test_a_torn_last_line_is_tolerated_and_cut_off_on_append(tmp_path):
    run = RunLog(tmp_path, tensorboard=False)
    run.log_scalars("train", 1, {"loss": 1.0})
    with run.path.open("a") as file:
        file.write('{"step": 2, "kind": "train", "lo')
    assert [r["step"] for r in read_metrics(run.path)] == [1]
    again = RunLog(tmp_path, tensorboard=False, resume_step=1)
    again.log_scalars("train", 2, {"loss": 2.0})
    assert [r["step"] for r in read_metrics(run.path)] == [1, 2]
    assert len(lines_of(run.path)) == 4


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\nrubbish\n{"step": 2, "kind": "train"}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not a JSON object: 'rubbish'"):
        read_metrics(path)


def test_a_missing_file_is_an_error_that_says_where_runs_write_it(tmp_path):
    with pytest.raises(ValueError, match=r"does not exist; a run writes it as runs/<name>/metrics"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WriteError, match="taken"):
        RunLog(tmp_path / "taken", tensorboard=False)


def test_other_processes_write_no_metrics(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    run = RunLog(tmp_path / "run")
    run.log_scalars("train", 1, {"loss": 1.0})
    run.close()
    assert not (tmp_path / "run").exists()


def test_events_hold_scalars(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = RunLog(tmp_path)
    run.log_scalars("train", 7, {"loss": 0.5, "bad": float("inf"), "iou": [1.0]})
    run.close()
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(7, 0.5)]


def test_a_continued_run_purges_later_events(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = RunLog(tmp_path)
    for step in (1, 2, 3):
        first.log_scalars("train", step, {"loss": float(step)})
    first.close()
    time.sleep(1.1)  # event files are read in the order of the second they were opened in
    again = RunLog(tmp_path, resume_step=1)
    again.log_scalars("train", 2, {"loss": 20.0})
    again.close()
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 20.0)]


def test_without_tensorboard_there_is_one_warning_and_the_numbers(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.WARNING, "segdoubt"):
        run = RunLog(tmp_path)
        run.log_scalars("train", 1, {"loss": 1.0})
        run.close()
    assert len(caplog.records) == 1
    assert "no TensorBoard events" in caplog.text
    assert read_metrics(run.path)[0]["loss"] == 1.0
