"""What the code imports is what pyproject.toml says that it needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = packages_distributions()
EXTRAS = ("experiments", "report", "cli.py")  # what the extras are for


def names(requirements):
    return {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}


def distributions(nodes):
    """What the imports among the nodes belong to, apart from Python and probbnn themselves."""
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    packages = {module.partition(".")[0] for module in modules}
    packages -= {*sys.stdlib_module_names, "probbnn", "tensorflow"}  # which a tfrecord may need
    return {DISTRIBUTIONS[package][0].lower().replace("_", "-") for package in packages}


def modules():
    """The files of the package and their syntax trees."""
    for path in (HERE / "probbnn").rglob("*.py"):
        yield path.relative_to(HERE / "probbnn"), ast.parse(path.read_text())


def test_the_core_imports_no_extra_at_the_top():
    core = names(PROJECT["dependencies"])
    for path, tree in modules():
        if path.parts[0] not in EXTRAS:
            assert distributions(tree.body) <= core, path


def test_every_import_is_declared():
    declared = names(PROJECT["dependencies"]).union(
        *(names(PROJECT["optional-dependencies"][extra]) for extra in ("data", "report"))
    )
    for path, tree in modules():
        assert distributions(ast.walk(tree)) <= declared, path
