"""What a video transformer is made of: one frozen, validated description for every model of both papers."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from vivit_jax.errors import UserError

Attention = Literal[
    "joint",  # ViViT model 1, TimeSformer ST: every token attends to every token
    "factorized_encoder",  # ViViT model 2: a spatial encoder per time step, then a temporal encoder
    "factorized_self_attention",  # ViViT model 3, space first
    "factorized_self_attention_time_space",  # ViViT model 3, time first
    "factorized_dot_product",  # ViViT model 4: half of the heads over time, half over space
    "space",  # TimeSformer S: an image transformer per frame, averaged
    "time",  # each position attends over time alone
    "divided",  # TimeSformer T+S: time, then space
    "divided_space_time",  # space, then time
    "divided_parallel",  # both from the same input
    "local_global",  # TimeSformer L+G
    "axial",  # TimeSformer T+W+H
]
# Which frames: stride apart (ViViT), spread over stride x num_frames frames (TimeSformer as released), one of each of
# num_frames parts of the video (TSN), or the whole video evenly.
Sampling = Literal["strided", "span", "segments", "whole"]
ShortClips = Literal["loop", "hold"]  # what follows the last frame of a clip that is too short
WITHOUT_CLS = ("factorized_self_attention", "factorized_self_attention_time_space", "factorized_dot_product")


Labels = tuple[str, ...] | dict[str, tuple[str, ...]]  # names of the classes, by head where there are several


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a video transformer.

    Sizes are in pixels and frames of the input. What only changes how the same numbers are computed (`dtype`,
    `attention_chunk`, `attention_kernel`, `scan`, `remat`) stands last. Raises `UserError` (a ValueError) that names
    the field.
    """

    num_classes: int | tuple[tuple[str, int], ...]  # several heads: (("verb", 97), ("noun", 300))
    num_frames: int = 32
    image_size: tuple[int, int] = (224, 224)  # height, width
    patch_size: tuple[int, int] = (16, 16)  # height, width
    tubelet_size: int = 2  # frames that one token covers; 1 embeds single frames
    sampled_frames: int = 0  # ViViT's uniform frame sampling: keep so many of the frames; 0 keeps all
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    attention: Attention = "joint"
    cls_in_time: bool = False  # CLS in the divided time step, as in TimeSformer's Eq. 13; the release leaves it out
    temporal_layers: int = 0  # of the factorized encoder
    temporal_heads: int = 0  # 0: as num_heads
    temporal_mlp_dim: int = 0  # 0: as mlp_dim
    pool: Literal["cls", "mean", "max", "sum"] = "cls"
    positions: Literal["joint", "space_time", "space", "none"] = "joint"  # one table, or one per axis
    position_resize: Literal["linear", "nearest"] = "linear"  # when the input's grid is another
    representation_size: int = 0  # ViT's tanh layer before the head; 0: none
    gelu: Literal["tanh", "exact"] = "tanh"
    layer_norm_eps: float = 1e-6
    initializer: Literal["xavier", "truncated_normal"] = "xavier"
    embedding_initializer: Literal["random", "central_frame", "inflation"] = "random"  # of the tubelets' kernel
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0  # of the last layer; rises linearly from 0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters are float32
    attention_chunk: int = 0  # queries that attend at a time, where a sequence is longer; 0: chosen by its length
    attention_kernel: Literal["auto", "xla", "pallas"] = "auto"  # of long sequences on TPUs, of most on GPUs
    scan: bool = False  # one compiled layer, looped over, instead of num_layers copies
    remat: Literal["none", "full", "dots", "attention"] = "none"  # what the backward pass recomputes

    def __post_init__(self):
        self._check_sizes()
        self._check_scheme()
        if self.layer_norm_eps <= 0:
            raise UserError(f"model.layer_norm_eps: {self.layer_norm_eps} is not above 0")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"model.{name}: {getattr(self, name)} is not between 0 and 1")

    @property
    def heads(self) -> dict[str, int]:
        """Classes by head; a single one is called `head`."""
        return {"head": self.num_classes} if isinstance(self.num_classes, int) else dict(self.num_classes)

    def _check_sizes(self):
        if not self.heads or any(n < 1 for n in self.heads.values()):
            raise UserError(f"model.num_classes: {self.num_classes}; every head needs at least 1 class")
        if isinstance(self.num_classes, tuple) and self.heads.keys() == {"head"}:
            raise UserError(f"model.num_classes: {self.heads}; a single head has a plain number of classes")
        for name in ("num_frames", "tubelet_size", "width", "num_layers", "num_heads", "mlp_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}: {getattr(self, name)} is not at least 1")
        counts = "sampled_frames", "temporal_layers", "temporal_heads", "temporal_mlp_dim"
        for name in (*counts, "representation_size", "attention_chunk"):
            if getattr(self, name) < 0:
                raise UserError(f"model.{name}: {getattr(self, name)} is negative")
        for name in ("image_size", "patch_size"):
            if len(getattr(self, name)) != 2:
                raise UserError(f"model.{name}: {getattr(self, name)} is not two numbers, height and width in pixels")
        self.grid_of(self.num_frames, *self.image_size)
        for name, heads_of in (("num_heads", self.num_heads), ("temporal_heads", self.temporal_heads or 1)):
            if self.width % heads_of:
                raise UserError(f"model.{name}: width {self.width} is not divisible by {heads_of} heads")

    def _check_scheme(self):
        if self.attention not in get_args(Attention):
            raise UserError(f"model.attention: {self.attention!r} is none of {', '.join(get_args(Attention))}")
        if (self.attention == "factorized_encoder") != (self.temporal_layers > 0):
            raise UserError(
                f"model.temporal_layers: {self.temporal_layers} with attention {self.attention!r}; "
                "the factorized encoder, and it alone, has temporal layers"
            )
        if self.attention in WITHOUT_CLS and self.pool == "cls":
            raise UserError(f"model.pool: {self.attention!r} has no CLS token; pool by mean, max or sum")
        if self.cls_in_time and (not self.attention.startswith("divided") or self.pool != "cls"):
            raise UserError("model.cls_in_time: is for divided attention pooled by CLS; elsewhere the scheme decides")
        if self.attention == "factorized_dot_product" and self.num_heads % 2:
            raise UserError(f"model.num_heads: {self.num_heads} is odd; half of the heads attend over time")
        if self.attention in ("space", "factorized_encoder") and self.positions == "space_time":
            raise UserError(f"model.positions: {self.attention!r} sees one frame at a time; use 'space' or 'none'")
        # A 2x2 of windows, and every second token in each axis: both need even grids.
        if self.attention == "local_global" and any(size % 2 for size in self.grid):
            raise UserError(f"model.attention: local_global needs an even grid of tokens, not {self.grid}")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Time steps, rows and columns of tokens that the positions are made for."""
        return self.grid_of(self.num_frames, *self.image_size)

    def grid_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The grid of tokens of an input of `frames` x `height` x `width` pixels.

        Raises:
          UserError: the input does not divide into tubelets; cropping it would be silent.
        """
        if self.sampled_frames > frames:
            raise UserError(f"model.sampled_frames: {self.sampled_frames} frames cannot be taken from {frames}")
        frames = self.sampled_frames or frames
        if frames < 1 or frames % self.tubelet_size:
            raise UserError(f"model.num_frames: {frames} frames do not divide into tubelets of {self.tubelet_size}")
        for axis, pixels, patch in zip(("height", "width"), (height, width), self.patch_size, strict=True):
            if patch < 1 or pixels < 1 or pixels % patch:
                raise UserError(f"model.image_size: {axis} {pixels} does not divide into patches of {patch} pixels")
        return frames // self.tubelet_size, height // self.patch_size[0], width // self.patch_size[1]


@dataclass(frozen=True)
class Preprocessing:
    """How to feed a model: `(pixel / 255 - mean) / std` on `num_frames` frames, every `stride`-th one."""

    num_frames: int
    stride: float  # frames between two that are kept; 0: as target_fps says
    image_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    resize: int = 0  # pixels of the short side before the crop; 0: those of the crop
    target_fps: float = 0.0  # kept frames per second of video, whatever its own rate
    sampling: Sampling = "strided"
    short_clips: ShortClips = "loop"

    def resized_to(self, num_frames: int, image_size: tuple[int, int]) -> "Preprocessing":
        """The same for clips of another size; the crop stays the same part of the picture."""
        scale = min(image_size) / min(self.image_size)
        return replace(self, num_frames=num_frames, image_size=image_size, resize=round(self.resize * scale))
