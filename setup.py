"""What is installed. The project runs from its checkout, never published."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))  # pip builds without it

from plugins.extras import TABLE, requirements
from sut import __version__

setup(
    name="loadgen-vision-sut",
    version=__version__,
    description="A LoadGen system under test for vision models that shows where the time of a request goes",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=["Private :: Do Not Upload"],
    python_requires=">=3.11,<3.14",
    # An explicit root makes an editable installation one path entry: packages added later are found without another.
    package_dir={"": "."},
    packages=find_packages(include=["sut*", "backends*", "preprocess*", "kernels*", "plugins*"]),
    package_data={
        "plugins": ["extras.txt"],
        "sut.datasets": ["demo_photos/*"],
        "sut.results.page": ["page.css", "page.html.j2", "page.js"],
        "kernels": ["*.cu", "*.cuh", "lab/*.cu", "host/*.cpp", "host/*.hpp"],
    },
    entry_points={"console_scripts": ["sut = sut.__main__:main"]},
    install_requires=requirements(),
    extras_require={extra: requirements(extra) for entry in TABLE if entry.packages for extra in entry.extras},
)
