"""The video transformer of both papers: tokens, one or two encoders, heads."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vivit_jax.architecture import Labels, ModelConfig, Preprocessing
from vivit_jax.errors import UserError
from vivit_jax.models.attention import SCHEMES
from vivit_jax.models.encoder import Encoder, Taps, keys_of
from vivit_jax.models.initializers import Keys
from vivit_jax.models.layout import place
from vivit_jax.models.linear import linear
from vivit_jax.models.tokenizers import TubeletEmbedding
from vivit_jax.variants import model_config, preprocessing


class VideoTransformer(nnx.Module):
    """ViViT models 1 to 4 and TimeSformer's schemes, as `config.attention` says.

    Holds parameters alone; randomness is the `key` of a call, without which nothing is dropped.
    """

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: Preprocessing,
        keys: Keys,
        labels: Labels | None = None,
    ):
        """`labels` are the names of the classes, where a checkpoint brings them."""
        self.config, self.preprocessing, self.labels = config, preprocessing, labels
        time, height, width = config.grid
        self.embedding = TubeletEmbedding(config, keys)
        spatial = (1 if SCHEMES[config.attention].per_frame else time, height, width)
        layers, heads, mlp_dim = config.num_layers, config.num_heads, config.mlp_dim
        self.encoder = Encoder(config, config.attention, spatial, layers, heads, mlp_dim, keys)
        layers, heads, mlp_dim = (
            config.temporal_layers,
            config.temporal_heads or heads,
            config.temporal_mlp_dim or mlp_dim,
        )
        two_encoders = config.attention == "factorized_encoder"
        temporal = Encoder(config, "time", (time, 1, 1), layers, heads, mlp_dim, keys) if two_encoders else None
        self.temporal_encoder = temporal
        features = config.representation_size or config.width
        self.pre_logits = linear(config, config.width, features, keys) if config.representation_size else None
        init = dict(kernel_init=nnx.initializers.zeros_init()) if config.initializer == "xavier" else {}
        self.heads = nnx.Dict(
            {
                name: linear(config, features, classes, keys, dtype=jnp.float32, **init)
                for name, classes in config.heads.items()
            }
        )

    @property
    def labels(self) -> Labels | None:
        by_head = dict(self._labels or ())
        return by_head.get("", by_head) or None

    @labels.setter
    def labels(self, labels: Labels | None) -> None:
        by_head = labels if isinstance(labels, dict) else {"": labels or ()}
        # Tuples, because what a module holds beside its parameters is hashed when it is compiled.
        self._labels = tuple((head, tuple(names)) for head, names in by_head.items())

    def __call__(
        self,
        video: jax.Array | np.ndarray,
        *,
        key: jax.Array | None = None,
        return_taps: bool | str | Callable[[str, jax.Array], Any] = False,
    ) -> Any:
        """Classifies normalized video.

        Args:
          video: [B, t, h, w, 3] float; frames and pixels may differ from the config's, if they divide into tubelets.
          key: a PRNG key turns on dropout, attention dropout and stochastic depth.
          return_taps: also return what happens inside; "attention" adds the attention weights, which are large, and a
            function of (axes, weights [B, groups, heads, L, L] of a layer) what it keeps of them instead.
        Returns:
          float32 logits [B, num_classes], or {head: [B, n]} with several heads. With taps `(logits, taps)`:
          "embedding" [B, T, H, W, D]; "features" [B, D]; and "encoder" and, of the factorized encoder,
          "temporal_encoder", each with
            "layers": `Tokens` after every layer, patches [layers, B, T, H, W, D] and CLS [layers, B, 1, D] or None
              (one for each frame, [layers, B, T, D], where frames are encoded alone);
            "output": the last of them under the encoder's final norm, without the axis of layers;
            "attention": by axes ("space", "time", ...; see AXES) weights [layers, B, groups, heads, L, L] over the L
              tokens of a group, CLS first where it takes part.
        Raises:
          UserError: the input's shape cannot be honored; the message names the field of the config.
        """
        if return_taps not in (False, True, "attention") and not callable(return_taps):
            raise UserError(f"return_taps: {return_taps!r} is none of False, True, 'attention', and no function")
        features, taps = self._features(video, key, cast(Taps, return_taps))
        logits = {name: place(head(features.astype(jnp.float32)), "b ... k") for name, head in self.heads.items()}
        if isinstance(self.config.num_classes, int):
            logits = logits["head"]
        return (logits, taps | {"features": features}) if return_taps else logits

    def features(self, video: jax.Array | np.ndarray, *, key: jax.Array | None = None) -> jax.Array:
        """What the head sees: [B, t, h, w, 3] -> [B, D]."""
        return self._features(video, key, False)[0]

    def _features(
        self, video: jax.Array | np.ndarray, key: jax.Array | None, taps: Taps
    ) -> tuple[jax.Array, dict[str, Any]]:
        if video.ndim != 5 or video.shape[-1] != 3 or not jnp.issubdtype(video.dtype, jnp.floating):
            raise UserError(f"video: {video.dtype}{list(video.shape)} is not normalized float [B, T, H, W, 3]")
        self._check_grid(self.config.grid_of(*video.shape[1:4]))
        key_encoder, key_temporal = keys_of(key, 2)
        x = self.embedding(jnp.asarray(video))  # [B, T, H, W, D]
        seen: dict[str, Any] = {"embedding": x}
        tokens, seen["encoder"] = self.encoder(x, key_encoder, taps)
        if self.encoder.scheme.per_frame and self.temporal_encoder is None:  # averaged before the norm, as released
            tokens = jax.tree.map(lambda x: x.mean(1, keepdims=True), tokens)
        pooled = self.encoder.pool(tokens)  # [B, T or 1, D]
        if self.temporal_encoder is not None:
            tokens, seen["temporal_encoder"] = self.temporal_encoder(pooled[:, :, None, None], key_temporal, taps)
            pooled = self.temporal_encoder.pool(tokens)
        pooled = place(pooled[:, 0], "b ... d")
        return (jnp.tanh(self.pre_logits(pooled)) if self.pre_logits else pooled), seen

    def _check_grid(self, grid: tuple[int, int, int]):
        if self.config.attention == "local_global" and any(size % 2 for size in grid):
            raise UserError(f"video: local_global attention needs an even grid of tokens, not {grid}")


def create_model(name: str, num_classes: int | dict[str, int], seed: int = 0, **overrides: Any) -> VideoTransformer:
    """Creates a randomly initialized model.

    Args:
      name: one of `list_models()`, or any patch and tubelet size in the same style (`vivit_s8x4_fe`).
      num_classes: of the head; {head: classes} for several.
      seed: of the parameters.
      **overrides: fields of `ModelConfig`.
    Raises:
      UserError: (a ValueError) an unknown name or field, or a value that cannot be honored; names the field.
    """
    config = model_config(name, num_classes, **overrides)
    return VideoTransformer(config, preprocessing(name, config), Keys(seed))
