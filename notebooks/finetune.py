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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vivit_jax/blob/main/notebooks/finetune.ipynb)
#
# # Fine-tuning a video transformer
#
# From a folder of videos to a model that names them: ingest, train, evaluate, save, predict. It runs on CPU, GPU and
# TPU as it is, on rendered videos and in about a minute; for videos of your own, change the one path below.

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
# ## What to train on, and what to start from

# %%
VIDEOS = None  # "/content/drive/MyDrive/videos": a folder with a sub-folder of videos for each class
CHECKPOINT = None  # "google/vivit-b-16x2-kinetics400", or anything else that load_model reads

# %% [markdown]
# The second line is for a machine with an accelerator. Without it the start is a small model that is trained here, in
# seconds, on rendered objects that move left, right, up or down. Without the first line, the videos are of other
# objects, which grow, shrink, or turn either way: classes that the small model has never seen, and that no single frame
# tells apart.

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

# %% [markdown]
# ## Ingest
#
# Every video is re-encoded once, and what cannot be read is listed. Where the folder has no `train/` and `validation/`,
# a fifth of every class is held out. `storage="jpeg"` spares a notebook's few processors; for many videos leave it out,
# which takes several times less disk.

# %%
demo = VIDEOS is None
name = "others" if demo else "mine"
videos = demo_videos("others", OTHERS, num_train=192, num_validation=128) if demo else VIDEOS
checkpoint = CHECKPOINT or demo_checkpoint()
ingest(videos, name, "data", storage="jpeg")

# %% [markdown]
# ## The run
#
# `config_for` reads the architecture, frames and pixels of the checkpoint; the head is new, with the classes of the
# dataset. Everything else is a key of the configuration: `print(config)` shows them all.

# %%
from IPython.display import Image, display

from vivit_jax.checkpoints.initialize import config_for
from vivit_jax.training.contact_sheet import inspect

config = config_for(checkpoint)
config.data.name = name
config.optimizer.update(name="adamw", weight_decay=0.05)
config.optimizer.layer_decay = 0.75  # of the learning rate, from each layer to the one below it
# config.optimizer.freeze = "^(embedding|encoder/(blocks/0/|cls|positions))"  # with very few videos: these stay
config.schedule.update(learning_rate=1e-4 if CHECKPOINT else 3e-3, warmup_epochs=0.5)
config.train.update(batch_size=16, epochs=6.0, log_every=8, eval_every_epochs=2.0)
# config.train.accumulate = 8  # parts of a batch, one after the other, where memory is short
if demo:
    config.data.crop_area = (0.8, 1.0)  # nearly whole pictures
    config.augment.flip = 0.0  # mirrored, what turns clockwise turns the other way

run, workdir = from_dict(config), Path(f"runs/finetune_{name}")
inspect(run, workdir)
display(Image(workdir / "inspect.png", width=800))

# %% [markdown]
# That is a training batch as the model is given it. Interrupted, `train` goes on from its last checkpoint when the cell
# runs again; with another configuration it asks for another workdir.

# %%
from vivit_jax.training.curves import plot

train(run, workdir)
display(Image(plot(workdir)))

# %% [markdown]
# ## How good it is

# %%
import json

from vivit_jax.training.loop import evaluate

evaluate(run, workdir)
found = json.loads((workdir / "metrics.json").read_text())["validation"]
classes = len((workdir / "classes_validation.csv").read_text().splitlines()) - 1
print(f"accuracy {found['top_1']:.3f} on {found['num_videos']} videos that were not trained on")
print(f"chance   {1 / classes:.3f} of {classes} classes; always the largest class {found['majority_class']:.3f}")
display(Image(workdir / "confusion_validation.png", width=500))

# %% [markdown]
# ## Keep it, and use it
#
# `save_pretrained` writes a directory in the layout of Hugging Face, which `load_model` reads back bit for bit, with
# the names of the classes and how videos are fed. On the command line:
# `python -m vivit_jax.main --mode=predict --input=clip.mp4 --checkpoint=finetuned`.

# %%
import numpy as np

import vivit_jax

vivit_jax.save_pretrained(vivit_jax.load_model(workdir), "finetuned")
model = vivit_jax.load_model("finetuned")
clip = Path(videos) / np.load(workdir / "scores_validation.npz")["path"][0]
print(clip.relative_to(videos))
for label, probability in vivit_jax.predict(model, clip):
    print(f"  {probability:.3f}  {label}")
