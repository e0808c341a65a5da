"""The notebook runs from top to bottom; a short version, on the real data."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("TFDS_DATA_DIR", ROOT.parent / "shared" / "tensorflow_datasets"))
NOTEBOOK = ROOT / "notebooks" / "mnist_psgld.ipynb"


@pytest.mark.slow
def test_short_version_runs(monkeypatch):
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"no prepared MNIST in {DATA}; set TFDS_DATA_DIR")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("TFDS_DATA_DIR", str(DATA))
    monkeypatch.setenv("PROBBNN_NOTEBOOK_STEPS", "11")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    texts = [o.get("data", {}).get("text/plain", "") for o in outputs]
    assert "(10, 784, 300)" in texts


def test_stored_outputs_are_those_of_the_full_run():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    printed = "".join(
        o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs
    )
    assert printed.count("step  5000") == 2
