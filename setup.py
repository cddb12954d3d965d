"""Packaging of minicnn: what it needs, its extras and its commands."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (root / "minicnn" / "__init__.py").read_text(encoding="utf-8"))
test = ["pytest>=8", "hypothesis>=6.100", "ruff>=0.9", "mypy>=1.14", "h5py>=3.10", "tensorboard>=2.16"]
onnx = ["onnx>=1.17", "onnxscript>=0.1"]

setup(
    name="minicnn",
    version=version.group(1) if version else "0",
    description="Convolutional networks from scratch, small enough to read and fast enough to use",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["minicnn", "minicnn.*"]),
    package_data={"minicnn": ["weights/*", "training/recipes/*.toml", "cli/*.html", "backend/cuda/*.cu*", "py.typed"]},
    install_requires=[
        "filelock>=3.12",
        "jinja2>=3.1",
        "numpy>=2.0",
        "numba>=0.61",
        "matplotlib>=3.8",
        "pillow>=10.3",
        "platformdirs>=4.0",
        "requests>=2.31",
        "rich>=13.7",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "threadpoolctl>=3.5",
        "typer>=0.12",
    ],
    extras_require={
        "cuda12": ["cupy-cuda12x[ctk]>=14.0"],
        "cuda13": ["cupy-cuda13x[ctk]>=14.0"],
        "hdf5": ["h5py>=3.10"],
        "tensorboard": ["tensorboard>=2.16"],
        "test": test,
        "bench": ["torch>=2.5"],
        "docs": ["pdoc>=15", "jupytext>=1.16"],
        "onnxruntime": ["torch>=2.5", *onnx, "onnxruntime>=1.20"],
        "openvino": ["torch>=2.5", *onnx, "openvino>=2024.5"],
    },
    entry_points={"console_scripts": ["minicnn = minicnn.cli.main:main"]},
)
