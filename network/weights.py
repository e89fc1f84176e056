"""Pretrained weights for backbones: read safely, renamed, checked tensor by tensor."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

ADVICE = "pass --pretrained_backbone none, or --pretrained_backbone PATH with a file of weights"
_DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
_WRAPPERS = ("state_dict", "model_state", "model")  # where training programs put the tensors


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a file of tensors without running any code it may hold.

    A ``module.`` prefix and one enclosing dict (``state_dict``, ``model_state``, ``model``) are
    taken off.

    Raises:
        ValueError: if the file is missing, truncated, not a torch file or not a dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--pretrained_backbone {path}: no such file{_near_files(path)}; {ADVICE}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can fail anywhere in the unpickler
        raise ValueError(
            f"--pretrained_backbone {path}: not a readable file of weights (truncated, not written "
            f"by torch.save, or holding objects other than tensors, which are never loaded): "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ValueError(
            f"--pretrained_backbone {path}: holds a {type(content).__name__}, not the dict of "
            f"tensors that torch.save(model.state_dict(), path) writes"
        )
    return {key.removeprefix("module."): value for key, value in content.items()}


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    near = difflib.get_close_matches(path.name, names, n=3)
    return f" (that folder has {', '.join(near)})" if near else ""


def load_into(
    backbone: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    rename: Callable[[str], str | None],
    source: str,
    architecture: str,
) -> None:
    """Copy weights into a backbone, every tensor of it.

    Args:
        backbone: changed in place, only if everything fits.
        weights: tensors under the names of the file.
        rename: from a file's name to the backbone's, None for tensors that it does not have.
        source: the file or address, for messages.
        architecture: the expected architecture, for messages.

    Raises:
        ValueError: if tensors are missing, without a place, or of another shape.
    """
    renamed = {rename(name): value for name, value in weights.items()}
    found = {name: value for name, value in renamed.items() if name is not None}
    target = backbone.state_dict()
    # files written before torch 0.4.1 do not count the batches; the count is not used
    missing = [
        name for name in target.keys() - found.keys() if not name.endswith("num_batches_tracked")
    ]
    unexpected = sorted(found.keys() - target.keys())
    shapes = [
        f"{name} is {tuple(found[name].shape)} and should be {tuple(target[name].shape)}"
        for name in sorted(target.keys() & found.keys())
        if found[name].shape != target[name].shape
    ]
    problems = [
        *([f"{len(missing)} tensors are missing, {_first(sorted(missing))}"] if missing else []),
        *([f"{len(unexpected)} have no place, {_first(unexpected)}"] if unexpected else []),
        *([f"{len(shapes)} have another shape: {'; '.join(shapes[:3])}"] if shapes else []),
    ]
    if problems:
        raise ValueError(
            f"--pretrained_backbone {source} does not fit {architecture}: {'; '.join(problems)}. "
            f"It should hold the weights of {architecture} under their published names"
        )
    backbone.load_state_dict(found, strict=False)


def _first(names: list[str]) -> str:
    return f"such as {', '.join(names[:3])}"


@contextmanager
def _answer_within(seconds: float) -> Iterator[None]:
    """torch.hub waits for ever; a machine behind a silent firewall should hear soon."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download_weights(url: str) -> dict[str, Tensor]:
    """Download a file of weights once, into torch's cache, and check its hash.

    Raises:
        ValueError: if it cannot be downloaded; says what to pass instead.
    """
    try:
        with _answer_within(_DOWNLOAD_TIMEOUT):
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError) as error:  # no network, no such address, wrong hash
        raise ValueError(f"cannot download {url} ({error}): {ADVICE}") from error
