"""The commands of the documentation as somebody with a folder of images would run them, in order."""

from __future__ import annotations

STEPS: tuple[tuple[str, str, str], ...] = (
    ("docs/quickstart.md", "wsss doctor DATA --out proposal", "--no-estimate"),
    (
        "docs/quickstart.md",
        "wsss label DATA/images DATA/tags.csv --out labels",
        "--classes proposal/classes.yaml --method cam --refine none --quick",
    ),
    ("README.md", "wsss review labels/runs/DATA-smvwe-seed0 --out review", ""),
    ("docs/predict-and-export.md", "wsss export model runs/scenes-cam-seed0 --out model", ""),
    ("docs/predict-and-export.md", "wsss predict model photos --out masks", ""),
    (
        "docs/predict-and-export.md",
        'wsss predict model "photos/**/*.jpg" --out masks --overlays --coco masks.json',
        "",
    ),
    (
        "docs/predict-and-export.md",
        "wsss predict runs/scenes-cam-seed0 list.txt --out masks --scales 1.0,1.5 --flip --crf --tile 1024",
        "--out others",
    ),
    ("docs/predict-and-export.md", "wsss export coco masks --images photos --out masks.json", ""),
    (
        "docs/predict-and-export.md",
        "wsss export label-studio masks --images photos "
        '--prefix "/data/local-files/?d=photos/" --out tasks.json',
        "",
    ),
    ("docs/predict-and-export.md", "wsss export cvat masks --images photos --out masks.xml", ""),
    ("docs/predict-and-export.md", "wsss export png runs/scenes-cam-seed0 --style colour --out coloured", ""),
    ("docs/predict-and-export.md", "wsss export onnx model --out model.onnx", ""),
    (
        "docs/quickstart.md",
        "wsss evaluate --predictions PREDICTIONS --masks MASKS --classes DATA/classes.yaml",
        "--classes proposal/classes.yaml",
    ),
    ("docs/quickstart.md", "wsss report runs/my-cam-seed0 --out report", ""),
)
"""Page, command as it stands there, and what is added; an option that is given twice counts as given last."""

PLACES = {
    "runs/scenes-cam-seed0": "RUN",
    "runs/my-cam-seed0": "RUN",
    "labels/runs/DATA-smvwe-seed0": "RUN",
    "PREDICTIONS": "masks",
    "MASKS": "labels/masks",
}
"""Names in the documentation that stand for what the reader has; RUN is the run of `wsss label`."""
