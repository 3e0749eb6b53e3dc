"""The notebooks: they run from their text, say more than chance, and are kept beside it with the outputs of a run."""

import re

import jupytext
import nbformat
import pytest
from execute_notebooks import NOTEBOOKS, execute, settled

import runs

NAMES = "finetune", "linear_probe", "inspect_checkpoint"
ADDRESS = re.compile(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob|\")")
ABSOLUTE = re.compile(r"(?<![\w./:-])(?:/|[A-Z]:\\)[\w.-]+[/\\][\w.-]")  # a path of somebody's machine


def texts(notebook):
    """What a run has put out, but for the pictures, in one string for each cell of code."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return ["\n".join(one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in of) for of in outputs]


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def check_finetune(said):
    accuracy, chance = (float(re.search(rf"^{name} +(\S+)", said, re.M)[1]) for name in ("accuracy", "chance"))
    assert chance == 0.25 and accuracy > 0.55  # five standard errors
    assert re.search(r"^validation/(\w+)/\w+\.mp4\n  0\.\d+  \w+$", said, re.M)
    assert "40 of 42 parameters start from runs/moves, the others new" in said


def check_linear_probe(said):
    rows = {name: re.search(rf"^{name} +(\S+) +(\S+)$", said, re.M) for name in ("the checkpoint", "random weights")}
    probed, near = (float(value) for value in rows["the checkpoint"].groups())
    random, random_near = (float(value) for value in rows["random weights"].groups())
    assert re.search(r"^always the largest class +0\.250 +0\.250$", said, re.M)
    assert probed > max(0.55, random) and near > max(0.45, random_near)


def check_inspect_checkpoint(said):
    best, label = re.search(r"^\d+_move_right\.mp4\n  (\S+)  (\w+)$", said, re.M).groups()
    assert label == "move_right" and float(best) > 0.5
    assert re.search(r"^in all +94,660 parameters$", said, re.M) and re.search(r"18,424,320 multiply-adds", said)


CHECKS = {
    "finetune": check_finetune,
    "linear_probe": check_linear_probe,
    "inspect_checkpoint": check_inspect_checkpoint,
}


def test_they_run_and_are_better_than_chance(tmp_path):
    """In one folder: what the first has rendered and trained is there for the others, whose cell for it is the same."""
    folder, variables = (
        tmp_path / "here",
        runs.environment(JAX_NUM_CPU_DEVICES="1", IPYTHONDIR=str(tmp_path / "ipython")),
    )
    folder.mkdir()
    for name in NAMES:
        notebook = execute(NOTEBOOKS / f"{name}.py", folder, variables)
        said = "\n".join(texts(notebook))
        CHECKS[name](said)
        assert not ABSOLUTE.search(said), said
        assert len(pictures(notebook)) == len(pictures(kept(name)))


def kept(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_the_text_and_what_a_run_of_it_put_out(name):
    text, notebook = jupytext.read(NOTEBOOKS / f"{name}.py"), kept(name)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"} and len(pictures(notebook)) >= 2
    said = "\n".join(texts(notebook))
    CHECKS[name](said)
    assert not ABSOLUTE.search(said) and not re.search(r"warning|Traceback|\x1b|\r", said, re.I)
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_500_000


def test_they_are_for_colab_and_share_what_they_start_from():
    cells = {name: jupytext.read(NOTEBOOKS / f"{name}.py").cells for name in NAMES}
    addresses = set()
    for name, of in cells.items():
        first, second = of[0].source, of[1].source
        assert re.match(rf"\[!\[Open In Colab\]\(\S+\.svg\)\]\(https://colab\.\S+/notebooks/{name}\.ipynb\)\n", first)
        assert 'if importlib.util.find_spec("vivit_jax") is None:' in second
        addresses |= {*ADDRESS.findall(first), *ADDRESS.findall(second)}
    assert len(addresses) == 1
    for start in ("import glob\n", "from pathlib import Path\n"):
        assert len({next(cell.source for cell in of if cell.source.startswith(start)) for of in cells.values()}) == 1
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {*NAMES}


def test_absolute_paths_are_found():
    for text in ("in /root/venv/lib", "-> '/tmp/x/y'", "C:\\Users\\me", "(/home/me/data)"):
        assert ABSOLUTE.search(text), text
    for text in ("12.5 step/s", "runs/moves/plot.png", "https://a.b/c/d", "[00:02<00:00, 177.46video/s]", "1/2 / 3"):
        assert not ABSOLUTE.search(text), text


def test_lines_written_again_settle():
    bars = "train: 1\rtrain: 2\n\rvalidation: 1\x1b[A\n\rvalidation: 2\x1b[A\ntrain: 1\rtrain: 3  \n        \r   \n"
    assert settled(bars) == "train: 2\ntrain: 3\n" and settled("\n   \n") == "" and settled("a\nb") == "a\nb"
