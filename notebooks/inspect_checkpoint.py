# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vivit_jax/blob/main/notebooks/inspect_checkpoint.ipynb)
#
# # Inside a checkpoint
#
# What a checkpoint is made of, what it has learned, and where it looks. It runs on CPU, GPU and TPU as it is, with a
# small model that is trained here in less than a minute; for another, change the path below.

# %%
import glob
import importlib.util
import shutil
import subprocess
import sys

if importlib.util.find_spec("vivit_jax") is None:  # on Colab, say: with what the machine's accelerator needs
    tpu = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    extras = "plots" + (",cuda" if shutil.which("nvidia-smi") else ",tpu" if tpu else "")
    package = f"vivit_jax[{extras}] @ git+https://github.com/OWNER/vivit_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", package], check=True)

# %% [markdown]
# ## Which checkpoint, and which video
#
# `load_model` recognizes what it is given and reads all of it, or says what does not fit:
#
# | `CHECKPOINT` | |
# |---|---|
# | `"google/vivit-b-16x2-kinetics400"` | an id of the Hugging Face Hub, or a directory in its layout |
# | `"TimeSformer_divST_8x32_224_K400.pyth"` | a released TimeSformer (`pip install torch`) |
# | `"vivit_base_16x2_fe/checkpoint"` | a file of Scenic's, downloaded |
# | `"runs/mine"` | the workdir of a run |
# | `"finetuned"` | what `save_pretrained` wrote |

# %%
CHECKPOINT = None
CLIP = None  # "clip.mp4": any video

# %% [markdown]
# Without them: a small model that tells which way rendered objects move, and one of these objects.

# %%
from pathlib import Path

import jax

from vivit_jax.config import base, from_dict
from vivit_jax.data.motion_files import generate
from vivit_jax.ingest import ingest
from vivit_jax.training.loop import train

MOVES = "move_left", "move_right", "move_up", "move_down"
OTHERS = "grow", "shrink", "rotate_clockwise", "rotate_counterclockwise"


def demo_videos(name: str, classes: tuple[str, ...], num_train: int, num_validation: int) -> str:
    folder = Path("demo") / name
    if not folder.exists():
        generate(folder, num_train=num_train, num_validation=num_validation, classes=classes)
    return str(folder)


def demo_checkpoint() -> str:
    """The workdir of a small TimeSformer that was trained to tell which way objects move."""
    ingest(demo_videos("moves", MOVES, num_train=384, num_validation=32), "moves", "data", storage="jpeg")
    config = base()
    config.model.update(name="timesformer_b_joint", tubelet_size=2, image_size=48, patch_size=8)
    config.model.update(width=64, num_layers=2, num_heads=4, mlp_dim=128, initializer="xavier", stochastic_depth=0.0)
    config.data.update(name="moves", stride=2.0, crop_area=(0.8, 1.0), eval_resize=54)
    config.augment.flip = 0.0  # left and right are labels
    config.optimizer.update(name="adamw", weight_decay=0.01)
    config.schedule.update(learning_rate=3e-3, warmup_epochs=0.5)
    config.train.update(batch_size=16, epochs=6.0, log_every=8)
    train(from_dict(config), Path("runs/moves"))
    return "runs/moves"


print(f"{jax.device_count()} x {jax.devices()[0].device_kind}")

# %%
import vivit_jax

checkpoint = CHECKPOINT or demo_checkpoint()
clip = CLIP or sorted(Path("demo/moves/validation/move_right").glob("*.mp4"))[0]
model = vivit_jax.load_model(checkpoint)

# %% [markdown]
# ## What it is
#
# The architecture, as fields of `ModelConfig`, and how videos are fed.

# %%
import dataclasses

for what in (model.config, model.preprocessing):
    print(type(what).__name__)
    for field in dataclasses.fields(what):
        print(f"  {field.name:<22} {getattr(what, field.name)}")
print("classes:", model.labels)

# %%
from collections import Counter

from flax import nnx

from vivit_jax.summary import cost

parts = Counter()
for path, value in jax.tree.leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param))):
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    parts["/".join(names[: 2 if "encoder" in names[0] else 1])] += value.size
for part, size in parts.items():
    print(f"{part:<28} {size:>14,} parameters")
parameters, multiply_adds = cost(model.config)
tokens = " x ".join(map(str, model.config.grid))
print(f"{'in all':<28} {parameters:>14,} parameters")
print(f"{tokens + ' tokens':<28} {multiply_adds:>14,} multiply-adds of a view")

# %% [markdown]
# ## What a tubelet is looked at for
#
# The embedding is a linear map of each tubelet. These are its principal filters, a column each with its part of the
# variance, and a row for each frame of the tubelet. What is the same in all rows is blind to motion.

# %%
import matplotlib.pyplot as plt
import numpy as np

kernel = np.asarray(model.embedding.kernel)  # [t, h, w, 3, D]
frames, *_, width = kernel.shape
count = min(12, width)
directions, scales, _ = np.linalg.svd(kernel.reshape(-1, width), full_matrices=False)
filters = directions[:, :count].T.reshape(count, *kernel.shape[:-1])
figure, axes = plt.subplots(frames, count, figsize=(count, frames + 0.6), squeeze=False, layout="constrained")
for column, filter_ in enumerate(filters):
    for row in range(frames):
        axes[row, column].imshow(0.5 + filter_[row] / (2 * np.abs(filter_).max()))
        axes[row, column].set(xticks=[], yticks=[])
    axes[0, column].set_title(f"{scales[column] ** 2 / (scales**2).sum():.0%}", fontsize="small")
for row in range(frames):
    axes[row, 0].set_ylabel(f"frame {row}", fontsize="small")
figure.suptitle(f"The {count} principal filters of the tubelet embedding, by part of the variance")
plt.show()

# %% [markdown]
# ## What it knows of places and times
#
# The cosine between the position embedding of one place and those of all places, a picture for each place (of at most
# 8 x 8), and between those of time steps. A model that has learned that pictures have rows and columns shows them.


# %%
def cosines(table: np.ndarray) -> np.ndarray:
    """[N, D] -> [N, N]."""
    unit = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return unit @ unit.T


def table_of(encoder) -> np.ndarray:
    """[T, H, W, D]; T is 1 where positions are of space alone."""
    return np.asarray(encoder.positions.table(model.config.grid if encoder is model.encoder else (steps, 1, 1)))


steps, height, width = model.config.grid
if model.config.positions == "none":
    print("This model has no positions.")
else:
    table = table_of(model.encoder)
    in_time = table_of(model.temporal_encoder) if model.temporal_encoder else table
    rows = np.unique(np.linspace(0, height - 1, min(height, 8)).round().astype(int))
    columns = np.unique(np.linspace(0, width - 1, min(width, 8)).round().astype(int))
    places = cosines(table.mean(0).reshape(height * width, -1)).reshape(height, width, height, width)
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.1, 1))[0]
    grid = left.subplots(len(rows), len(columns), squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            axes.imshow(places[row, column], vmin=-1, vmax=1, cmap="RdBu_r")
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(f"{row}", fontsize="small")
    for axes, column in zip(grid[-1], columns, strict=True):
        axes.set_xlabel(f"{column}", fontsize="small")
    left.suptitle("Places: row and column of the one compared with all")
    axes = right.subplots()
    picture = axes.imshow(cosines(in_time.mean((1, 2))), vmin=-1, vmax=1, cmap="RdBu_r")
    axes.set(xlabel="time step", ylabel="time step", xticks=range(len(in_time)), yticks=range(len(in_time)))
    right.colorbar(picture, label="cosine", shrink=0.8)
    right.suptitle("Time steps")
    plt.show()

# %% [markdown]
# ## What it says of a clip

# %%
print(Path(clip).name)
for label, probability in vivit_jax.predict(model, clip):
    print(f"  {probability:.3f}  {label}")

# %% [markdown]
# ## Where it looks
#
# Attention rollout follows attention from the class down through all layers to the tokens, over the frames that they
# cover; below it, what each head of the last layer attends to. It says where attention goes, not why a class was
# chosen.
# `look` writes videos of the same beside the pictures; `layer=0` draws the first layer's heads.

# %%
from IPython.display import Image, display

from vivit_jax.evaluation.visualize import look

for path in look(model, clip, "look"):
    if path.suffix == ".png":
        display(Image(path))
