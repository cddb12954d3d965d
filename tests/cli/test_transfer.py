"""train --weights, from the command to predictions with what was learned."""

import json

import numpy as np
import pytest

from minicnn import backend
from minicnn.training import checkpoint, pretrained

SMALL = ("--backend", "numpy", "--batch-size", 8, "--validation", 6, "--epochs", 3)


def load(folder, name="best"):
    return checkpoint.load(folder / f"{name}.safetensors")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def source(train, tmp_path):
    """The weights of a LeNet that knows some digits."""
    assert train("--epochs", 1, "--out", tmp_path / "source")[0] == 0
    return tmp_path / "source" / "best.safetensors"


@pytest.mark.parametrize("plan", [(), ("--eager",)], ids=["compiled", "eager"])
def test_from_weights_to_predictions(command, sketches, pictures, source, tmp_path, plan):
    run, known = tmp_path / "run", checkpoint.load(source)
    words = ("--weights", source, "--dataset", pictures(), "--freeze", 2, "--flip", 0, "--epochs", 12)
    code, out, err = command("train", *SMALL, *words, *plan, "--out", run)
    assert (code, err) == (0, "") and "run: lenet, " in out
    stored, config = load(run), config_of(run)
    assert config["recipe"] == "transfer"
    kept = {"weights": str(source), "freeze": 2, "normalize": "weights", "model": "lenet", "model_options": {}}
    assert {name: config["config"][name] for name in kept} == kept
    for name, array in stored.arrays.items():
        frozen = name.startswith("conv")
        assert frozen == (array.tobytes() == known.arrays[name].tobytes()), name
    assert stored.arrays["fc3.weight"].shape == (3, 84)
    for name in ("mean", "std"):
        assert stored.metadata[name] == known.metadata[name]
    assert stored.metadata["classes"] == ["cat", "dog", "owl"] and stored.metadata["dataset"] == "pets"

    weights = ("--backend", "numpy", "--weights", run / "best.safetensors", "--json")
    code, out, _ = command("evaluate", *weights)
    assert (
        code == 0 and json.loads(out)["accuracy"] == json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    )
    code, out, _ = command("predict", *weights, tmp_path / "pets" / "owl")
    assert code == 0 and {answer["predictions"][0]["class"] for answer in json.loads(out)} == {"owl"}


def test_shipped_weights_of_a_recipe(command, sketches, pictures, tmp_path):
    """The recipe's network and whitening are not those of the run; its views are."""
    words = ("--recipe", "speedrun", "--precision", "float32", "--weights", "lenet-cifar10", "--freeze", "features")
    code, _, err = command("train", "--dataset", pictures(), *SMALL, *words, "--lr", 0.01, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    config = config_of(tmp_path / "run")["config"]
    assert (config["model"], config["whiten"], config["whiten_bias"], config["freeze"]) == ("lenet", 0, 0, "features")
    shipped = pretrained.load("lenet-cifar10", backend.get("numpy"))
    stored = load(tmp_path / "run")
    assert {name for name, a in stored.arrays.items() if not np.array_equal(a, shipped.arrays()[name])} == {
        "fc3.weight", "fc3.bias"
    }  # fmt: skip
    assert stored.metadata["mean"] == list(shipped.preprocessing.mean)
    assert (stored.metadata["tta"], stored.metadata["tta_shift"]) == (True, 1)


def test_resume_is_one_run(command, sketches, pictures, source, tmp_path):
    words = (*SMALL, "--weights", source, "--dataset", pictures(), "--freeze", 1, "--lookahead", 2)
    assert command("train", *words, "--out", tmp_path / "whole")[0] == 0
    assert command("train", *words, "--out", tmp_path / "parts", "--stop-after", 1)[0] == 0
    resume = ("--backend", "numpy", "--resume", "--out", tmp_path / "parts")
    code, _, err = command("train", *resume, "--freeze", 2)
    assert (code, err) == (1, "error: cannot resume: freeze was 1, now 2\n")
    code, _, err = command("train", *resume, "--weights", "lenet-cifar10")
    assert code == 1 and f"cannot resume: weights was '{source}', now 'lenet-cifar10'" in err
    assert command("train", *resume, "--weights", source)[0] == 0
    for name in ("best", "last"):
        found, expected = (load(tmp_path / part, name).arrays for part in ("parts", "whole"))
        assert {key: a.tobytes() for key, a in found.items()} == {key: a.tobytes() for key, a in expected.items()}


def test_resume_needs_the_weights(command, sketches, pictures, source, tmp_path):
    run = tmp_path / "run"
    command("train", *SMALL, "--weights", source, "--dataset", pictures(), "--stop-after", 1, "--out", run)
    source.unlink()
    code, _, err = command("train", "--backend", "numpy", "--resume", "--out", run)
    assert code == 1 and err.startswith("error: cannot resume: ")
    assert f"weights: no file and no shipped weights '{source}'" in err and err.count("\n") == 1


def test_find_lr(command, pictures, source, tmp_path):
    words = ("--weights", source, "--freeze", "features", "--dataset", pictures(), "--steps", 10)
    code, out, _ = command("find-lr", *SMALL, *words, "--out", tmp_path / "rates")
    assert code == 0 and "suggestion: --lr " in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "vgg"), 2, "model: expected lenet, as that of SOURCE, received 'vgg'"),
        (("--whiten", 5), 2, "weights, whiten: expected one of them, received both"),
        (("--freeze", 5), 2, "freeze: expected up to 4 stages, as there are before the head, received 5"),
        (("--freeze", "all"), 2, "freeze: expected a whole number from 0 or features, received 'all'"),
        (("--freeze", "-1"), 2, "freeze: expected a whole number from 0 or features, received '-1'"),
        (("--weights", "", "--freeze", 1), 2, "freeze: expected weights with it, or freeze off"),
        (("--weights", "", "--normalize", "weights"), 2, "normalize: expected weights with it, or another normalize"),
        (("--weights", "lenet-cifar"), 1, "weights: no file and no shipped weights 'lenet-cifar' (shipped: "),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    command, pictures, source, tmp_path, words, code, message
):
    run = tmp_path / "run"
    found = command("train", *SMALL, "--weights", source, "--dataset", pictures(), *words, "--out", run)
    assert found[:2] == (code, "") and found[2].startswith("error: " + message.replace("SOURCE", str(source)))
    assert found[2].count("\n") == 1 and not run.exists()


def test_published_weights_name_no_file_of_this_machine(command, sketches, pictures, source, tmp_path, monkeypatch):
    pets = pictures()
    for name, start in (("own", source), ("shipped", "lenet-cifar10")):
        command("train", *SMALL, "--epochs", 1, "--weights", start, "--dataset", pets, "--out", tmp_path / name)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "lenet-cifar10.safetensors").touch()  # its name is all that is asked for
    for name, expected in (("own", ""), ("shipped", "lenet-cifar10")):
        assert command("publish", tmp_path / name, f"pets-{name}")[0] == 0
        card = json.loads((tmp_path / "weights" / f"pets-{name}.json").read_text())
        assert card["config"]["weights"] == expected and str(tmp_path) not in json.dumps(card)
