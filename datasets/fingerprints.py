"""What tells the content of a split from any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def files_fingerprint(heading: str, paths: Iterable[Path], root: Path) -> str:
    """SHA-256 over a heading and the path, relative to the root, and size of every file."""
    digest = hashlib.sha256(f"{heading}\n".encode())
    for path in paths:
        relative = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"{relative.as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
