"""What a benchmark gives back, as Markdown and as JSON."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Ratio, load_average
from datasets.parallel import usable_cores
from utils.provenance import git_state

Row = dict[str, Any]
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "opencv-python-headless",
    "connected-components-3d",
    "pillow",
    "segmentation_models_pytorch",
)


@dataclass(frozen=True)
class Settings:
    """How the benchmarks are to run.

    Attributes:
        device: where networks run.
        quick: tiny inputs and two repeats, to see that a benchmark works.
        threads: of torch and OpenCV on the CPU.
        repeats: measured rounds, None for each benchmark's own number.
        ckpt: a trained network, for benchmarks that look at predictions.
    """

    device: torch.device
    quick: bool = False
    threads: int = 1
    repeats: int | None = None
    ckpt: Path | None = None

    def rounds(self, usual: int) -> int:
        """Measured rounds of a benchmark that usually makes ``usual``."""
        return 2 if self.quick else self.repeats or usual


@dataclass(frozen=True)
class Target:
    """A bound that a measured number should keep.

    Attributes:
        what: the number in words.
        value: as measured, the median of the ratios.
        bound: what it should be, at most or at least.
        at_most: which of the two.
    """

    what: str
    value: float
    bound: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        side = "at most" if self.at_most else "at least"
        verdict = "met" if self.met else "**missed**"
        return f"{self.what}: {self.value:.3g} (target {side} {self.bound:g}): {verdict}"


@dataclass
class Table:
    """Rows of equal columns under one line of text."""

    caption: str
    rows: list[Row]

    def markdown(self) -> str:
        """The table, its numbers with three significant digits."""
        names = list(self.rows[0])
        lines = [
            f"| {' | '.join(names)} |",
            f"|{' --- |' * len(names)}",
            *(f"| {' | '.join(text(row[name]) for name in names)} |" for row in self.rows),
        ]
        return "\n".join([self.caption, "", *lines])


@dataclass
class Section:
    """One benchmark's results: how they were measured, tables and targets."""

    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def markdown(self) -> str:
        """The section, ready for a page of results."""
        parts = [f"## {self.title}", self.method, *(table.markdown() for table in self.tables)]
        if self.targets:
            parts.append("\n".join(f"- {target}" for target in self.targets))
        return "\n\n".join(parts)

    def plain(self) -> dict[str, Any]:
        """The section as JSON holds it, a ratio as median, least and greatest."""
        return {
            "title": self.title,
            "method": self.method,
            "tables": [
                {"caption": table.caption, "rows": [plain_row(row) for row in table.rows]}
                for table in self.tables
            ],
            "targets": [asdict(target) | {"met": target.met} for target in self.targets],
        }


def plain_row(row: Row) -> Row:
    """A row with its ratios as dicts."""
    return {
        name: value._asdict() if isinstance(value, Ratio) else value for name, value in row.items()
    }


def text(value: Any) -> str:
    """A cell: numbers with three significant digits, never in scientific notation."""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def machine_facts(settings: Settings) -> dict[str, str]:
    """What a reader must know to compare the numbers: hardware, versions, commit, load."""
    commit, changed = git_state()
    device = settings.device
    facts = {
        "CPU": f"{cpu_model()}, {usable_cores()} cores, {settings.threads} used",
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "Python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
        "commit": f"{commit or 'none'}{', with changes' if changed else ''}",
        "load average at the start": f"{load_average():.1f}",
    }
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        facts["GPU"] = f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
        facts["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
    return facts


def cpu_model() -> str:
    """The processor's name; family and model beside it, since some names say little."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    first = path.read_text().split("\n\n")[0]
    pairs = [line.split(":", 1) for line in first.splitlines() if ":" in line]
    fields = {key.strip(): value.strip() for key, value in pairs}
    name = fields.get("model name", platform.machine())
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def installed(package: str) -> str:
    """The version of a package, or that it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def facts_table(facts: dict[str, str]) -> str:
    """Machine facts as Markdown."""
    rows = [{"what": name, "here": value} for name, value in facts.items()]
    return Table("", rows).markdown().strip()


def page(facts: dict[str, str], command: str, sections: Sequence[Section]) -> str:
    """Everything as one page."""
    head = f"`{command}`\n\n{facts_table(facts)}"
    return "\n\n".join([head, *(section.markdown() for section in sections)])
