"""The run's log: lines for people, progress bars, and metrics.jsonl for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from utils.distributed import is_main, rank
from utils.files import explain_write_errors, json_ready

logger = logging.getLogger("segdoubt")

LEVELS = ("debug", "info", "warning", "error")
SECONDS_BETWEEN_LINES = 30.0  # of a progress report that goes to a file
METRICS_FILE = "metrics.jsonl"
START, RESUME = "start", "resume"  # kinds of the lines that say what earlier lines still count

T = TypeVar("T")


class _Line(logging.Formatter):
    """``12:34:56 message``; warnings and errors say that they are one."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        clock = time.strftime(self.datefmt or "%H:%M:%S", time.localtime(record.created))
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        process = "" if is_main() else f"[process {rank()}] "
        return f"{clock} {process}{mark}{line}"


class _AboveBars(logging.Handler):
    """Writes to standard error, above the progress bars instead of through them."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # a log line never ends a run; logging reports it on standard error
            self.handleError(record)


def setup_logging(level: str = "info", log_file: str | Path | None = None) -> None:
    """Send the project's log to standard error and, if given, to the end of a file.

    Processes other than the first say only what went wrong and write no file. Calling again
    replaces the earlier set-up.

    Raises:
        ValueError: for an unknown level.
        WriteError: if the file cannot be opened.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; choose from {', '.join(LEVELS)}")
    for handler in tuple(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level.upper() if is_main() else logging.ERROR)
    screen = _AboveBars()
    screen.setFormatter(_Line())
    logger.addHandler(screen)
    if log_file is not None and is_main():
        log_file = Path(log_file)
        with explain_write_errors(log_file):
            log_file.parent.mkdir(parents=True, exist_ok=True)
            file = logging.FileHandler(log_file, encoding="utf-8")
        file.setFormatter(_Line(datefmt="%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)


class Progress(Generic[T]):
    """A progress report: a bar on a terminal, else a log line at most every 30 seconds.

    Use it around an iterable or as a context with ``update``. Off the first process it is silent.
    """

    def __init__(
        self, iterable: Iterable[T] | None, total: int | None, desc: str, unit: str, initial: int
    ) -> None:
        self._iterable = iterable
        self._desc = desc
        self._unit = unit
        self._total = total
        self._initial = self._done = initial
        self._postfix = ""
        self._start = self._last_line = time.monotonic()
        self._lines = is_main() and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=desc,
            unit=unit,
            initial=initial,
            disable=self._lines or not is_main(),
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
        )

    def __iter__(self) -> Iterator[T]:
        assert self._iterable is not None, "this progress has no iterable; call update"
        with self:
            for item in self._iterable:
                yield item
                self.update()

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count n more units as done."""
        self._done += n
        self._bar.update(n)
        now = time.monotonic()
        if self._lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info("%s", self.line())

    def set_postfix(self, **values: object) -> None:
        """Show values at the end of the bar, such as the loss; drawn with the next update."""
        self._postfix = ", ".join(f"{name}={_short(value)}" for name, value in values.items())
        self._bar.set_postfix_str(self._postfix, refresh=False)

    def line(self) -> str:
        """The report as one line: share done, time spent and left, rate and values."""
        return tqdm.format_meter(
            self._done,
            self._total,  # type: ignore[arg-type]  # the stubs forget that it may be unknown
            time.monotonic() - self._start,
            initial=self._initial,
            unit=self._unit,
            prefix=f"{self._desc}: ",
            postfix=self._postfix,
            bar_format=(
                "{desc}{n_fmt}/{total_fmt} [{elapsed} spent, {remaining} left, {rate_fmt}{postfix}]"
            ),
        )

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()


def progress(
    iterable: Iterable[T] | None = None,
    *,
    total: int | None = None,
    desc: str,
    unit: str = "img",
    initial: int = 0,
) -> Progress[T]:
    """Report how far a long pass is and how long it will take; see ``Progress``.

    Args:
        iterable: walked, if given; each item counts as one unit.
        total: number of units in all; the iterable's length if it has one.
        desc: what is being done, in a word or two.
        unit: what is counted.
        initial: units done by an earlier run.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    return Progress(iterable, total, desc, unit, initial)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class RunLog:
    """The numbers of a run, in ``metrics.jsonl`` and as TensorBoard events.

    Every line of the file is one JSON object with ``step``, ``kind`` and named values. Off the
    first process nothing is written.

    Args:
        folder: ``runs/<name>``; made if missing.
        tensorboard: whether to write events; without the package this is one warning.
        resume_step: step from which an earlier run goes on: its later lines no longer count.
            None starts a new run: no line that is in the file counts.

    Raises:
        WriteError: if the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path, *, tensorboard: bool = True, resume_step: int | None = None
    ) -> None:
        self.path = Path(folder) / METRICS_FILE
        self._events: Any = None
        if not is_main():
            return
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(self.path)
        self._append({"step": resume_step or 0, "kind": START if resume_step is None else RESUME})
        if tensorboard:
            purge_step = None if resume_step is None else resume_step + 1
            self._events = _event_writer(self.path.parent, purge_step)

    def log_scalars(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write the values of one step; non-finite numbers become null, lists stay out of events.

        Args:
            kind: what was measured, such as ``train`` or ``val``.
            step: number of optimizer steps so far.
            values: numbers, None, or lists of them, by name.
        """
        assert not {"step", "kind"} & values.keys(), "step and kind are the line's own names"
        assert kind not in (START, RESUME), f"{kind} is the log's own kind"
        if not is_main():
            return
        ready = json_ready(values)
        self._append({"step": step, "kind": kind, **ready})
        if self._events is not None:
            for name, value in ready.items():
                if isinstance(value, bool | int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._events is not None:
            self._events.close()

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        with explain_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` that still count, in the order of their first writing.

    Of several lines of one kind and step the last counts; lines beyond the step from which a
    run was continued do not; a last line cut short by a killed process is left out.

    Raises:
        ValueError: if there is no such file, or a line before the last is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; a run writes it as runs/<name>/{METRICS_FILE}")
    records: dict[tuple[str, int], dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            if line and number < len(lines):
                raise ValueError(f"{path}, line {number} is not a JSON object: {line[:80]!r}")
            continue
        kind, step = record["kind"], record["step"]
        if kind == START:
            records.clear()
        elif kind == RESUME:
            records = {key: kept for key, kept in records.items() if key[1] <= step}
        else:
            records[kind, step] = record
    return list(records.values())


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and {"kind", "step"} <= record.keys() else None


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end, which a killed process left."""
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def _event_writer(folder: Path, purge_step: int | None) -> Any:
    """TensorBoard's writer, or None and one warning where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        logger.warning(
            "no TensorBoard events: %s; %s has every number all the same", error, METRICS_FILE
        )
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)
