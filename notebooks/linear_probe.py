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
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/vivit_jax/blob/main/notebooks/linear_probe.ipynb)
#
# # Linear probing
#
# How much do the features of a checkpoint say of a dataset, without training them? Every video goes through the model
# once; logistic regression and nearest neighbors are fitted on what comes out. It runs on CPU, GPU and TPU as it is, on
# rendered videos and in about a minute; for videos of your own, change the one path below.

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
# ## What to probe, and on what

# %%
VIDEOS = None  # "/content/drive/MyDrive/videos": a folder with a sub-folder of videos for each class
CHECKPOINT = None  # "facebook/timesformer-base-finetuned-k400", or anything else that load_model reads

# %% [markdown]
# Without the second line, the checkpoint is a small model that is trained here, in seconds, on rendered objects that
# move left, right, up or down. Without the first, the videos are of other objects, which grow, shrink, or turn either
# way: classes that the small model has never seen, and that no single frame tells apart.

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
# ## The probe
#
# `config_for` reads which frames and pixels the checkpoint wants. Logistic regression is solved to its optimum; its
# strength, `l2`, is chosen on a held-out part of the training split, so that validation is looked at once. A probe says
# little by itself: random weights of the same architecture, the `baseline`, may come close. Features are kept in the
# workdir.

# %%
from vivit_jax.checkpoints.initialize import config_for
from vivit_jax.evaluation.probe import probe

config = config_for(checkpoint)
config.data.name = name
config.probe.update(checkpoint=checkpoint, baseline=True, neighbors=20)

workdir = Path(f"runs/probe_{name}")
probe(from_dict(config), workdir)

# %% [markdown]
# ## What came out

# %%
import json

found = json.loads((workdir / "probe.json").read_text())
KINDS = {"logistic_regression": "linear probe", "nearest_neighbors": "20 nearest neighbors"}
SOURCES = {"probe": "the checkpoint", "random_weights": "random weights"}
chance = found["probe"]["validation"]["logistic_regression"]["majority_class"]
videos_seen = found["probe"]["validation"]["logistic_regression"]["num_videos"]
print(f"{'accuracy on ' + str(videos_seen) + ' videos':<26}" + "".join(f"{kind:>22}" for kind in KINDS.values()))
for source, said in SOURCES.items():
    print(f"{said:<26}" + "".join(f"{found[source]['validation'][kind]['top_1']:>22.3f}" for kind in KINDS))
print(f"{'always the largest class':<26}{chance:>22.3f}{chance:>22.3f}")

# %%
import matplotlib.pyplot as plt
import numpy as np

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for index, (source, said) in enumerate(SOURCES.items()):
    scores = [found[source]["validation"][kind]["top_1"] for kind in KINDS]
    bars = axes.bar(np.arange(len(KINDS)) + 0.36 * (index - 0.5), scores, width=0.34, label=said)
    axes.bar_label(bars, fmt="%.3f")
axes.axhline(chance, color="black", linestyle=":", label="always the largest class")
axes.set(xticks=range(len(KINDS)), xticklabels=KINDS.values(), ylabel="validation top-1", ylim=(0, 1.05))
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# The strengths that were tried, by accuracy on what was held out of the training split: where the best is the first or
# the last of them, widen `config.probe.l2`.

# %%
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for source, said in SOURCES.items():
    for head, report in found[source]["heads"].items():
        tried = sorted((one["l2"], one["held_out_top_1"]) for one in report["l2"])
        label = said if head == "label" else f"{said}, {head}"
        (line,) = axes.semilogx(*zip(*tried, strict=True), marker="o", label=label)
        chosen = report["chosen_l2"]
        axes.plot(chosen, dict(tried)[chosen], marker="o", markersize=13, fillstyle="none", color=line.get_color())
axes.set(xlabel="l2", ylabel="held-out top-1 (ring: chosen)", ylim=(0, 1.05))
axes.grid(alpha=0.3)
axes.legend()
plt.show()

# %% [markdown]
# ## The features themselves
#
# In Python: `model.features` of a clip, normalized as `model.preprocessing` says, is what every classifier above has
# seen, `[B, D]`. On the command line the probe is
# `python -m vivit_jax.main --config=configs/finetune.py --workdir=runs/probe --mode=probe`, with
# `--config.probe.checkpoint=SOURCE`.

# %%
import vivit_jax

model = vivit_jax.load_model(checkpoint)
clip = np.random.default_rng(0).normal(size=(1, model.config.num_frames, *model.config.image_size, 3))
print(model.features(clip.astype(np.float32)).shape)
