"""The map in the package's docstring: it names every module, and shows the flow from below."""

import ast
import re
from pathlib import Path

import harvester.sandbox

ROOT = Path(harvester.sandbox.__file__).parent
_LINE = re.compile(r"^    ([a-z0-9_]+(?:, [a-z0-9_]+)*)  +\S", re.MULTILINE)
MAP = ", ".join(_LINE.findall(harvester.sandbox.__doc__ or "")).split(", ")


def imports(path: Path) -> set[str]:
    """The modules of the package that a module imports."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    named = {node.module for node in nodes if node.module}
    return named | {name.name for node in nodes if not node.module for name in node.names}


def test_map_names_every_module_once() -> None:
    """No module is missing from it, none is left over."""
    assert sorted(MAP) == sorted(p.stem for p in ROOT.glob("*.py") if p.stem != "__init__")


def test_a_module_imports_from_above_it_in_the_map_only() -> None:
    """The map starts at the bottom; two modules of a line may follow from left to right."""
    wrong = {
        (module, used)
        for place, module in enumerate(MAP)
        for used in imports(ROOT / f"{module}.py")
        if used not in MAP[:place]
    }
    assert wrong == set()
