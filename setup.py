from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "jax>=0.8,<0.12",
    "flax>=0.12,<0.13",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.11,<1",
    "dm-pix>=0.4.4,<0.5",
    "tensorflow-datasets>=4.9.9,<4.10",
    "importlib_resources>=5",  # tensorflow-datasets imports it and does not ask for it
    "array_record>=0.7,<0.9",
    "grain>=0.2.9,<0.3",
    "av>=14,<19",
    "simplejpeg>=1.7,<2",
    "ml-collections>=1.0,<2",
    "absl-py>=2.1",
    "einops>=0.8,<0.9",
    "jaxtyping>=0.3,<0.4",
    "numpy>=1.26",
    "safetensors>=0.5,<1",
    "flatbuffers>=23",  # jax.export serializes with it and does not ask for it
    "etils[epath]>=1.9,<2",
    "msgpack>=1.0,<2",
    "PyYAML>=6,<7",
    "huggingface_hub>=0.30,<3",
    "tensorboardX>=2.6,<3",
    "tqdm>=4.66,<5",
]
PLOTS = ["matplotlib>=3.8,<4"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.29,<2"]
TORCH = ["torch>=2.4,<3"]
BEAM = ["apache-beam>=2.60,<3"]
NOTEBOOKS = ["jupytext>=1.16,<2", "nbclient>=0.11,<1", "ipykernel>=6.29,<8", *PLOTS]

setup(
    name="vivit_jax",
    version="0.1.0",
    description="Video transformers in JAX: ViViT and TimeSformer, for TPU, GPU and CPU",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vivit_jax", "vivit_jax.*"]),
    install_requires=REQUIRES,
    extras_require={
        "test": [
            "pytest>=8",
            "beartype>=0.18",
            "pytest-xdist>=3.6",
            "ruff>=0.12,<1",
            "pyright>=1.1.390",
            "pre-commit>=3.7",
            "scikit-learn>=1.4",
            *NOTEBOOKS,
            *BEAM,
        ],
        "docs": DOCS,
        "plots": PLOTS,
        "notebooks": NOTEBOOKS,
        "torch": TORCH,
        "peers": [*TORCH, "transformers>=5,<6", "torchcodec", "decord", "opencv-python-headless"],
        "beam": BEAM,
        "tpu": ["libtpu>=0.0.20,<0.1"],
        "cuda": ["jax[cuda12]>=0.8,<0.12"],
    },
)
