"""report.html: what the folder of a run holds as one page that needs no other file and no network."""

import base64
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from minicnn.cli.compare import Row, best_epoch, columns, duration, read_history
from minicnn.cli.folders import CONFIG, HISTORY, METRICS
from minicnn.expected import Maybe, Number, check
from minicnn.files import atomic_write
from minicnn.text import shown
from minicnn.training import Config
from minicnn.training.stored import read_json

NAME = "report.html"
_CAPTIONS = {
    "study": "The runs: validation accuracy and loss, overfitting, learning rate",
    "curves": "Loss, accuracy and learning rate over the epochs",
    "confusion_matrix": "True class against predicted class",
    "samples": "Images of all classes in turn",
    "mistakes": "The wrong answers that the model was surest about",
    "grad_cam": "Where the model looks: Grad-CAM over right and wrong answers",
    "filters": "Filters of the first convolution",
    "feature_maps": "What a layer makes of a picture",
    "profile": "Where the time of a training step goes",
}
_SHARE, _COUNT, _AMOUNT = Number(most=1), Number(most=10**13, whole=True), Number(most=1e13)
_CLASS = {"class": str, "precision": _SHARE, "recall": _SHARE, "f1": _SHARE, "support": _COUNT}
_TEST = {
    "images": Maybe(_COUNT),
    "accuracy": Maybe(_SHARE),
    "plain_accuracy": Maybe(_SHARE),
    "loss": Maybe(_AMOUNT),
    "macro": Maybe({"f1": _SHARE}),
    "per_class": Maybe([_CLASS]),
}
_METRICS = {
    **{"parameters": Maybe(_COUNT), "macs": Maybe(_COUNT), "train_seconds": Maybe(_AMOUNT)},
    **{"validation_accuracy": Maybe(_SHARE), "images_per_second": Maybe(_AMOUNT), "test": Maybe(_TEST)},
    **dict.fromkeys(("weights", "dataset", "split"), Maybe(str)),
}
_WORDS = ("recipe", "dataset", "backend", "machine")
_CONFIG = {"config": Maybe(dict), "versions": Maybe(dict), **dict.fromkeys(_WORDS, Maybe(str))}


@dataclass
class Table:
    """Rows of text under a heading; columns are numbers but for ``words`` and, which may break, ``texts``."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[int] = (0,)
    texts: Collection[int] = ()


def write_page(folder: Path) -> None:
    """Write report.html into the folder of a run, or of an evaluation, from the files that lie there.

    Raises:
        ValueError: one of these is damaged.
        OSError: it cannot be read, or the page cannot be written.
    """
    config = read_json(folder / CONFIG, _CONFIG) if (folder / CONFIG).is_file() else {}
    metrics = read_json(folder / METRICS, _METRICS) if (folder / METRICS).is_file() else {}
    test = metrics.get("test") or metrics  # an evaluation has its figures at the top
    check(test, _TEST, str(folder / METRICS))
    history = read_history(folder / HISTORY)
    options = config.get("config") or {}
    known = {"weights": metrics.get("weights"), "model": options.get("model")}
    known |= {word: config.get(word) or metrics.get(word) for word in _WORDS}
    about = [*known.items(), *(config.get("versions") or {}).items()]
    _write(
        folder,
        about=", ".join(f"{name} {value}" for name, value in about if value),
        facts=_facts(metrics, test, history),
        options=_options(options),
        epochs=_epochs(history),
        best=best_epoch(history),
        per_class=_per_class(test.get("per_class") or []),
    )


def write_study_page(folder: Path, rows: Sequence[Row]) -> None:
    """Write report.html into the folder of a study, with the table of its runs and links to their pages."""
    heading, *lines = columns(rows)
    reports = [row["run"] for row in rows if (folder / row["run"] / NAME).is_file()]
    words = {number for number, name in enumerate(heading) if name in ("run", "recipe", "model")}
    _write(folder, about=f"{len(rows)} runs", runs=Table(heading, lines, words), reports=reports)


def _write(folder: Path, **parts: Any) -> None:
    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page.filters["shown"] = shown
    pictures = [
        {"caption": caption, "data": base64.b64encode((folder / f"{name}.png").read_bytes()).decode()}
        for name, caption in _CAPTIONS.items()
        if (folder / f"{name}.png").is_file()
    ]
    lying = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (NAME, ".lock"))
    files = [(path.name, quote(os.fsencode(path.name)), _size(path.stat().st_size)) for path in lying]
    title = folder.resolve().name
    text = page.get_template(NAME).render(title=title, pictures=pictures, files=files, **parts)
    atomic_write(folder / NAME, text)


def _facts(metrics: Mapping[str, Any], test: Mapping[str, Any], history: Mapping[str, list[float]]) -> list[Any]:
    """The figures of a run, each with its name; those that it does not have are left out."""
    part = metrics.get("split") or "test"
    best = best_epoch(history)
    validation = history.get("validation_accuracy") or []
    seconds = metrics.get("train_seconds") or (sum(history["seconds"]) if "seconds" in history else None)
    known = [
        (f"{part} accuracy", test.get("accuracy"), "{:.2%}"),
        ("by one view", test.get("plain_accuracy"), "{:.2%}"),
        ("macro F1", (test.get("macro") or {}).get("f1"), "{:.4f}"),
        (f"{part} loss", test.get("loss"), "{:.4f}"),
        (f"{part} images", test.get("images"), "{:,}"),
        ("validation accuracy", None if best is None or not validation else validation[best], "{:.2%}"),
        ("best epoch", None if best is None else f"{best + 1} of {max(map(len, history.values()))}", "{}"),
        ("training time", None if seconds is None else duration(seconds), "{}"),
        ("images per second", metrics.get("images_per_second"), "{:,.0f}"),
        ("parameters", metrics.get("parameters"), "{:,}"),
        ("multiply-adds a picture", metrics.get("macs"), "{:,}"),
    ]
    return [(name, form.format(value)) for name, value, form in known if value is not None]


def _options(config: Mapping[str, Any]) -> Table | None:
    """What a configuration has that is not the default, as options of the command, with their meaning."""
    defaults, rows = json.loads(json.dumps(asdict(Config()))), []
    for field in fields(Config):
        value, default = config.get(field.name), defaults[field.name]
        option, meaning = field.name.replace("_", "-"), field.metadata["help"]
        if value is None or value == default:
            continue
        if isinstance(value, dict):
            rows += [(f"--model-option {name}={json.dumps(one)}", "", meaning) for name, one in value.items()]
        elif isinstance(value, bool):
            rows.append((f"--{option}" if value else f"--no-{option}", "off" if value else "on", meaning))
        else:
            rows.append((f"--{option} {_word(value)}", _word(default), meaning))
    return Table(("option", "default", "meaning"), rows, (0, 1), (2,)) if rows else None


def _word(value: Any) -> str:
    """A value as the command line takes it: numbers as 30,45 and pairs of them as 0:0.2,1:0."""
    if isinstance(value, list):
        return ",".join(":".join(map(str, each)) if isinstance(each, list) else str(each) for each in value)
    return str(value)


def _epochs(history: Mapping[str, list[float]]) -> Table | None:
    forms = {
        "epoch": "{:.0f}",
        "train_loss": "{:.4f}",
        "train_accuracy": "{:.2%}",
        "validation_loss": "{:.4f}",
        "validation_accuracy": "{:.2%}",
        "learning_rate": "{:.3g}",
        "seconds": "{:,.1f}",
        "images_per_second": "{:,.0f}",
    }
    names = [name for name in forms if name in history]
    if not names:
        return None
    rows = zip(*(map(forms[name].format, history[name]) for name in names), strict=True)
    return Table([name.replace("_", " ") for name in names], list(rows), ())


def _per_class(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    figures = ("precision", "recall", "f1")
    lines = [[row["class"], *(f"{row[name]:.4f}" for name in figures), f"{row['support']:,}"] for row in rows]
    return Table(("class", "precision", "recall", "F1", "images"), lines) if lines else None


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 10_000 else f"{count / 1000:,.0f} kB"
