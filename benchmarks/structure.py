"""Structure of the code in numbers: files, lines, names defined twice, functions with many arguments.

python -m benchmarks.structure             # of this checkout
python -m benchmarks.structure FOLDER      # of another one, for comparison
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import REPOSITORY

FOLDERS = ("pipeline", "fields", "stages", "cluster", "flows", "tools", "configs")
MAX_ARGUMENTS = 6


def source_files(root: Path) -> list[Path]:
    """Python files of the code, without tests, benchmarks and what others wrote."""
    paths = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))
    return [path for path in paths if "vendor" not in path.parts]


def public_names(module: ast.Module) -> Iterator[str]:
    """Functions, classes and constants that a module defines without a leading underscore."""
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case ast.Assign(targets=targets):
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))


def argument_count(function: ast.FunctionDef) -> int:
    """Arguments of a function without self and cls."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def main(root: Path) -> None:
    paths = source_files(root)
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    modules_of_name = defaultdict(set)
    for path, module in modules.items():
        for name in public_names(module):
            modules_of_name[name].add(path)
    repeated = sorted(name for name, where in modules_of_name.items() if len(where) > 1)
    stems = Counter(path.stem for path in paths if path.stem != "__init__")
    functions = [node for module in modules.values() for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    long_signatures = [function.name for function in functions if argument_count(function) > MAX_ARGUMENTS]
    print(f"files {len(paths)}, lines {n_lines:,}")
    print(f"public names defined in several modules {len(repeated)}: {', '.join(repeated)}")
    print(f"file names used several times {sum(count > 1 for count in stems.values())}")
    print(f"functions with more than {MAX_ARGUMENTS} arguments {len(long_signatures)}: {', '.join(long_signatures)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY)
