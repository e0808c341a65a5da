"""That what `benchmarks/faults.py` plants can still be planted; whether it is seen, it says itself.

The benchmark takes many minutes; without this it would rot as the code goes on.
"""

import importlib.util
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def faults():
    path = ROOT / "benchmarks" / "_faults.py"
    if not path.exists():
        pytest.skip("there are no benchmarks beside these tests")
    spec = importlib.util.spec_from_file_location("_faults", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FAULTS


def test_every_text_to_replace_stands_once_in_its_file():
    texts = {}
    for name, fault in faults().items():
        text = texts.setdefault(fault.path, (ROOT / fault.path).read_text(encoding="utf-8"))
        assert text.count(fault.old) == 1, f"{name}: {fault.old!r} in {fault.path}"
        assert fault.new != fault.old, name


def test_every_fault_is_another_and_names_tests_that_there_are():
    planted = faults()
    assert len({(fault.path, fault.old, fault.new) for fault in planted.values()}) == len(planted)
    for name, fault in planted.items():
        files, _, chosen = fault.tests.partition(" -k ")
        for file in shlex.split(files):
            path = ROOT / file
            assert path.exists(), f"{name}: {file}"
        if chosen:
            # A part of the name of a file or test, or of a parameter.
            words = [w for w in shlex.split(chosen)[0].split() if w not in ("and", "or", "not")]
            text = files + "".join(
                (ROOT / file).read_text(encoding="utf-8") for file in files.split()
            )
            for word in words:
                assert word.lower() in text.lower().replace(" ", "_"), f"{name}: {chosen}"
