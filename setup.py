from setuptools import find_packages, setup

VIDEO = ["av>=14,<19", "array_record>=0.7,<0.9", "grain>=0.2.9,<0.3", "tensorflow-datasets>=4.9.9,<4.10", "importlib_resources"]
JAX = ["jax>=0.8,<0.12", "flax>=0.12,<0.13", "optax>=0.2.5,<0.3", "orbax-checkpoint>=0.11,<1", "dm-pix>=0.4.4,<0.5"]
TOOLS = ["absl-py>=2.1", "einops>=0.8,<0.9", "jaxtyping>=0.3,<0.4", "ml-collections>=1.0,<2", "numpy>=1.26"]
FILES = ["huggingface_hub>=0.30,<3", "safetensors>=0.5,<1", "tensorboardX>=2.6,<3", "tqdm>=4.66"]
PLOTS = ["matplotlib>=3.8"]

setup(
    name="vivit_jax",
    version="0.1.0",
    description="Video transformers in JAX: ViViT and TimeSformer, trained, fine-tuned and probed on TPU, GPU and CPU",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vivit_jax", "vivit_jax.*"]),
    install_requires=JAX + VIDEO + FILES + TOOLS,
    extras_require={
        "test": ["pytest>=8", "ruff>=0.9", "pyright>=1.1.390", "pre-commit>=3.7", *PLOTS],
        "plots": PLOTS,
        "torch": ["torch>=2.4"],
        "beam": ["apache-beam>=2.60"],
        "tpu": ["libtpu>=0.0.20"],
        "cuda": ["jax[cuda12]>=0.8,<0.12"],
    },
)
