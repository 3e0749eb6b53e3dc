"""An exported forward pass gives the model's logits where this package cannot be imported."""

import json
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

import runs
import vivit_jax
from checkpoints import GOLDENS, logits_of
from models import make
from vivit_jax.checkpoints.parameters import paths
from vivit_jax.data.augment import normalize, to_float
from vivit_jax.errors import UserError
from vivit_jax.models import dot_product_attention

# What a reader does, beside the three lines of forward.json.
READER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vivit_jax", "flax"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import contextlib, json, os
with contextlib.suppress(ImportError):
    import vivit_jax
    raise SystemExit("vivit_jax could be imported")
import jax, numpy as np, safetensors.numpy
jax.config.update("jax_default_matmul_precision", "highest")
for directory in sys.argv[1:]:
    os.chdir(directory)
    for size in (1, 3):
        video = np.load("video.npy")[:size]
        exec(chr(10).join(json.load(open("forward.json"))["use"]))
        np.savez(f"logits_{size}.npz", **(logits if isinstance(logits, dict) else {"head": logits}))
    print(*program.platforms)
"""


@pytest.fixture(autouse=True)
def unchecked():
    """A batch of any size is no int, as the signatures of models say that sizes are."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def check(models, platforms):
    """Models by the directory that they were written to."""
    for directory in models:
        shape = json.loads((directory / "forward.json").read_text())["video"]["shape"]
        np.save(directory / "video.npy", np.random.default_rng(0).integers(0, 256, (3, *shape[1:]), np.uint8))
    done = subprocess.run([sys.executable, "-c", READER, *map(str, models)], cwd=next(iter(models)),
                          env=runs.environment(), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == platforms
    for directory, model in models.items():
        video = normalize(to_float(np.load(directory / "video.npy")), model.preprocessing)
        wanted = logits_of(model, video)
        wanted = wanted if isinstance(wanted, dict) else {"head": wanted}
        for size in (1, 3):
            found = dict(np.load(directory / f"logits_{size}.npz"))
            assert found.keys() == wanted.keys()
            for head, logits in wanted.items():
                np.testing.assert_allclose(found[head], logits[:size], atol=1e-5)


def test_schemes(tmp_path):
    """Every way in which axes are folded into a batch whose size is not known yet."""
    cases = {"vivit_ti16x2_fe": {"verb": 7, "noun": 3}, "timesformer_b_space": 5, "timesformer_b_axial": 5}
    models = {tmp_path / case: make(case, classes) for case, classes in cases.items()}
    for directory, model in models.items():
        heads = isinstance(model.config.num_classes, tuple)
        vivit_jax.export_forward(model, directory, *([] if heads else [["cpu"]]))
    check(models, ["cpu cuda tpu", "cpu", "cpu"])
    about = json.loads((tmp_path / "vivit_ti16x2_fe" / "forward.json").read_text())
    assert about["logits"] == {"verb": 7, "noun": 3} and about["video"]["shape"] == ["B", 4, 32, 32, 3]
    program, weights = ((tmp_path / "timesformer_b_axial" / name).stat().st_size
                        for name in ("forward.stablehlo", "weights.safetensors"))  # fmt: skip
    assert weights > sum(x.nbytes for x in paths(model).values()) and program < 500_000


def test_long_sequences_of_any_number_of_examples(tmp_path, monkeypatch):
    monkeypatch.setattr(dot_product_attention, "LONG", 8)
    models = {tmp_path / name: make(name) for name in ("vivit_ti16x2", "timesformer_b")}
    for directory, model in models.items():
        vivit_jax.export_forward(model, directory, ["cpu"])
    monkeypatch.undo()
    check(models, ["cpu", "cpu"])


def test_the_command_line_exports(tmp_path):
    script = [sys.executable, "scripts/export_stablehlo.py", str(GOLDENS / "hf_vivit_dir")]
    done = runs.run([*script, str(tmp_path / "out"), "--platforms=cpu", "--field=num_frames=8"])
    assert done.returncode == 0, done.stderr
    check({tmp_path / "out": vivit_jax.load_model(GOLDENS / "hf_vivit_dir", num_frames=8)}, ["cpu"])
    done = runs.run([*script, str(tmp_path / "other"), "--platforms=cpu,abacus"])
    assert "platforms: cpu, abacus; choose among cpu, cuda, rocm, tpu" in runs.error_line(done)
    assert not (tmp_path / "other").exists()


def test_no_platform_is_an_error(tmp_path):
    with pytest.raises(UserError, match="platforms: none"):
        vivit_jax.export_forward(make("timesformer_b"), tmp_path / "out", ())
