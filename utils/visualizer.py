"""Live windows of a run in visdom, under ``--enable_vis``; never needed and never fatal."""

from __future__ import annotations

import html
import importlib
import logging
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.distributed import is_main
from utils.log import logger

SERVER = "http://localhost"
CONNECT_TIMEOUT = 2.0  # seconds to find out that no server listens
CLOSE_TIMEOUT = 5.0  # seconds granted at the end of a run to what is still unsent
UNSENT = 256  # calls kept for a slow server, before it is given up


class Visualizer:
    """The windows Loss, Overall Acc, Mean IoU, Class IoU, Options and one per sample.

    A missing package, a server that is not there, fails or hangs is one warning; every call
    after that does nothing. Calls are sent by a thread of their own, so training never waits.
    Off the first process every call does nothing.

    Args:
        port: where ``python -m visdom.server`` listens on this machine.
        env: visdom's environment, a page of windows.
        connect_timeout: seconds to wait for the server.
    """

    def __init__(
        self, port: int, env: str = "main", *, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(UNSENT)
        self._alive = is_main()
        self._client: Any = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        if not self._alive:
            return
        address = f"localhost:{port}"
        try:
            visdom = importlib.import_module("visdom")
            socket.create_connection(("localhost", port), connect_timeout).close()
        except OSError as error:
            self._give_up(f"no visdom server at {address} ({error})")
            return
        except Exception as error:  # some releases fail while they are imported, each its own way
            self._give_up(f"visdom cannot be imported ({error})")
            return
        self._send(lambda: self._connect(visdom, port, env))
        self._thread = threading.Thread(target=self._work, name="visdom", daemon=True)
        self._thread.start()

    def log_loss(self, step: int, loss: float) -> None:
        """Append to the curve of the training loss."""
        self._send(lambda: self._append("Loss", step, loss))

    def log_validation(self, step: int, results: Mapping[str, Any]) -> None:
        """Append to the curves of accuracy and mIoU, and show the IoU of every class.

        Args:
            step: number of optimizer steps so far.
            results: of the evaluation; the ``overall_accuracy``, ``miou`` and ``class_iou`` (by
                class name) of its ``total`` are shown, in percent.
        """
        total = results["total"]
        rows = [
            (name, "n/a" if iou is None else f"{iou:.2f}")
            for name, iou in total["class_iou"].items()
        ]
        for title, key in (("[Val] Overall Acc", "overall_accuracy"), ("[Val] Mean IoU", "miou")):
            value = total[key]
            if value is not None:
                self._send(partial(self._append, title, step, value))
        self._table("[Val] Class IoU", rows)

    def log_options(self, opts: Mapping[str, Any]) -> None:
        """Show every flag and its value."""
        self._table("Options", sorted(opts.items()))

    def log_sample(
        self,
        index: int,
        image: NDArray[np.uint8],
        target: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
    ) -> None:
        """Show a sample's image, target and prediction side by side, each (H, W, 3), uint8."""
        triptych = np.concatenate((image, target, prediction), axis=1).transpose(2, 0, 1)
        title = f"Sample {index}"
        self._send(lambda: self._client.image(triptych, win=title, opts={"title": title}))

    def close(self) -> None:
        """Wait a few seconds, at most, for what is still unsent."""
        self._send(None)
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT)
        self._alive = False

    def _send(self, call: Callable[[], Any] | None) -> None:
        if not self._alive:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._give_up("the visdom server does not answer")

    def _work(self) -> None:
        """Make the calls in their order until told to stop or one fails."""
        while self._alive and (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever the client raises ends the windows, not the run
                self._give_up(f"the visdom server failed ({error})")

    def _give_up(self, reason: str) -> None:
        with self._lock:  # both threads may find out
            first, self._alive = self._alive, False
        if first:
            logger.warning("--enable_vis: %s; the run goes on without live windows", reason)

    def _connect(self, visdom: Any, port: int, env: str) -> None:
        logging.getLogger("visdom").setLevel(logging.CRITICAL)  # it tells of its every session
        self._client = visdom.Visdom(
            server=SERVER, port=port, env=env, use_incoming_socket=False, raise_exceptions=True
        )

    def _append(self, title: str, step: int, value: float) -> None:
        """Add a point to a curve; visdom makes a window that is not there."""
        self._client.line(
            X=np.array([step]),
            Y=np.array([value]),
            win=title,
            update="append",
            opts={"title": title},
        )

    def _table(self, title: str, rows: Sequence[tuple[str, object]]) -> None:
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows
        )
        table = f"<table><tr><th>Term</th><th>Value</th></tr>{cells}</table>"
        self._send(lambda: self._client.text(table, win=title, opts={"title": title}))
