"""What a model answers on a labelled set."""

import numpy as np
import pytest

from minicnn import backend, is_grad_enabled, nn
from minicnn.data import Loader
from minicnn.training import evaluate
from minicnn.training.evaluation import Evaluation, evaluating, predict


class Channels(nn.Module):
    """The mean of each channel is its logit."""

    def forward(self, input):
        return input.mean((2, 3))


def test_loss_and_accuracy_by_hand(splits, backend_name):
    data = splits.test
    loader = Loader(data, 7, mean=(0, 0, 0), std=(0.1, 0.1, 0.1), backend=backend.default())  # 20 pictures: 7, 7, 6
    result = evaluate(Channels(), loader)
    logits = data.images.mean((2, 3)) / 25.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(result.probabilities, probabilities, rtol=1e-4)
    assert result.probabilities.dtype == np.float32 and result.labels.tolist() == data.labels.tolist()
    assert result.loss == pytest.approx(-np.log(probabilities[np.arange(20), data.labels]).mean(), rel=1e-5)
    assert result.accuracy == (logits.argmax(1) == data.labels).mean()


def test_predictions_of_evaluation():
    result = Evaluation(0.0, np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32))
    assert result.predictions.tolist() == [0, 0, 1] and result.accuracy == pytest.approx(2 / 3)


def test_evaluation_is_deterministic_and_restores_every_mode(splits):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), Channels())
    model.train()
    model[0].eval()  # a frozen layer stays frozen
    loader = Loader(splits.test, 8, mean=(0, 0, 0), std=(1, 1, 1), backend=backend.get("numpy"))
    buffers = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    first, second = evaluate(model, loader), evaluate(model, loader)
    assert first.probabilities.tobytes() == second.probabilities.tobytes() and first.loss == second.loss
    assert [module.training for module in model.modules()] == [True, False, True, True]
    for name, tensor in model.state_dict().items():
        assert tensor.numpy().tobytes() == buffers[name].tobytes()


def test_modes_are_restored_after_an_error():
    model = nn.Sequential(nn.Dropout(0.5))
    with pytest.raises(KeyError), evaluating():
        assert not model.training and not model[0].training and not is_grad_enabled()
        raise KeyError
    assert model.training and model[0].training


def test_predict_returns_probabilities():
    images = np.zeros((2, 3, 4, 4), np.float32)
    images[1, 2] = 3
    expected = np.exp([[0, 0, 0], [0, 0, 3]]) / np.array([[3], [2 + np.exp(3)]])
    np.testing.assert_allclose(predict(Channels(), images), expected, rtol=1e-6)


class Left(nn.Module):
    """The mean of each channel over the left half is its logit."""

    def forward(self, input):
        return input[..., : input.shape[-1] // 2].mean((2, 3))


def test_the_mean_of_a_picture_and_its_mirror_image(splits, backend_name):
    loader = Loader(splits.test, 7, mean=(0, 0, 0), std=(0.02, 0.02, 0.02), backend=backend.default())
    result = evaluate(Left(), loader, tta=True)
    halves = [splits.test.images[..., part].mean((2, 3)) / 5.1 for part in (slice(16), slice(16, None))]
    expected = np.mean([np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in halves], 0)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4)
    assert result.loss == pytest.approx(-np.log(expected[np.arange(20), splits.test.labels]).mean(), rel=1e-4)
    images = np.concatenate([x for x, _ in loader.epoch(0)])
    np.testing.assert_allclose(predict(Left(), images, tta=True), expected, rtol=1e-4)
    assert evaluate(Left(), loader).loss != pytest.approx(result.loss, rel=1e-3)


def test_probabilities_of_0_stay_finite():
    """Logits of +-1e4: the loss of a wrong answer is that of the smallest probability, 1e-30."""

    class Sure(nn.Module):
        def forward(self, input):
            return input.mean((2, 3)) * 1e4

    images = np.zeros((1, 3, 4, 4), np.float32)
    images[:, 0] = 1
    np.testing.assert_allclose(predict(Sure(), images, tta=True), [[1, 0, 0]], atol=1e-29)
