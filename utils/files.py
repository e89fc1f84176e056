"""Writing files so that a reader never sees half of one, and values as strict JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class WriteError(OSError, ValueError):
    """A file could not be written; the message names it and says why."""


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``WriteError`` that names the path."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as error:
        # torch.save hides the system's error behind a RuntimeError of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        explained = WriteError(_explain(path, cause))
        explained.errno = cause.errno
        raise explained from error


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears, whole, only when the block ends without an error.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    renamed over ``path``; after an error the temporary file is removed and what stood at ``path``
    is unchanged. Missing folders are made.

    Raises:
        WriteError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a whole file, or leave what stood at ``path`` unchanged (see ``open_atomically``)."""
    with open_atomically(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented strict JSON, atomically; see ``json_ready`` for what is turned."""
    text = json.dumps(json_ready(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def json_ready(value: Any) -> Any:
    """The value in JSON's types: non-finite numbers as None, arrays as lists, paths as texts.

    Raises:
        TypeError: for an object that has no such form.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = value if isinstance(value, list | tuple) else sorted(value)
        return [json_ready(item) for item in items]
    if hasattr(value, "tolist"):  # a tensor, an array or a NumPy scalar
        return json_ready(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON: {value!r}")


def remove_leftovers(path: str | Path) -> None:
    """Delete what a killed process left of an unfinished write of this file."""
    path = Path(path)
    if not path.parent.is_dir():
        return
    for sibling in path.parent.iterdir():
        process = sibling.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if process.isdecimal() and sibling.name == f".{path.name}.{process}.tmp":
            sibling.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    """One sentence: which file, why not, and what would help."""
    folder = path.parent
    if error.errno in NO_PERMISSION:
        return f"cannot write {path}: no permission to write in {folder}; choose another folder"
    if error.errno in NO_SPACE:
        free = shutil.disk_usage(folder).free / 2**20
        return (
            f"cannot write {path}: the disk is full or a limit is reached ({free:.0f} MiB free); "
            f"make room in {folder}, what stood there is unchanged"
        )
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return f"cannot write {path}: {folder} is not a folder; choose another place"
    return f"cannot write {path}: {error.strerror or error}"
