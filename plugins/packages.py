"""The packages that this project stands on, by name and module, and the checkout that it runs from."""

from __future__ import annotations

from pathlib import Path

MODULES = {
    "numpy": "numpy",
    "PyYAML": "yaml",
    "jinja2": "jinja2",
    "pydantic": "pydantic",
    "rich": "rich",
    "typer": "typer",
    "mlcommons-loadgen": "mlperf_loadgen",
    "onnx": "onnx",
    "opencv-python-headless": "cv2",
    "simplejpeg": "simplejpeg",
}
"""What those packages are imported as without which nothing, or little, runs; ONNX Runtime is tried later."""
CHECKOUT = Path(__file__).resolve().parents[1]
"""What lies beside this package: the folder that everything is run from."""
REINSTALL = "pip install --force-reinstall"
