"""Imports go down only, and the five leaves never import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = ("network", "losses", "uncertainty", "metrics", "datasets")
BELOW = {
    "main": ("options", "engine", "methods", *LEAVES, "utils"),
    "options": ("engine", "methods", *LEAVES, "utils"),
    "engine": ("methods", *LEAVES, "utils"),
    "methods": (*LEAVES, "utils"),
    **dict.fromkeys(LEAVES, ("utils",)),
    "utils": (),
}


def modules() -> list[Path]:
    files = [ROOT / "main.py", ROOT / "options.py"]
    for package in BELOW:
        files += sorted((ROOT / package).rglob("*.py"))
    return files


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names & BELOW.keys()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    relative = path.relative_to(ROOT)
    package = relative.parts[0].removesuffix(".py")
    assert imported_packages(path) - {package} <= set(BELOW[package])
