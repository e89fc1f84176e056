import logging
import socket
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from utils import visualizer
from utils.visualizer import Visualizer

RESULTS = {
    "total": {
        "overall_accuracy": 90.0,
        "miou": 45.5,
        "class_iou": {"road": 91.0, "sky & <clouds>": None},
    }
}


@pytest.fixture
def port():
    """A port on which something listens, as a visdom server would."""
    with socket.create_server(("localhost", 0)) as listener:
        yield listener.getsockname()[1]


class Client:
    """Records what visdom's client is asked for."""

    def __init__(self, **settings):
        self.settings = settings
        self.calls = []
        Client.latest = self

    def line(self, **call):
        self.calls.append(("line", call))

    def text(self, text, **call):
        self.calls.append(("text", {"text": text, **call}))

    def image(self, image, **call):
        self.calls.append(("image", {"image": image, **call}))


def install(monkeypatch, client):
    monkeypatch.setitem(sys.modules, "visdom", SimpleNamespace(Visdom=client))


def use_everything(windows):
    image = np.zeros((4, 6, 3), np.uint8)
    windows.log_options({"lr": 0.1})
    windows.log_loss(1, 2.0)
    windows.log_validation(1, RESULTS)
    windows.log_sample(0, image, image, image)
    windows.close()


def test_the_windows_and_what_is_in_them(monkeypatch, port):
    install(monkeypatch, Client)
    windows = Visualizer(port, "page")
    use_everything(windows)
    client = Client.latest
    assert client.settings["port"] == port
    assert client.settings["env"] == "page"
    titles = [(kind, call["win"], call["opts"]["title"]) for kind, call in client.calls]
    assert [title for _, _, title in titles] == [win for _, win, _ in titles]
    assert [(kind, win) for kind, win, _ in titles] == [
        ("text", "Options"),
        ("line", "Loss"),
        ("line", "[Val] Overall Acc"),
        ("line", "[Val] Mean IoU"),
        ("text", "[Val] Class IoU"),
        ("image", "Sample 0"),
    ]
    calls = {call["win"]: call for _, call in client.calls}
    assert "<td>lr</td><td>0.1</td>" in calls["Options"]["text"]
    assert (calls["[Val] Mean IoU"]["X"], calls["[Val] Mean IoU"]["Y"]) == ([1], [45.5])
    assert "<td>road</td><td>91.00</td>" in calls["[Val] Class IoU"]["text"]
    assert "<td>sky &amp; &lt;clouds&gt;</td><td>n/a</td>" in calls["[Val] Class IoU"]["text"]


def test_a_triptych_is_image_target_prediction_with_channels_first(monkeypatch, port):
    install(monkeypatch, Client)
    windows = Visualizer(port)
    parts = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    windows.log_sample(4, *parts)
    windows.close()
    ((_, call),) = Client.latest.calls
    assert call["image"].shape == (3, 2, 9)
    assert call["image"][0, 0].tolist() == [10] * 3 + [20] * 3 + [30] * 3


def test_curves_grow_also_where_an_earlier_run_left_them(monkeypatch, port):
    install(monkeypatch, Client)
    windows = Visualizer(port)
    windows.log_loss(1, 2.0)
    windows.log_loss(2, 1.0)
    windows.close()
    points = [(c["X"].tolist(), c["Y"].tolist(), c["update"]) for _, c in Client.latest.calls]
    assert points == [([1], [2.0], "append"), ([2], [1.0], "append")]


def test_a_score_that_does_not_exist_is_no_point(monkeypatch, port):
    install(monkeypatch, Client)
    windows = Visualizer(port)
    windows.log_validation(1, {"total": {**RESULTS["total"], "miou": None}})
    windows.close()
    assert [c["win"] for kind, c in Client.latest.calls if kind == "line"] == ["[Val] Overall Acc"]


def failing(error):
    class Failing(Client):
        def line(self, **call):
            raise error

    return Failing


def no_server():
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("make_module", "make_port", "words"),
    [
        (lambda: None, None, "visdom cannot be imported"),
        (lambda: SimpleNamespace(Visdom=Client), no_server, "no visdom server at localhost:"),
        (lambda: SimpleNamespace(), None, "the visdom server failed"),
        (
            lambda: SimpleNamespace(Visdom=failing(ConnectionError("gone"))),
            None,
            "the visdom server failed (gone)",
        ),
    ],
    ids=["no package", "no server", "broken package", "server gone"],
)
def test_whatever_fails_is_one_warning(monkeypatch, port, caplog, make_module, make_port, words):
    monkeypatch.setitem(sys.modules, "visdom", make_module())
    with caplog.at_level(logging.WARNING, "segdoubt"):
        windows = Visualizer(make_port() if make_port else port)
        use_everything(windows)
        use_everything(windows)
    assert len(caplog.records) == 1
    assert words in caplog.text
    assert "--enable_vis" in caplog.text
    assert "the run goes on without live windows" in caplog.text


def test_a_package_that_fails_in_its_own_way_on_import(monkeypatch, port, tmp_path, caplog):
    (tmp_path / "visdom.py").write_text("raise AttributeError('old Python')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "visdom", raising=False)
    use_everything(Visualizer(port))
    assert [r.getMessage().count("old Python") for r in caplog.records] == [1]


def test_a_server_that_hangs_stops_neither_the_run_nor_its_end(monkeypatch, port, caplog):
    release = threading.Event()

    class Hanging(Client):
        def line(self, **call):
            release.wait(20)

    install(monkeypatch, Hanging)
    monkeypatch.setattr(visualizer, "CLOSE_TIMEOUT", 0.2)
    began = time.monotonic()
    windows = Visualizer(port)
    for step in range(2 * visualizer.UNSENT):
        windows.log_loss(step, 1.0)
    windows.close()
    waiting = Visualizer(port)
    waiting.log_loss(1, 1.0)
    waiting.close()
    assert time.monotonic() - began < 5
    release.set()
    assert [r.getMessage() for r in caplog.records].count(
        "--enable_vis: the visdom server does not answer; the run goes on without live windows"
    ) == 1


def test_other_processes_connect_to_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setitem(sys.modules, "visdom", None)
    before = set(threading.enumerate())  # one of another test may still be on its way out
    use_everything(Visualizer(1))
    assert "visdom" not in {thread.name for thread in set(threading.enumerate()) - before}
