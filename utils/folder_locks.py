"""Folders that one run at a time may write, without a file that a killed run leaves behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from utils.distributed import broadcast_object, is_main
from utils.files import explain_write_errors
from utils.log import logger


class _Hold(NamedTuple):
    """What there is to a folder that this process holds."""

    handle: int  # of the lock
    made: list[Path]  # it and the folders that it lies in, as far as they were not there before


_held: dict[Path, _Hold] = {}


def hold_folder(directory: Path, refusal: str) -> None:
    """Keep other runs out of a folder until ``release_folder`` or the end of this process.

    The first process locks the folder itself, which is made. On a network file system the lock is
    that of one computer, and where there are no locks at all nothing keeps two runs apart. The
    process that holds a folder may hold it again.

    Args:
        directory: the folder.
        refusal: what is wrong if another run holds it, and what to do.

    Raises:
        ValueError: with the refusal, on every process, if another run holds the folder.
        WriteError: if the folder cannot be made.
    """
    if broadcast_object(is_main() and not _lock(directory)):
        raise ValueError(refusal)


def release_folder(directory: Path) -> None:
    """Let other runs write a folder; nothing happens if this process does not hold it.

    Folders that were made for it and are still empty go.
    """
    hold = _held.pop(directory.resolve(), None)
    if hold is None:
        return
    with suppress(OSError):  # not empty
        for folder in hold.made:
            folder.rmdir()
    os.close(hold.handle)  # no unlocking, which would also unlock from a forked process


@contextmanager
def held_folder(directory: Path, refusal: str) -> Iterator[None]:
    """Hold a folder during a block, see ``hold_folder``."""
    hold_folder(directory, refusal)
    try:
        yield
    finally:
        release_folder(directory)


def _lock(directory: Path) -> bool:
    """Whether this process holds a folder now, which is made; False if another run does."""
    release_folder(directory)
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    with explain_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError as error:
        logger.debug("%s cannot be locked: %s", directory, error)
    _held[directory.resolve()] = _Hold(handle, made)
    return True


def _leave_locks_to_parent() -> None:
    """Of a forked process: the workers of a loader may outlive a run that is killed."""
    while _held:
        os.close(_held.popitem()[1].handle)


os.register_at_fork(after_in_child=_leave_locks_to_parent)
