"""The public names: each of them is there, and a type checker sees it too."""

import ast
import inspect
from importlib import import_module

import pytest

import probbnn as pb


@pytest.fixture(scope="module")
def seen_by_type_checkers():
    """Homes whose names are all imported, and names that are imported one by one."""
    block = next(n for n in ast.parse(inspect.getsource(pb)).body if isinstance(n, ast.If))
    homes, names = set(), set()
    for statement in block.body:
        imported = {alias.name for alias in statement.names}
        if imported == {"*"}:
            homes.add(statement.module)
        names |= imported - {"*"}
    return homes, names


@pytest.mark.parametrize("name", [name for name in pb.__all__ if name != "__version__"])
def test_each_name(name, seen_by_type_checkers):
    homes, names = seen_by_type_checkers
    home = f"probbnn.{pb._HOMES[name]}"
    assert getattr(pb, name) is getattr(import_module(home), name)
    assert name in names or (home in homes and name in import_module(home).__all__)


def test_nothing_else():
    assert set(dir(pb)) == set(pb.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        pb.nonsense  # noqa: B018
