"""Models by name: published sizes and costs, and mistakes."""

import re
import subprocess
import sys

import jax
import pytest
from flax import nnx

import runs
import vivit_jax
from vivit_jax.summary import PAPERS, configured, cost, table
from vivit_jax.variants import described, model_config


@pytest.mark.parametrize(
    "name, fields, count",
    [
        (("vivit_b16x2", 400), {}, 88_954_000),
        (("vivit_b16x2_fe", 400), {}, 115_062_928),
        (("vivit_b16x2_fsa", 400), {}, 117_319_312),
        (("vivit_b16x2_fdpa", 400), {}, 88_952_464),
        (("vivit_l16x2_fe", 400), {"temporal_layers": 24}, 606_827_920),
        (("vivit_l16x2_fe", 600), {"temporal_layers": 24}, 607_032_920),
        (("vivit_l16x2_fe", 174), {"image_size": 256}, 354_733_230),
        (("timesformer_b_space", 174), {}, 85_932_462),
        (("timesformer_b_joint", 174), {}, 85_938_606),
        (("timesformer_b", 174), {}, 121_392_558),
        (("timesformer_b_local_global", 174), {}, 121_392_558),
        (("timesformer_b_axial", 174), {}, 156_846_510),
        (("timesformer_b_space", 400), {}, 86_106_256),
        (("timesformer_b_joint", 400), {}, 86_112_400),
        (("timesformer_b", 400), {}, 121_566_352),
    ],
)
def test_published_parameter_counts(name, fields, count):
    model = nnx.eval_shape(lambda: vivit_jax.create_model(*name, **fields))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == count


@pytest.mark.parametrize("name", PAPERS)
def test_costs_are_the_papers(name):
    classes, paper_parameters, paper_adds = PAPERS[name]
    parameters, adds = cost(model_config(name, classes, scan=True))
    if paper_parameters is not None:
        assert abs(parameters / 1e6 - paper_parameters) <= 0.1  # they round down as well as to the nearest
    if paper_adds is not None:
        assert abs(adds / 1e9 / paper_adds - 1) < 0.01


@pytest.mark.parametrize("fields", [dict(scan=False), dict(remat="full"), dict(remat="dots", scan=True)])
def test_costs_count_every_layer_however_it_runs(fields):
    small = dict(num_layers=3, num_frames=4, image_size=32)
    assert cost(model_config("timesformer_b", 5, **small, **fields)) == cost(
        model_config("timesformer_b", 5, **small, scan=True)
    )


def test_cost_by_hand():
    """One layer over 8 tokens and CLS: 9 x (4 x 24 x 24 + 2 x 24 x 32) in products, 2 x 9 x 9 x 24 in attention."""
    config = model_config(
        "vivit_ti16x2", 5, num_layers=1, num_frames=4, image_size=32, width=24, num_heads=4, mlp_dim=32
    )
    embedding, head = 8 * (2 * 16 * 16 * 3) * 24, 24 * 5
    assert cost(config)[1] == embedding + 9 * (4 * 24 * 24 + 2 * 24 * 32) + 2 * 9 * 9 * 24 + head


def test_summary_prints_one_model():
    arguments = ["-m", "vivit_jax.main", "--mode=summary", "--config=configs/k400_fe.py"]
    done = subprocess.run([sys.executable, *arguments], cwd=runs.REPOSITORY, capture_output=True, text=True, check=True)
    assert (
        "| vivit_b16x2_fe | 32 x 224 x 224 | 16 x 14 x 14 | 400 | 115,062,928 | 115.1M | 283.3G | 284.4G |"
        in done.stdout
    )


def test_summary_knows_the_dataset(data_dir):
    config = runs.config(data_dir)
    name, (line,) = config.model.name, list(table(configured(config)))[2:]
    assert line.startswith(f"| {name} | 4 x 32 x 32 | 2 x 2 x 2 | 8 | ") and re.search(r"\| \d\.\dM \|  \|$", line)
    assert configured(runs.config(data_dir / "nowhere"))[name].num_classes == 1


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(image_size=50), "model.image_size: height 50"),
        (dict(num_frames=0), "model.num_frames: 0"),
        (dict(num_frames=7), "model.num_frames: 7"),
        (dict(attention="dividd"), "model.attention: 'dividd'"),
        (dict(widht=3), "model.widht: no such field; did you mean 'width'"),
        (dict(num_heads=5), "model.num_heads: width 192"),
        (dict(dropout=1.5), "model.dropout: 1.5"),
        (dict(width="wide"), "model.width: 'wide' is not int"),
        (dict(attention="factorized_dot_product"), "model.pool: "),
        (dict(temporal_layers=2), "model.temporal_layers: 2"),
    ],
)
def test_impossible_architectures_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        vivit_jax.create_model("vivit_ti16x2", 5, **fields)


@pytest.mark.parametrize("name", vivit_jax.list_models())
def test_an_architecture_is_told_by_its_name_and_what_differs(name):
    assert described(model_config(name, 5)) == {"name": name}
    config = model_config(name, 5, num_layers=3, image_size=(64, 96), patch_size=8, dropout=0.2)
    assert model_config(**described(config), num_classes=5) == config


def test_names():
    names = vivit_jax.list_models()
    assert len(names) == len(set(names)) and {"vivit_b16x2_fe", "timesformer_hr"} <= set(names)
    for name in names:
        nnx.eval_shape(lambda name=name: vivit_jax.create_model(name, 3, num_layers=1))
    with pytest.raises(ValueError, match="did you mean 'timesformer_b'"):
        vivit_jax.create_model("timesformerb", 3)
