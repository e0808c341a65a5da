"""The Python of README and docs runs, block after block, as a newcomer would paste it."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


# As they stand for `pytest -m slow`; by default with a tenth of the steps.
@pytest.mark.parametrize("thousand", ["00", pytest.param("_000", marks=pytest.mark.slow)])
def test_python_blocks_run(thousand, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lengths = r"(num_steps|num_warmup|cycle_length)=(\d)_000\b"
    readme, number = re.subn(lengths, rf"\1=\g<2>{thousand}", README)
    assert number >= 5
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert names["pred"].probs.shape == (500, 10)
    assert names["info"].logdensity.shape == ()
    assert "gradient noise / T" in printed
    assert names["weights"].shape == (4, 500 if thousand == "_000" else 100, 3)
    assert 0 <= names["mala_info"].acceptance_rate <= 1
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_the_diagnostics_of_docs_run(capsys):
    text = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "diagnostics.md", "exec"), {})
    assert "\nconverged\n- 100.0% of 3 parameters" in capsys.readouterr().out


def test_methods_table_is_the_registry():
    from probbnn import METHODS

    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert rows == list(METHODS)
