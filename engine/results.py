"""What a test leaves behind: tables on the screen, and files beside the result."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from datasets.joined import Joined
from engine.run import file_hash
from engine.trained import Source
from metrics import Metric
from metrics.image_ood import ImageOutOfDistribution
from utils.files import write_atomically
from utils.log import logger
from utils.report import reliability_table, results_table


def show(results: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """Print the tables of a result and draw its pictures beside it."""
    warn_of_void(results)
    if "class_iou" in results.get("total", {}):
        sys.stdout.write(f"{results_table(results, names)}\n")
    if table := reliability_table(results):
        sys.stdout.write(f"\n{table}\n")
        from utils.report.reliability import save_reliability_pictures  # matplotlib is slow

        save_reliability_pictures(results, path.with_suffix(""), path.stem)
    logger.info("results in %s", path)


def save_image_scores(path: Path, metrics: Sequence[Metric]) -> None:
    """Write the mean scores of every image as CSV, where images were told apart by them."""
    scored = [each.image_scores() for each in metrics if isinstance(each, ImageOutOfDistribution)]
    if not scored:
        return
    columns = {name: values for name, values in scored[0].items() if name != "scores"}
    for each in scored:
        columns |= each["scores"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue().encode())


def warn_of_void(results: dict[str, Any]) -> None:
    """Say which parts of a result no labelled pixel stands behind."""
    parts = {"the whole test": results.get("total", {})}
    for field in ("dataset", "condition", "scene"):
        parts |= {f"{field} {name}": part for name, part in results.get(field, {}).items()}
    for name, part in parts.items():
        if 0 in (part.get("pixels"), part.get("calibration", {}).get("pixels")):
            logger.warning("no labelled pixel in %s: its numbers are n/a", name)


def describe_data(dataset: SegDataset, condition: str | None) -> dict[str, Any]:
    """What a result says of the images it is over; of several data sets each as a part."""
    described: dict[str, Any] = {
        "name": dataset.name,
        "split": dataset.split,
        "condition": condition,
        "scenes": dataset.scenes,
        "corruption": dataset.appearance.name if dataset.appearance else None,
        "images": len(dataset),
        "fingerprint": dataset.fingerprint(),
    }
    if isinstance(dataset, Joined):
        described["parts"] = [
            describe_data(part, shared(item.condition for item in part.originals))
            for part in dataset.parts
        ]
    return described


def shared(values: Iterable[str]) -> str | None:
    """The one value that all have, None if there are several or it is empty."""
    different = set(values)
    return (different.pop() or None) if len(different) == 1 else None


def describe_sources(sources: Sequence[Source], sha256: str) -> dict[str, Any]:
    """The checkpoint of a result; of an ensemble the hash of all and each as a member."""
    if len(sources) == 1:
        return {"sha256": sha256, **vars(sources[0])}
    members = [{"sha256": file_hash(Path(source.path)), **vars(source)} for source in sources]
    return {"sha256": sha256, "members": members}
