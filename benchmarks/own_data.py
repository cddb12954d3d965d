"""Data of one's own, from arrays and from a folder, by Fashion-MNIST (Xiao et al., 2017).

    python benchmarks/own_data.py --data FOLDER --json benchmarks/results/own-data.json

FOLDER holds the four files of the data set, ``train-images-idx3-ubyte.gz`` and so on.

From arrays: a small network by :func:`minicnn.fit`, in the ten lines of :func:`from_arrays`, tested on the 10,000 test
pictures. From a folder: a class has from 300 pictures down to a tenth of that, in sizes from 40 to 200 pixels, in grey,
colour, with transparency, with a palette and as CMYK, in PNG, JPEG, WebP and TIFF; ``scripts/train.py`` learns them at
64 x 64 with balanced weights of the classes, in as many epochs from ResNet-20's weights for CIFAR-10 and from scratch.
The weights have never seen a piece of clothing.

Exit codes: 0, 1 failure, 2 usage; then one line says what.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import contest
import minicnn
from minicnn import nn

_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_LOOKS = (("L", "png"), ("RGB", "jpg"), ("RGBA", "webp"), ("P", "png"), ("CMYK", "jpg"), ("RGB", "tiff"))
_SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"
_TRAIN = (
    *("--recipe", "transfer", "--image-size", "64", "--class-weights", "balanced", "--validation", "0"),
    *("--backend", "numpy"),
)

Arrays = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Train, print and save."""
    options = argparse.ArgumentParser(
        description="Data of one's own, from arrays and from a folder",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="of the files of Fashion-MNIST")
    options.add_argument("--pictures", type=contest.whole(10, 6000), default=300, help="of the folder's largest class")
    options.add_argument("--epochs", type=contest.whole(1, 1000), default=15, help="on the folder")
    options.add_argument("--seed", type=contest.whole(0, 2**31), default=0, help="of the folder and the runs")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    arguments = options.parse_args()
    try:
        train, test = (_read(arguments.data, part) for part in ("train", "t10k"))
    except (OSError, ValueError) as error:
        contest.refuse(str(error))
    record: dict[str, Any] = {"own_data": {"arrays": from_arrays(train, test, arguments.seed)}}
    with TemporaryDirectory() as scratch:
        record["own_data"]["folder"] = _from_folder(train, test, Path(scratch), arguments)
    print(table(record))
    contest.save(arguments.json, record | contest.conditions([]))


def from_arrays(train: Arrays, test: Arrays, seed: int = 0) -> dict[str, Any]:
    """Return the test accuracy of a small network, and the seconds that it took from its first line on."""
    start = time.perf_counter()
    minicnn.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 10)),
    )
    history = minicnn.fit(model, train, epochs=3, seed=seed)
    accuracy = minicnn.evaluate(model, test).accuracy
    return {"seconds": round(time.perf_counter() - start, 1), "epochs": len(history), "accuracy": accuracy}


def table(record: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    arrays, folder = record["own_data"]["arrays"], record["own_data"]["folder"]
    rows = [("from", "epochs", "test accuracy", "macro F1", "seconds"), ("---", "---:", "---:", "---:", "---:")]
    rows.append(("arrays, 28 x 28", arrays["epochs"], f"{arrays['accuracy']:.2%}", "-", f"{arrays['seconds']:.0f}"))
    for name, run in folder["runs"].items():
        rows.append(
            (f"a folder, 64 x 64, {name}", folder["epochs"], f"{run['accuracy']:.2%}", f"{run['macro_f1']:.4f}",
             f"{run['seconds']:.0f}")
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _read(folder: Path, part: str) -> Arrays:
    """Return pictures, uint8 (N, 28, 28), and labels, uint8 (N,), of "train" or "t10k"."""
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        content = gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes())
        arrays.append(np.frombuffer(content, np.uint8, offset=header))
    return arrays[0].reshape(-1, 28, 28), arrays[1]


def _from_folder(train: Arrays, test: Arrays, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what ``scripts/train.py`` reaches on a folder, by where it starts from."""
    rng = np.random.default_rng(arguments.seed)
    most = arguments.pictures
    counts = np.geomspace(most, most // 10, len(_CLASSES)).round().astype(int).tolist()
    _write(train, counts, scratch / "pictures" / "train", rng)
    _write(test, [-(-most // 3)] * len(_CLASSES), scratch / "pictures" / "test", rng)
    runs = {}
    ways = {
        "ResNet-20's weights for CIFAR-10": ("--weights", "resnet20-cifar10"),
        "from scratch": ("--weights", "", "--model", "resnet20", "--normalize", "mean-std"),
    }
    for name, start in ways.items():
        out = scratch / name
        given = ("--epochs", str(arguments.epochs), "--seed", str(arguments.seed), "--out", str(out))
        command = [sys.executable, str(_SCRIPT), "--dataset", str(scratch / "pictures"), *_TRAIN, *start, *given]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        runs[name] = {
            "accuracy": metrics["test"]["accuracy"],
            "macro_f1": metrics["test"]["macro"]["f1"],
            "seconds": round(metrics["train_seconds"], 1),
        }
    return {"pictures": counts, "epochs": arguments.epochs, "runs": runs}


def _write(arrays: Arrays, counts: list[int], root: Path, rng: np.random.Generator) -> None:
    """Write so many pictures of each class, drawn by ``rng``, in sizes, modes and formats of all kinds."""
    images, labels = arrays
    for label, (name, count) in enumerate(zip(_CLASSES, counts, strict=True)):
        folder = root / name
        folder.mkdir(parents=True)
        for number, index in enumerate(rng.choice(np.flatnonzero(labels == label), count, replace=False)):
            mode, suffix = _LOOKS[rng.integers(len(_LOOKS))]
            size = tuple(rng.integers(40, 200, 2, endpoint=True).tolist())
            picture = Image.fromarray(images[index]).resize(size, Image.Resampling.BILINEAR)
            picture.convert("RGB").convert(mode).save(folder / f"{number:04}.{suffix}")


if __name__ == "__main__":
    main()
