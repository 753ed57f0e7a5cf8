"""The notebook in the repository is executed, and running it again gives what it shows."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "datasets/process.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """What the cells return, as text."""
    return [output.data["text/plain"] for cell in code_cells(notebook) for output in cell.outputs if "data" in output]


def test_it_is_executed_and_small_and_names_no_machine(notebook):
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    kinds = [output.output_type for cell in code_cells(notebook) for output in cell.outputs]
    assert kinds.count("display_data") == 2 and set(kinds) == {"display_data", "execute_result"}
    content = NOTEBOOK.read_text()
    assert len(content) < 100_000
    assert not any(path in content for path in ("/home/", "/root/", "/tmp/", "/Users/"))


def test_running_it_again_gives_the_same(notebook):
    shown = texts(notebook)
    assert "'synthetic': True" in shown[0]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert texts(notebook) == shown
