"""Report what has grown and what was left behind. It starts a conversation and fails nothing.

Lists modules beyond a sitting, functions beyond a screen, modules without a docstring, modules
nobody imports, and leftover markers.
"""

import ast
import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("node", "transport", "consensus", "trustchain", "caesar", "native")
MODULE_LINES_MAX: Final = 700
FUNCTION_LINES_MAX: Final = 70
MARKERS: Final = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|breakpoint\(\)|dbg!)")


def main() -> int:
    sources = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    modules = {path: ast.parse(path.read_text()) for path in sources}
    imported = {name for tree in modules.values() for name in _imports(tree)}
    sections = {
        f"modules over {MODULE_LINES_MAX} lines": _long_modules(sources),
        f"functions over {FUNCTION_LINES_MAX} lines": _long_functions(modules),
        "modules without a docstring": _without_docstring(modules),
        "modules nobody imports": _unimported(modules, imported),
        "leftover markers": _markers(sources),
    }
    for title, lines in sections.items():
        print(f"{title}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    return 0


def _long_modules(sources: list[Path]) -> list[str]:
    rust = sorted((ROOT / "native/src").rglob("*.rs"))
    sizes = {path: len(path.read_text().splitlines()) for path in [*sources, *rust]}
    grown = sorted(sizes.items(), key=lambda item: -item[1])
    return [f"{size:5} {_name(path)}" for path, size in grown if size > MODULE_LINES_MAX]


def _long_functions(modules: dict[Path, ast.Module]) -> list[str]:
    found = []
    for path, tree in modules.items():
        for item in ast.walk(tree):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (item.end_lineno or item.lineno) - item.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    found.append(f"{size:5} {_name(path)}:{item.lineno} {item.name}")
    return sorted(found, reverse=True)


def _without_docstring(modules: dict[Path, ast.Module]) -> list[str]:
    return [
        _name(path)
        for path, tree in modules.items()
        if tree.body and ast.get_docstring(tree) is None and "tests" not in path.parts
    ]


def _unimported(modules: dict[Path, ast.Module], imported: set[str]) -> list[str]:
    found = []
    for path in modules:
        if path.name in {"__init__.py", "__main__.py"} or "tests" in path.parts:
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name not in imported:
            found.append(_name(path))
    return found


def _imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            names.update(alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.module:
            names.add(item.module)
            names.update(f"{item.module}.{alias.name}" for alias in item.names)
    return names


def _markers(sources: list[Path]) -> list[str]:
    return [
        f"{_name(path)}:{number} {line.strip()}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if MARKERS.search(line)
    ]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
