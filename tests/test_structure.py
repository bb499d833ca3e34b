"""Arrows between modules point down only, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("upsr_core", "trainer", "nodes", "benchmarks")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports(module: str, *, at_start: bool) -> set[str]:
    """Our modules that ``module`` imports; ``at_start`` those alone that are imported with it."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            source = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {f"{source}.{alias.name}" for alias in node.names} | {source}
    return found & MODULES.keys()


@pytest.mark.parametrize(
    ("user", "forbidden"),
    [
        ("upsr_core", ("trainer", "nodes", "benchmarks")),
        ("trainer", ("nodes", "benchmarks")),
        ("nodes", ("trainer", "benchmarks")),
        ("upsr_core.models", ("upsr_core.scheduling_unw", "upsr_core.pipeline_upsr", "upsr_core.tiling")),
        ("upsr_core.scheduling_unw", ("upsr_core.models", "upsr_core.pipeline_upsr")),
        ("upsr_core.tiling", ("upsr_core.models.atd", "upsr_core.models.unet_upsr", "upsr_core.pipeline_upsr")),
        ("upsr_core.pipeline_upsr", ("upsr_core.cli", "upsr_core.images", "upsr_core.evaluation")),
    ],
)
def test_nothing_imports_upwards(user: str, forbidden: tuple[str, ...]) -> None:
    def is_in(module: str, package: str) -> bool:
        return module == package or module.startswith(package + ".")

    users = [module for module in MODULES if is_in(module, user)]
    assert users
    for module in users:
        upwards = [used for used in imports(module, at_start=False) if any(is_in(used, one) for one in forbidden)]
        assert not upwards, f"{module} imports {upwards}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in finished:
            for used in imports(module, at_start=True):
                if used != module:
                    visit(used, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())
    assert finished == MODULES.keys()
