"""report.html, and the list of mistakes."""

import csv
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from minicnn import backend, nn
from minicnn.cli import reports
from minicnn.cli.page import write_page
from minicnn.cli.reports import mistakes_table
from minicnn.data import Dataset, Loader
from minicnn.training import Evaluation


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data.strip())

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_run_has_a_page_of_its_own(digits_run):
    page = Page(digits_run.folder / "report.html")
    text = (digits_run.folder / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((digits_run.folder / "metrics.json").read_text())
    assert "run" in page.words and f"{metrics['test']['accuracy']:.2%}" in page.words and "65,886" in page.words
    pictures = page.found("img")
    assert len(pictures) == 7 and all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)
    assert not page.found("script") and not page.found("link") and "http" not in re.sub("http-equiv", "", text)
    names = {link["href"] for link in page.found("a")}
    files = {path.name for path in digits_run.folder.iterdir()} - {".lock", "report.html"}
    assert names == files and "mistakes.csv" in files
    epochs = len((digits_run.folder / "history.csv").read_text().splitlines()) - 1
    assert f"{epochs} epochs" in page.words and len([c for c in page.found("tr") if c.get("class") == "best"]) == 1
    assert "--train-size 200" not in page.words and digits_run.out.endswith(", with report.html\n")


def test_the_options_that_are_not_defaults(train, tmp_path):
    train("--epochs", 2, "--nesterov", "--milestones", "1,2", "--schedule", "multi-step", "--out", tmp_path / "run")
    words = Page(tmp_path / "run" / "report.html").words
    for option in ("--nesterov", "--milestones 1,2", "--schedule multi-step", "--train-size 200", "--epochs 2"):
        assert option in words
    assert "60" in words and "off" in words and "constant" in words  # the defaults
    assert "Times that every training image is seen." in words and "--seed 0" not in words


def test_names_are_text(tmp_path):
    folder = tmp_path / "<b>run & \u202e"
    folder.mkdir()
    row = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    per_class = [{"class": "<script>alert(1)</script>"} | row, {"class": "\x1b[2J"} | row]
    (folder / "metrics.json").write_text(json.dumps({"images": 1, "accuracy": 1.0, "per_class": per_class}))
    (folder / '"><img src=x>.txt').touch()
    (folder / os.fsdecode(b"\xff:.txt")).touch()
    write_page(folder)
    page = Page(folder / "report.html")
    assert not page.found("script") and not page.found("img") and not page.found("b")
    assert "<script>alert(1)</script>" in page.words and r"\x1b[2J" in page.words and r"<b>run & \u202e" in page.words
    assert {"href": "%22%3E%3Cimg%20src%3Dx%3E.txt"} in page.found("a")
    assert {"href": "%FF%3A.txt"} in page.found("a") and r"\udcff:.txt" in page.words


def test_an_evaluation_and_a_study_have_one_too(command, sketches, digits_run, tmp_path):
    words = ("--weights", digits_run.weights, "--backend", "numpy")
    assert command("evaluate", *words, "--out", tmp_path / "measured")[0] == 0
    accuracy = json.loads((tmp_path / "measured" / "metrics.json").read_text())["accuracy"]
    assert f"{accuracy:.2%}" in Page(tmp_path / "measured" / "report.html").words
    small = ("--dataset", "digits", "--backend", "numpy", "--train-size", 200, "--epochs", 1)
    assert command("study", "digits", "lenet", *small, "--out", tmp_path / "study")[0] == 0
    page = Page(tmp_path / "study" / "report.html")
    assert {"href": "digits/report.html"} in page.found("a") and {"href": "lenet/report.html"} in page.found("a")
    assert len(page.found("img")) == 1 and "2 runs" in page.words


def test_an_evaluation_says_of_what_it_is(command, digits_run, tmp_path):
    words = ("--weights", digits_run.weights, "--backend", "numpy", "--split", "validation", "--out", tmp_path)
    assert command("evaluate", *words)[0] == 0
    page = Page(tmp_path / "report.html")
    assert f"weights {digits_run.weights}, dataset digits" in page.words
    assert "validation accuracy" in page.words and "test accuracy" not in page.words


def test_no_picture_is_of_a_model_that_was_tested_before(tmp_path):
    (tmp_path / "grad_cam.png").write_bytes(b"of another model")
    pixels = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    pets = Dataset(pixels, np.array([0, 1, 0, 0]), ("cat", "dog"), "pets")
    loader = Loader(pets, 4, mean=(0.5,) * 3, std=(0.5,) * 3, backend=backend.get("numpy"))
    reports.test_reports(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), loader)
    assert (tmp_path / "samples.png").exists() and not (tmp_path / "grad_cam.png").exists()


def test_a_stopped_run_has_a_page(train, tmp_path):
    train("--epochs", 3, "--stop-after", 1, "--out", tmp_path / "run")
    page = Page(tmp_path / "run" / "report.html")
    assert "1 epoch" in page.words and "test accuracy" not in page.words and len(page.found("img")) == 1


@pytest.fixture
def answers():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9], [0.1, 0.8, 0.1]], np.float32)
    return Evaluation(1.0, np.array([0, 1, 0, 0]), probabilities)


def dataset(classes, files=()):
    return Dataset(np.zeros((4, 3, 2, 2), np.uint8), np.array([0, 1, 0, 0]), classes, "pets", files=files)


def test_mistakes_are_listed_the_surest_first(answers):
    table = mistakes_table(
        answers, dataset(("cat", "dog", "owl"), ("cat/a.png", "dog/b.png", "cat/c.png", "cat/d.png"))
    )
    assert table.split("\r\n") == [
        "record,file,true,predicted,p_true,p_predicted",
        "2,cat/c.png,cat,owl,0.0500,0.9000",
        "3,cat/d.png,cat,dog,0.1000,0.8000",
        "1,dog/b.png,dog,cat,0.4000,0.5000",
        "",
    ]


def test_without_files_records_have_numbers(answers):
    rows = list(csv.reader(io.StringIO(mistakes_table(answers, dataset(("cat", "dog", "owl"))))))
    assert rows[0] == ["record", "true", "predicted", "p_true", "p_predicted"]
    assert rows[1] == ["2", "cat", "owl", "0.0500", "0.9000"]


def test_no_name_is_a_formula_or_breaks_a_line(answers):
    files = ("x", '-1+"x",y.png', "=cmd|' /C calc'!A0", "a\n\r\x1b\udcff.png")
    rows = list(csv.reader(io.StringIO(mistakes_table(answers, dataset(("@cat", "+dog", "owl"), files)))))
    assert [row[1] for row in rows[1:]] == ["'=cmd|' /C calc'!A0", r"a\n\r\x1b\udcff.png", '\'-1+"x",y.png']
    assert [row[2:4] for row in rows[1:]] == [["'@cat", "owl"], ["'@cat", "'+dog"], ["'+dog", "'@cat"]]
