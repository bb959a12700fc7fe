"""Rules that ruff cannot say, about names, files and words; the lists of what breaks them today only shrink."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cluster", "configs", "fields", "flows", "pipeline", "stages", "tools")
MIN_LINES, MAX_LINES = 40, 400

# Every stage has these, and Array is an alias of numpy's.
SHARED_NAMES = {"Array", "main", "run"}
SHARED_STEMS = {"__init__", "config", "stage"}

# Metaphors and moods, refused in any name, and placeholders, refused as names. For terms see docs/glossary.md.
BANNED_WORDS = {
    "believe",
    "believed",
    "dismiss",
    "hands",
    "hire",
    "knock",
    "leftovers",
    "patience",
    "shake",
    "shelf",
    "silent",
    "told",
    "torn",
    "witness",
    "workforce",
    "workshop",
}
BANNED_NAMES = {"bare", "found", "known", "least", "mine", "most", "one", "other", "seen", "shown", "stretch", "there"}
SPELLINGS = {
    "colour": "color",
    "centre": "center",
    "grey": "gray",
    "metre": "meter",
    "neighbour": "neighbor",
    "initialise": "initialize",
    "normalise": "normalize",
    "optimise": "optimize",
}

# -- what breaks a rule today: lines are taken away, never added ------------------------------------------------------

DUPLICATE_NAMES: set[str] = {
    "intersect_ray_box",
    "local_contrast",
    "sample_bilinear",
    "voxel_downsample",
}
DUPLICATE_STEMS: set[str] = set()
SHORT_OR_LONG_FILES: set[str] = {
    "flows/cli/version.py",
    "pipeline/imaging/labels.py",
}
IDENTIFIERS_WITH_BANNED_WORDS: set[str] = {
    "_shelf",
    "count_torn_edges",
    "n_silent_deaths",
    "n_torn_edges",
    "one",
    "other",
    "stretch",
}
IDENTIFIERS_MISSPELLED: set[str] = {
    "colour",
}

# -- the rules ---------------------------------------------------------------------------------------------------------


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every file of the code, parsed, by its path."""
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def module_names(module: ast.Module) -> Iterator[str]:
    """Functions, classes and constants that a module defines; commands are named by what a user types."""
    for node in module.body:
        if any(ast.unparse(decorator).startswith("app.command") for decorator in getattr(node, "decorator_list", [])):
            continue
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def identifiers(module: ast.Module) -> Iterator[str]:
    """Names of functions, classes, parameters, attributes and fields."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
        if isinstance(node, ast.ClassDef):
            yield from module_names(ast.Module(node.body, []))
    yield from module_names(module)


def words(identifier: str) -> set[str]:
    """``readRGBImage_2`` as {"read", "rgb", "image"}."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def check(broken: set[str], allowed: set[str], rule: str) -> None:
    """What is broken is in the list, and nothing else is."""
    assert not broken - allowed, f"{rule}: {sorted(broken - allowed)}"
    assert not allowed - broken, f"no longer broken, take it off the list: {sorted(allowed - broken)}"


def test_a_public_name_is_defined_once():
    count = Counter(
        name for module in modules().values() for name in set(module_names(module)) if not name.startswith("_")
    )
    check({name for name, n in count.items() if n > 1} - SHARED_NAMES, DUPLICATE_NAMES, "defined in several modules")


def test_a_file_name_is_used_once_in_each_top_folder():
    paths = defaultdict(list)
    for path in modules():
        if Path(path).stem not in SHARED_STEMS:
            paths[path.split("/")[0], Path(path).stem].append(path)
    repeated = {path for same in paths.values() if len(same) > 1 for path in same}
    check(repeated, DUPLICATE_STEMS, "rename one of these files")


def test_files_hold_one_concept():
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in modules()}
    broken = {path for path, n in lines.items() if not MIN_LINES <= n <= MAX_LINES}
    broken = {path for path in broken if Path(path).name not in ("__init__.py", "config.py")}
    check(broken, SHORT_OR_LONG_FILES, f"fewer than {MIN_LINES} or more than {MAX_LINES} lines")


def test_names_say_what_a_thing_is():
    names = {name for module in modules().values() for name in identifiers(module)}
    broken = {name for name in names if name in BANNED_NAMES or words(name) & BANNED_WORDS}
    check(broken, IDENTIFIERS_WITH_BANNED_WORDS, "use a term of the field, see docs/glossary.md")


def test_names_have_one_spelling():
    names = {name for module in modules().values() for name in identifiers(module)}
    broken = {name for name in names if any(wrong in name.lower() for wrong in SPELLINGS)}
    check(broken, IDENTIFIERS_MISSPELLED, f"spelled {sorted(SPELLINGS.values())} here")


def test_every_folder_says_what_it_holds():
    folders = {Path(path).parent for path in modules()}
    silent = {str(folder) for folder in folders if not ast.get_docstring(modules()[f"{folder}/__init__.py"])}
    check(silent, set(), "a docstring in __init__.py")


# -- lists of the tools only shrink, too -------------------------------------------------------------------------------


def test_ruff_exempts_no_file_that_has_become_clean():
    """Entries of per-file-ignores that name a file; those that name a folder are rules."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    exempt = {path: set(rules) for path, rules in config["per-file-ignores"].items() if "*" not in path}
    rules = sorted(set().union(*exempt.values()))
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--ignore-noqa", "--output-format", "json"]
    found = subprocess.run(
        [*command, "--config", "lint.per-file-ignores={}", "--select", ",".join(rules), *exempt],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    broken: dict[str, set[str]] = defaultdict(set)
    for entry in json.loads(found.stdout):
        broken[Path(entry["filename"]).relative_to(ROOT).as_posix()].add(entry["code"])
    clean = {
        f"{path}: {rule}"
        for path, listed in exempt.items()
        for rule in listed
        if not any(code.startswith(rule) for code in broken[path])
    }
    assert not clean, "take it out of per-file-ignores in pyproject.toml"


def test_vulture_is_told_of_nothing_that_is_used():
    pytest.importorskip("vulture")
    paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["vulture"]["paths"]
    allowed = re.findall(r"^_\.(\w+)", (ROOT / "tests" / "vulture_allowed.py").read_text(), re.MULTILINE)
    code = [path for path in paths if not path.endswith("vulture_allowed.py")]
    command = [sys.executable, "-m", "vulture", *code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not set(allowed) - set(re.findall(r"unused \w+ '(\w+)'", found)), "take it out of tests/vulture_allowed.py"


def test_the_glossary_is_in_alphabetical_order():
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    terms = [line.split("|")[1].strip().lower() for line in lines if line.startswith("| ")][1:]
    assert len(terms) > 50
    assert terms == sorted(set(terms))
