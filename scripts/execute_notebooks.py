"""python scripts/execute_notebooks.py [NAME ...]: runs notebooks/NAME.py, by default all; writes the .ipynb beside it.

Each runs in a kernel and an empty folder of its own, on what JAX_PLATFORMS says, or the CPU.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = REPOSITORY / "notebooks"


def execute(text: Path, folder: Path, variables: Mapping[str, str]) -> nbformat.NotebookNode:
    """The notebook with what its cells put out, run in `folder` with this copy of the package.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell has failed.
    """
    notebook = jupytext.read(text)
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, resources=where, record_timing=False, coalesce_streams=True)
    client.execute(env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = settled(output.text)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text", "-")]
    return notebook


def settled(text: str) -> str:
    """What a terminal shows in the end: of a line that was written again and again, the last."""
    lines = [line.rstrip().split("\r")[-1] for line in text.split("\n") if not line.endswith("\x1b[A")]
    return re.sub(r"\n+", "\n", "\n".join(lines)).lstrip("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in NOTEBOOKS.glob("*.py")))
    for name in parser.parse_args().names:
        start, path = time.perf_counter(), NOTEBOOKS / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            variables = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
            notebook = execute(NOTEBOOKS / f"{name}.py", Path(folder), variables)
        nbformat.write(notebook, path)
        print(f"{path.relative_to(REPOSITORY)}: {time.perf_counter() - start:.0f} s, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
