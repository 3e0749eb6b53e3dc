"""The papers' blocks spelled out in numpy, token by token: what every scheme is checked against."""

import math

import numpy as np

# Scheme -> its attentions in order: (axes of the heads in equal parts, CLS takes part, a last projection).
STEPS = {
    "joint": [(["joint"], True, False)],
    "factorized_encoder": [(["space"], True, False)],
    "factorized_self_attention": [(["space"], True, False), (["time"], True, False)],
    "factorized_self_attention_time_space": [(["time"], True, False), (["space"], True, False)],
    "factorized_dot_product": [(["time", "space"], True, False)],
    "space": [(["space"], True, False)],
    "time": [(["time"], True, False)],
    "divided": [(["time"], False, True), (["space"], True, False)],
    "divided_space_time": [(["space"], True, False), (["time"], False, True)],
    "divided_parallel": [(["time"], False, True), (["space"], True, False)],
    "local_global": [(["local"], False, True), (["global"], True, False)],
    "axial": [(["time"], False, True), (["width"], False, True), (["height"], True, False)],
}


def groups_of(axes: str, t: int, h: int, w: int) -> np.ndarray:
    """Which tokens see each other, from the papers' words: one integer label per token [T * H * W]."""
    at = np.stack(np.meshgrid(np.arange(t), np.arange(h), np.arange(w), indexing="ij"))
    keys = {
        "joint": at[:0],
        "space": at[:1],
        "time": at[1:],
        "height": at[[0, 2]],
        "width": at[:2],
        "local": np.stack([at[1] // (h // 2), at[2] // (w // 2)]),
        "global": at % 2,
    }[axes].reshape(-1, t * h * w)
    return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1) if len(keys) else np.zeros(t * h * w, int)


def _norm(x, norm):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scaled * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def _linear(x, layer):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def softmax_attention(q, k, v):
    """[tokens, head width] each."""
    logits = q @ k.T / math.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def attention(tokens, cls, module, axes, grid, heads):
    """One step on one example: tokens [S, D] and CLS [D] or None; returns their residuals."""
    everything = tokens if cls is None else np.concatenate([cls[None], tokens])
    normed = _norm(everything, module.norm)
    q, k, v = (
        _linear(normed, layer).reshape(len(normed), heads, -1) for layer in (module.query, module.key, module.value)
    )
    out = np.zeros_like(q)
    for head in range(heads):
        labels = groups_of(axes[head * len(axes) // heads], *grid)
        for group in range(labels.max() + 1):
            members = np.flatnonzero(labels == group) + (cls is not None)
            if cls is not None:
                members = np.concatenate([[0], members])
            one = softmax_attention(*(x[members, head] for x in (q, k, v)))
            if cls is None:
                out[members, head] = one
            else:  # CLS gets the mean over the groups
                out[members[1:], head] = one[1:]
                out[0, head] += one[0] / (labels.max() + 1)
    out = _linear(out.reshape(len(out), -1), module.out)
    return (out, None) if cls is None else (out[1:], out[0])


def block(module, attention_scheme, patches, cls, cls_in_time=False, exact_gelu=True):
    """A block on one example: patches [T, H, W, D] and CLS [D] or None."""
    grid, tokens = patches.shape[:3], patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    parallel, seen = attention_scheme == "divided_parallel", (tokens, cls)
    for (axes, takes_cls, projects), step in zip(STEPS[attention_scheme], module.attention, strict=True):
        takes_cls = takes_cls or (cls_in_time and axes == ["time"])
        out, out_cls = attention(
            seen[0], seen[1] if takes_cls else None, step, axes, grid, len(step.query.bias) // step.head_width
        )
        if projects:
            out, out_cls = _linear(out, step.project), None if out_cls is None else _linear(out_cls, step.project)
        tokens, cls = tokens + out, cls if out_cls is None else cls + out_cls
        seen = seen if parallel else (tokens, cls)
    tokens = tokens + _mlp(tokens, module.mlp, exact_gelu)
    return tokens.reshape(patches.shape), None if cls is None else cls + _mlp(cls, module.mlp, exact_gelu)


def _mlp(x, mlp, exact_gelu):
    hidden = _linear(_norm(x, mlp.norm), mlp.up)
    if exact_gelu:
        hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    else:
        hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    return _linear(hidden, mlp.down)
