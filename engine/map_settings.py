"""How the maps that a training reads were made, beside the flags of its run.

A folder's name says nothing of it: two runs that differ in their maps alone would be taken for two
seeds of one setting.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from datasets.map_folders import MapReader

OF_MAPS = ("threshold", "decoder", "scales", "reduce", "normalize")


def note_settings(opts: Namespace, reader: MapReader) -> None:
    """Add what the maps of a folder were made with to the flags, where its manifest says so.

    Each entry is called after the folder's flag, such as "weight_dir decoder"; no flag has such a
    name. The network that maps are of is left out, as seeds have one each.

    Args:
        opts: the flags of the run, changed.
        reader: of the folder that it reads.
    """
    manifest = reader.manifest or {}
    settings = {name: _plain(manifest.get(name)) for name in OF_MAPS} | manifest.get("flags", {})
    settings.pop("random_seed", None)
    for name, value in settings.items():
        if value is not None and value is not False:
            setattr(opts, f"{reader.kind.folder_flag} {name}", value)


def _plain(value: Any) -> Any:
    """A setting, or the name of one that has settings of its own."""
    return value["name"] if isinstance(value, Mapping) else value
