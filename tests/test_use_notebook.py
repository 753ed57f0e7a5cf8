"""The notebook that uses a model is executed, light, and runs on any run directory."""

import os
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

import evaluate
import train_sr_trad

NOTEBOOK = Path(__file__).parents[1] / "notebooks/use_a_model.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_executed_light_and_names_no_machine():
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert kinds.count("display_data") == 2 and "error" not in kinds
    content = NOTEBOOK.read_text()
    assert len(content) < 150_000 and not any(path in content for path in ("/home/", "/root/", "/tmp/", "/Users/"))


@pytest.fixture
def run_directory(tmp_path, tiny_data):
    """A run whose "student" is a small SASRec: the notebook opens any model."""
    shutil.copytree(tiny_data, tmp_path / "run/data")
    model = tmp_path / "run/slmrec_4_8"
    flags = ["--max_length", "6", "--num_epochs", "2", "--batch_size", "16", "--device", "cpu"]
    train_sr_trad.main(["--data", str(tmp_path / "run/data"), "--output_dir", str(model), *flags])
    evaluate.main(["--model", str(model), "--device", "cpu", "--num_candidates", "20"])
    return tmp_path / "run"


def test_it_runs_on_another_run(run_directory, monkeypatch):
    monkeypatch.setenv("SLMREC_RUN", os.path.relpath(run_directory, NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    results = [output.data["text/plain"] for cell in code_cells(notebook) for output in cell.outputs if "data" in output]
    assert "40 items" in results[0] and any("item number" in text for text in results)
