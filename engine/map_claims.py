"""Whose the maps in a folder are, which are missing there, and what must not be mixed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from datasets.items import by
from datasets.map_folders import MANIFEST, MapKind, map_path, read_manifest, size_of_map
from datasets.parallel import threaded
from datasets.png_files import DamagedMapError
from utils.distributed import barrier, broadcast_object, is_main
from utils.files import write_json
from utils.folder_locks import hold_folder, release_folder
from utils.log import logger

# What has to be equal for maps to lie in one folder, in order; the rest of a manifest informs.
OF_IMAGES = ("dataset", "split", "fingerprint", "images", "size", "num_classes")
OF_NETWORK = ("checkpoints", "flags", "calibrator")
# Flags that came later, with what a manifest that lacks them was made with.
FORMERLY = {
    **{"fuse_heads": "logits", "fuse_weight_aux": 0.5, "upsample": "logits"},
    **{"infer_short_side": None, "eval_crf": False},
}

Summary = Callable[[dict[str, Any]], Mapping[str, Any]]  # of a manifest


def claim_folder(
    kind: MapKind,
    directory: Path,
    manifest: dict[str, Any],
    dataset: SegDataset,
    *,
    overwrite: bool,
    summary: Summary | None = None,
) -> set[int]:
    """Decide whether maps may be made in a folder, and which are missing there.

    The first process removes what is to be overwritten and writes the manifest, before any map.
    Without a manifest that is only what has the name of a map that is to be made. While maps are
    missing the folder is held (see ``hold_folder``).

    Args:
        kind: of the maps.
        directory: of the maps; need not exist.
        manifest: of ``describe_maps``.
        dataset: what the maps are made of.
        overwrite: replace the maps of another origin.
        summary: what the manifest says of all maps once they are there.

    Returns:
        The indices of the items without good maps, the same on every process.

    Raises:
        ValueError: if the folder holds maps of another origin, or files that are no maps, or if
            another run is writing it.
    """
    hold_folder(
        directory,
        f"another run is writing {directory}: wait for it, or name another folder with"
        f" --{kind.folder_flag}",
    )
    with ExitStack() as unless_kept:
        unless_kept.callback(release_folder, directory)
        refuse_mixing(kind, directory, manifest, dataset, overwrite=overwrite)
        barrier()
        missing: set[int] = set()
        if is_main():
            there = read_manifest(directory, kind)
            remove_files(kind, directory, maps=overwrite and there is not None)
            if there is None:
                remove_maps_of(kind, directory, dataset)
            missing = missing_maps(kind, directory, dataset)
            if missing or there is None or not there["complete"]:
                end = None if missing else summary
                write_manifest(directory, manifest, end, complete=not missing)
        missing = broadcast_object(missing)
        if missing:
            unless_kept.pop_all()
    return missing


def write_manifest(
    directory: Path, manifest: dict[str, Any], summary: Summary | None, *, complete: bool
) -> None:
    """Write a manifest, with what a summary of all maps adds to it."""
    more = summary(manifest) if summary is not None else {}
    write_json(directory / MANIFEST, {**manifest, **more, "complete": complete})


def refuse_mixing(
    kind: MapKind,
    directory: Path,
    manifest: dict[str, Any],
    dataset: SegDataset,
    *,
    overwrite: bool,
) -> None:
    """Refuse a folder with maps of another origin, or with files that are no maps.

    Raises:
        ValueError: saying what differs, and which flag would help.
    """
    there = read_manifest(directory, kind)
    if there is None:
        refuse_foreign_files(kind, directory, dataset, overwrite=overwrite)
    elif not overwrite and (differing := differences(kind, manifest, there)):
        raise ValueError(
            f"{directory} holds {kind.content} of another origin: {', '.join(differing)}."
            f" Choose another --{kind.folder_flag}, or replace them with --overwrite"
        )


def refuse_foreign_files(
    kind: MapKind, directory: Path, dataset: SegDataset, *, overwrite: bool
) -> None:
    """Refuse a folder without a manifest that is not empty; files in the way always.

    Raises:
        ValueError: naming a file that is there.
    """
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    if found and not overwrite:
        unread = f", and any {kind.superseded} are no longer read" if kind.superseded else ""
        raise ValueError(
            f"{directory} holds {found[0].name} and no {MANIFEST}, so what is in it was not made by"
            f" --{kind.action_flag}. Choose another --{kind.folder_flag}; with --overwrite"
            f" {kind.short} are made beside it, in place of files of their names{unread}"
        )
    for item in dataset.items:
        for file in kind.files:
            path = map_path(directory, item, file.ending)
            if path.exists() and not (path.is_file() and file.is_ours(path)):
                raise ValueError(
                    f"{path} exists and is no {kind.single}; it is never replaced: choose another"
                    f" --{kind.folder_flag}"
                )


def differences(kind: MapKind, mine: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What two manifests differ in, one text each: ``split train (there val)``."""
    found = []
    for name in (*OF_IMAGES, *kind.identity, *OF_NETWORK):
        if name == "flags":
            stored = {**FORMERLY, **there.get(name, {})}
            found += [
                f"--{flag} {value} (there {stored.get(flag)})"
                for flag, value in mine[name].items()
                if stored.get(flag) != value
            ]
        elif name == "checkpoints":
            hashes = [[file["sha256"] for file in one.get(name, [])] for one in (mine, there)]
            if hashes[0] != hashes[1]:
                names = [", ".join(f["file"] for f in one.get(name, [])) for one in (mine, there)]
                found.append(f"checkpoints {names[0]} (there {names[1]}, of other content)")
        elif mine.get(name) != there.get(name):
            found.append(f"{name} {mine.get(name)} (there {there.get(name)})")
    return found


def remove_files(kind: MapKind, directory: Path, *, maps: bool) -> None:
    """Delete what killed processes left of unfinished maps and, if asked, all maps.

    Only files that begin as this program's maps do are taken for maps. Folders below with a
    manifest of their own are other maps'.
    """
    paths = files_below(directory)
    for file in (*kind.files, *kind.other_files):
        unfinished = re.compile(rf"\..+{re.escape(file.ending)}\.\d+\.tmp")
        for path in paths:
            whole = maps and path.name.endswith(file.ending) and path.is_file()
            if unfinished.fullmatch(path.name) or (whole and file.is_ours(path)):
                path.unlink(missing_ok=True)  # one name may end as two kinds of files do


def remove_maps_of(kind: MapKind, directory: Path, dataset: SegDataset) -> None:
    """Delete the maps of a data set's items, which nothing says the origin of."""
    for item in dataset.items:
        for file in (*kind.files, *kind.other_files):
            path = map_path(directory, item, file.ending)
            if path.is_file() and file.is_ours(path):
                path.unlink()


def files_below(directory: Path) -> list[Path]:
    """The files of a folder and of those below it that have no manifest of their own."""
    found = []
    for place, folders, names in os.walk(directory):
        if MANIFEST in names and Path(place) != directory:
            folders.clear()
        else:
            found += [Path(place, name) for name in names]
    return sorted(found)


def missing_maps(kind: MapKind, directory: Path, dataset: SegDataset) -> set[int]:
    """The items without good maps; each damaged one is named in the log."""

    def problem(index: int) -> str | None:
        """What is wrong with the maps of an item, None if nothing is."""
        for file in kind.files:
            path = map_path(directory, dataset.items[index], file.ending)
            if not path.is_file():
                return "absent"
            try:
                size = file.inspect(path)
            except DamagedMapError as error:
                return f"{path} is damaged, {error}"
            if size != size_of_map(kind, dataset, index):
                return f"{path} has another size, {by(size)}"
        return None

    missing = set()
    title = f"{kind.short.capitalize()} there"
    for index, found in enumerate(threaded(problem, len(dataset), title)):
        if found is None:
            continue
        missing.add(index)
        if found != "absent":
            logger.warning("%s: it is made again", found)
    return missing
