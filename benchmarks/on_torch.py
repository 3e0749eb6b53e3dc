"""The models of transformers that gpu.py compares with."""

import importlib
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
_backend = importlib.import_module("torch.nn.attention").SDPBackend
KERNELS = [_backend.FLASH_ATTENTION, _backend.EFFICIENT_ATTENTION, _backend.CUDNN_ATTENTION]


def theirs(kind: str, trains: bool, batch: int, small: bool, compiled: bool) -> Callable[[int], None]:
    """What runs forward passes, or training steps, so many times and waits for the last. Where the model has sdpa, by
    any of torch's kernels but the one with all of attention's weights in memory, for which ViViT is too large."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"num_labels": 400}
    if small:
        options |= dict(image_size=32, num_frames=8, hidden_size=64, num_attention_heads=2, num_hidden_layers=2)
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}ForVideoClassification")
    model = model._from_config(config, attn_implementation="sdpa" if model._supports_sdpa else "eager")
    model = model.to(device).train(trains)
    clip = torch.randn(batch, config.num_frames, 3, config.image_size, config.image_size, device=device)
    label = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    if not trains:
        model, clip = model.bfloat16(), clip.bfloat16()
    if compiled:
        # ViViT by its layers: whole, it makes a mask while it is traced, in transformers before 5.18.
        for part in getattr(model.base_model, "layers", [model]):
            part.compile(dynamic=False)

    def step() -> None:
        if not trains:
            with torch.inference_mode():
                model(clip)
            return
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(clip).logits, label)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def run(times: int) -> None:
        with torch.nn.attention.sdpa_kernel(KERNELS):
            for _ in range(times):
                step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def device() -> dict[str, str]:
    """The GPU, its driver and what computes on it."""
    found = {name: version(name) for name in ("torch", "transformers")} | {"device": jax.devices()[0].device_kind}
    if jax.default_backend() == "gpu":
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        driver, memory = subprocess.check_output(query, text=True).strip().splitlines()[0].split(", ")
        found |= {"driver": driver, "memory": memory, "cuda": str(torch.version.cuda)}
        found |= {"platform": jax.devices()[0].client.platform_version.splitlines()[0]}
    return found
