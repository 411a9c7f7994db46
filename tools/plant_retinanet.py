"""Make what a run of MLPerf's RetinaNet needs, from nothing: a model of its shape that finds coloured rectangles, and
pictures of such in the layout of MLPerf's OpenImages.

python tools/plant_retinanet.py MODEL_DIR DATA_DIR

Nobody trained it: what its mAP loses is lost around the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sut.datasets import rectangles
from sut.datasets.coco import LAYOUTS
from sut.models.sources.planted import write_retinanet


def main() -> int:
    """Write the model, and pictures and annotations where there are none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("models", type=Path, metavar="MODEL_DIR", help="folder for retinanet.onnx")
    parser.add_argument("data", type=Path, metavar="DATA_DIR", help="folder for the data set")
    arguments = parser.parse_args()
    layout = LAYOUTS["openimages"]
    model, annotations = arguments.models / "retinanet.onnx", arguments.data / layout.lists[0]
    pictures = arguments.data / layout.folders[0]
    try:
        for path in (model, annotations):
            if path.exists():
                parser.error(f"{path} is there already; name another folder")
        for folder in (model.parent, annotations.parent, pictures):
            folder.mkdir(parents=True, exist_ok=True)
        write_retinanet(model)
        rectangles.write(annotations, pictures)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {model}, {annotations} and {rectangles.PICTURES} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
