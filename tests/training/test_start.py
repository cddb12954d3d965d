"""Trainings that start from the weights of another network: what is taken from them, what is new, what stays fixed."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from minicnn import backend, data, models, nn, random
from minicnn.training import Config, Trainer, checkpoint, pretrained, recipe, start

COLOURS = ("red", "green", "blue")
VGG = {"widths": [4, 6], "dropout": 0.2}
RUNS = {
    "sgd": {"momentum": 0.9, "weight_decay": 0.1},
    "looking ahead": {"lookahead": 2, "momentum": 0.9, "weight_decay": 0.1},
    "averaged": {"ema": 0.9, "optimizer": "adam", "weight_decay": 0.1},
    "accumulated": {"accumulate": 2, "optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5, "clip_value": 0.01},
    "rates of biases": {"bias_lr": 4.0, "weight_decay": 0.1, "decay_bias_and_norm": False},
}


@pytest.fixture
def weights(tmp_path):
    """Make a file of weights of these classes, one epoch away from the first ones, and return its path."""

    def make(name="source.safetensors", classes=("cat", "dog"), mean=(0.3, 0.4, 0.5), **options):
        images = np.random.default_rng(5).integers(0, 256, (40, 3, 32, 32)).astype(np.uint8)
        part = data.Dataset(images, np.arange(40) % len(classes), tuple(classes), "pets")
        splits = data.Splits(part, part, part, "pets", mean, (0.2, 0.25, 0.3))
        options = options or {"model": "vgg", "model_options": VGG}
        run = Trainer(Config(**options, epochs=1, batch_size=20, lr=0.01, seed=9), splits, backend.get("numpy"))
        run.run_epoch()
        checkpoint.save(tmp_path / name, *run.weights())
        return str(tmp_path / name)

    return make


def arrays(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def finish(run):
    while not run.finished:
        run.run_epoch()
    return run


def same(found, expected):
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


# Stages


@pytest.mark.parametrize(
    ("model", "options", "count", "first"),
    [
        ("lenet", {}, 4, {"conv1.weight", "conv1.bias"}),
        ("vgg", VGG, 4, {"features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias"}),
        ("resnet20", {}, 10, {"conv.weight", "bn.weight", "bn.bias"}),
        ("resnet18", {}, 9, {"conv.weight", "bn.weight", "bn.bias"}),
        ("speednet", {"widths": [4]}, 3, {"whitening.weight", "whitening.bias"}),
        ("vit", {"depth": 2}, 3, {"patches.weight", "patches.bias", "positions"}),
        ("vit", {"pool": "class"}, 7, {"patches.weight", "patches.bias", "positions", "class_token"}),
    ],
)
def test_stages_of_a_model(model, options, count, first):
    head = {"lenet": "fc3", "vgg": "classifier", "speednet": "classifier", "vit": "head"}.get(model, "fc")
    built = models.create(model, **options)
    before, names = start.stages(built)
    assert (len(before), {name.split(".")[0] for name in names}) == (count, {head})

    def trained():
        return {name for name, p in built.named_parameters() if p.requires_grad}

    whole = trained()
    start.freeze(built, 1)
    assert whole - trained() == first
    assert start.freeze(built, start.FEATURES) == start.freeze(built, count)
    assert trained() == set(names)


def test_every_model_has_stages():
    for name in models.names():
        before, head = start.stages(models.create(name))
        assert before and head


def test_layers_before_the_first_convolution_are_of_its_stage():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(1))
    before, head = start.stages(model)
    assert before == [[model[0], model[1], model[2], model[3]]] and head == ["4.weight", "4.bias"]


@pytest.mark.parametrize(
    ("layers", "last"),
    [((nn.Linear(4, 3), nn.Conv2d(3, 2, 1)), "Conv2d"), ((nn.Flatten(),), "nothing"), ((), "nothing")],
)
def test_a_model_without_a_linear_layer_at_its_end(layers, last):
    with pytest.raises(ValueError, match=f"weights: expected a model that ends in a Linear, Sequential ends in {last}"):
        start.stages(nn.Sequential(*layers))


# What is taken


def test_all_but_the_head_is_that_of_the_weights(weights, splits):
    path = weights()
    config = Config(weights=path)
    assert (config.model, config.model_options, config.normalize) == ("vgg", {**VGG}, "weights")
    run, source = Trainer(config, splits, backend.get("numpy")), checkpoint.load(path).arrays
    fresh = Trainer(Config(model="vgg", model_options=VGG), splits, backend.get("numpy"))
    for name, array in arrays(run.model).items():
        head = name.startswith("classifier")
        assert array.shape[0] == 3 if head else same(array, source[name]), name
        if head:  # as any new one of this seed
            np.testing.assert_array_equal(array, arrays(fresh.model)[name])
    assert (run.preprocessing.mean, run.preprocessing.std) == ((0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
    _, metadata = run.weights()
    assert (metadata["mean"], metadata["std"]) == ([0.3, 0.4, 0.5], [0.2, 0.25, 0.3])
    assert (metadata["model"], metadata["options"], metadata["classes"]) == ("vgg", VGG, list(COLOURS))
    assert metadata["tta"] is False and metadata["dataset"] == "noise"
    images, _ = next(run.loader("test").epoch(0))
    expected = (splits.test.images / 255 - np.reshape([0.3, 0.4, 0.5], (3, 1, 1))) / np.reshape(
        [0.2, 0.25, 0.3], (3, 1, 1)
    )
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)


def test_the_classes_that_the_weights_know_keep_their_head_in_any_order(weights, splits):
    path = weights(classes=("blue", "green", "red"))
    source = checkpoint.load(path).arrays
    run = Trainer(Config(weights=path), splits, backend.get("numpy"))
    for name, array in arrays(run.model).items():
        np.testing.assert_array_equal(array, source[name][::-1] if name.startswith("classifier") else source[name])
    other = Trainer(Config(weights=weights(classes=("blue", "green", "reds"))), splits, backend.get("numpy"))
    assert (arrays(other.model)["classifier.weight"] != source["classifier.weight"][::-1]).any()


def test_one_class(weights, splits):
    part = replace(splits.train, labels=np.zeros(len(splits.train), np.int64), classes=("all",))
    alone = data.Splits(part, part, part, "noise", splits.mean, splits.std)
    run = finish(Trainer(Config(weights=weights(), epochs=1), alone, backend.get("numpy")))
    assert run.weights()[0]["classifier.weight"].shape == (1, 6 * 8 * 8)


@pytest.mark.parametrize(("normalize", "mean"), [("mean-std", (0.4, 0.4, 0.4)), ("unit", (0.0, 0.0, 0.0))])
def test_another_normalisation_is_taken_where_it_is_asked_for(weights, splits, normalize, mean):
    run = Trainer(Config(weights=weights(), normalize=normalize), splits, backend.get("numpy"))
    assert run.preprocessing.mean == mean and run.weights()[1]["mean"] == list(mean)


def test_options_without_weights_of_their_own_may_differ(weights):
    config = Config(weights=weights(), model="vgg", model_options={"dropout": 0.5})
    assert config.model_options == {"widths": [4, 6], "dropout": 0.5}


def test_shipped_weights_by_name():
    config = Config(weights="vit-cifar10")
    assert (config.weights, config.model) == ("vit-cifar10", "vit")
    assert config.model_options == pretrained.load("vit-cifar10", backend.get("numpy")).metadata["options"]


def test_a_file_is_kept_by_its_whole_path(weights, monkeypatch, tmp_path):
    path = weights()
    monkeypatch.chdir(tmp_path)
    assert Config(weights="source.safetensors") == Config(weights=path)
    assert Config(**asdict(Config(weights=path))) == Config(weights=path)


def test_hdf5(weights, splits):
    pytest.importorskip("h5py")
    paths = (weights("source.safetensors"), weights("source.h5"))
    found, expected = (arrays(Trainer(Config(weights=path), splits, backend.get("numpy")).model) for path in paths)
    assert all(same(found[name], expected[name]) for name in expected)


def test_making_a_configuration_draws_no_random_number(weights):
    path = weights()
    before = random.get_state()
    Config(weights=path)
    assert random.get_state() == before


def test_a_recipe_leaves_its_network_to_the_weights(weights):
    path = weights()
    config = recipe("speedrun", weights=path, epochs=12)
    assert (config.model, config.model_options, config.whiten, config.whiten_bias) == ("vgg", VGG, 0, 0)
    assert (config.epochs, config.lr, config.tta, config.normalize) == (12, 1.5, True, "weights")
    again = config.override(weights="vit-cifar10")
    assert again.model == "vit" and "widths" not in again.model_options
    assert recipe("transfer", weights="", model="vgg").weights == ""
    assert recipe("transfer").model == "speednet"


# What stays fixed


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", RUNS)
def test_frozen_stages_do_not_change_by_a_bit(weights, splits, name, eager):
    path = weights()
    config = Config(weights=path, freeze=2, epochs=2, batch_size=16, lr=0.01, **RUNS[name])
    run, source = Trainer(config, splits, backend.get("numpy"), eager), checkpoint.load(path).arrays
    before = arrays(run.model)
    finish(run)
    frozen = {f"features.{i}" for i in (0, 2, 3, 5)}  # convolution and batch norm, twice
    for model in (run.model, run.averaged):
        for key, array in arrays(model).items():
            if key.rpartition(".")[0] in frozen:
                assert same(array, source[key]), key
            else:
                assert (array != before[key]).any(), key
    for group in run.optimizer.param_groups:
        assert all(p.grad is None for p in group["params"] if not p.requires_grad)
    arrays_now, _ = run.state()
    steps = dict(zip(map(id, run.optimizer.params), arrays_now["optimizer.counts"], strict=True))
    assert {steps[id(p)] for p in run.model.features[0].parameters()} == {0}
    assert steps[id(run.model.classifier.weight)] == run.optimizer.steps > 0


def test_all_but_the_head(weights, splits):
    path = weights()
    run = finish(Trainer(Config(weights=path, freeze="features", epochs=1), splits, backend.get("numpy")))
    source = checkpoint.load(path).arrays
    assert {name for name, array in arrays(run.model).items() if not np.array_equal(array, source[name])} == {
        "classifier.weight", "classifier.bias"
    }  # fmt: skip
    exact = finish(Trainer(Config(weights=path, freeze=4, epochs=1), splits, backend.get("numpy")))
    assert all(same(array, arrays(run.model)[name]) for name, array in arrays(exact.model).items())


@pytest.mark.parametrize("freeze", [0, 1, "features"])
def test_the_plan_does_what_the_eager_steps_do(weights, splits, freeze):
    path, found = weights(model="lenet"), []
    for eager in (True, False):
        run = Trainer(Config(weights=path, freeze=freeze, epochs=2, lr=0.005), splits, backend.get("numpy"), eager)
        found.append(arrays(finish(run).model))
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_frozen_layers_evaluate_and_are_compiled_once(weights, splits):
    run = Trainer(Config(weights=weights(), freeze=2, batch_size=13), splits, backend.get("numpy"))
    run.run_epoch()
    modes = [layer.training for layer in run.model.features]
    (plan,) = run._update._whole.plans.values()
    assert modes == [False] * 8 + [True] * 8 and run.model.training  # with dropout, at the end of a stage
    run.run_epoch()
    assert list(run._update._whole.plans.values()) == [plan]


@pytest.mark.parametrize("stop", ["after an epoch", "after a step"])
def test_resume_is_one_run_bit_for_bit(weights, splits, tmp_path, stop):
    config = Config(weights=weights(), freeze=1, epochs=3, batch_size=32, momentum=0.9, ema=0.9, flip=0.5)
    whole = finish(Trainer(config, splits, backend.get("numpy")))
    first = Trainer(config, splits, backend.get("numpy"))
    first.run_epoch()
    if stop == "after a step":
        first.run_epoch(lambda info: info.step == 2)
    checkpoint.save(tmp_path / "last.safetensors", *first.state())
    stored, second = checkpoint.load(tmp_path / "last.safetensors"), Trainer(config, splits, backend.get("numpy"))
    second.restore(stored.arrays, stored.metadata)
    found, expected = (finish(run).state()[0] for run in (second, whole))
    assert found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)


def test_resume_with_other_weights_is_refused(weights, splits):
    config = Config(weights=weights(), freeze=1)
    state = Trainer(config, splits, backend.get("numpy")).state()
    for other, message in (
        (replace(config, freeze=2), "cannot resume: freeze was 1, now 2"),
        (replace(config, weights=weights("other.safetensors")), "cannot resume: weights was .*, now .*other"),
        (replace(config, normalize="unit"), r"normalize was 'weights', now 'unit'; mean and std were \[0.3, .*now \[0"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(other, splits, backend.get("numpy")).restore(*state)
    weights(mean=(0.1, 0.4, 0.5))  # in the place of the first
    with pytest.raises(ValueError, match=r"cannot resume: mean and std were \[0.3, 0.4.*\], now \[0.1, 0.4"):
        Trainer(replace(config), splits, backend.get("numpy")).restore(*state)


def test_a_state_from_before_there_were_weights_to_start_from(trainer):
    state, metadata = trainer(momentum=0.9).state()
    for name in ("weights", "freeze"):
        del metadata["config"][name]
    del metadata["scaling"]
    trainer(momentum=0.9).restore(state, metadata)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "lenet"}, "model: expected vgg, as that of .*source.safetensors, received 'lenet'"),
        ({"model_options": {"widths": [4, 8]}}, "source.safetensors do not fit vgg with these options: .*misshaped"),
        ({"model_options": {"batch_norm": False}}, "do not fit vgg with these options: .*extra: features"),
        ({"model_options": {"deep": 3}}, "model vgg: .*deep"),
        ({"whiten": 5}, "weights, whiten: expected one of them, received both"),
        ({"freeze": 5}, "freeze: expected up to 4 stages, as there are before the head, received 5"),
        ({"freeze": -1}, "freeze: expected a whole number from 0 or features, received -1"),
        ({"freeze": "feature"}, "freeze: expected a whole number from 0 or features, received 'feature'"),
        ({"freeze": True}, "freeze: expected a whole number from 0 or features, received True"),
        ({"freeze": 1, "weights": ""}, "freeze: expected weights with it, or freeze off"),
        ({"normalize": "weights", "weights": ""}, "normalize: expected weights with it, or another normalize"),
        ({"weights": 3}, "weights: expected text, received 3"),
    ],
)
def test_options_that_do_not_fit(weights, options, message):
    with pytest.raises(ValueError, match=message):
        Config(**{"weights": weights(), **options})


@pytest.mark.parametrize("name", ["lenet-cifr10", "nowhere/best.safetensors"])
def test_a_missing_file(name):
    with pytest.raises(FileNotFoundError, match=f"weights: no file and no shipped weights '{name}'"):
        Config(weights=name)


def test_weights_that_are_not_finite(weights):
    path = weights()
    stored = checkpoint.load(path)
    stored.arrays["features.0.bias"][1] = np.inf
    checkpoint.save(path, stored.arrays, stored.metadata)
    with pytest.raises(checkpoint.CheckpointError, match="features.0.bias hold NaN or infinities"):
        Config(weights=path)


def test_weights_of_other_pictures_are_refused(weights):
    """Of pictures of 16 pixels, and of one channel: no network here has such."""
    stored = checkpoint.load(weights())
    for name, shape in (("classifier.weight", (2, 6 * 4 * 4)), ("features.0.weight", (4, 1, 3, 3))):
        path = weights()
        checkpoint.save(path, {**stored.arrays, name: np.zeros(shape, np.float32)}, stored.metadata)
        with pytest.raises(checkpoint.CheckpointError, match=f"does not fit vgg: misshaped: {name}"):
            Config(weights=path)


def test_the_state_of_a_run_is_no_weights(trainer, tmp_path):
    checkpoint.save(tmp_path / "last.safetensors", *trainer().state())
    with pytest.raises(checkpoint.CheckpointError, match="expected weights written by minicnn"):
        Config(weights=str(tmp_path / "last.safetensors"))
