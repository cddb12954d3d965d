"""What threads do at once has the bits of what they do alone: predicting, recording, training, loading, serving."""

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import minicnn
import minicnn.functional as F
from minicnn import Tensor, backend, nn, optim, random
from minicnn.models import LeNet
from minicnn.models.vgg import VGG
from minicnn.nn.module import evaluating
from minicnn.training.evaluation import predict as probabilities
from minicnn.training.explain import grad_cam
from shared.runs import Run, batches


def small_vgg():
    return VGG(widths=(4, 6), dropout=(0.2, 0.3))


def at_once(*functions):
    """Run functions in a thread each, which begin together, and return what they return."""
    together = threading.Barrier(len(functions))

    def begin(function):
        together.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(begin, function) for function in functions]]


def pictures(count, size):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((size, 3, 32, 32), dtype=np.float32) for _ in range(count)]


def eager(model):
    def predict(x):
        with evaluating():
            return model(Tensor(x))

    return predict


@pytest.mark.parametrize("build", [LeNet, small_vgg], ids=["lenet", "vgg"])
@pytest.mark.parametrize("kind", ["compiled", "eager"])
@pytest.mark.parametrize("sizes", [(1,), (9,), (1, 3, 5, 9, 33)], ids=str)
def test_predictions(build, kind, sizes):
    model = build()
    predict = minicnn.compile(model) if kind == "compiled" else eager(model)
    requests = [x for size in sizes for x in pictures(4, size)]
    alone = [predict(x).numpy() for x in requests]

    def ask(first):
        indices = [(first + i) % len(requests) for i in range(40)]
        return all(predict(requests[i]).numpy().tobytes() == alone[i].tobytes() for i in indices)

    assert at_once(*(lambda first=first: ask(first) for first in range(8))) == [True] * 8


def test_the_first_calls_of_several_threads():
    """No thread waits for ever, and a plan is recorded once."""
    model, requests = LeNet(), pictures(3, 5)
    alone = [minicnn.compile(model)(x).numpy() for x in requests]
    for _ in range(5):
        predict = minicnn.compile(model)
        answers = at_once(*(lambda x=x, predict=predict: predict(x).numpy() for x in requests * 2))
        assert [a.tobytes() for a in answers] == [a.tobytes() for a in alone * 2]
        assert len(predict.plans) == 1


def test_recording_beside_everything():
    """While a thread records, others predict, train and draw: none of them meets the recorder."""
    model, data = LeNet(), batches(6, (9, 3, 32, 32))
    alone_answers = [eager(model)(x).numpy() for x, _ in data]
    alone_training = Run(small_vgg, compiled=False).train(data)
    stop = threading.Event()

    def record():
        count = 0
        while not stop.is_set() or not count:
            other = LeNet()
            optimizer = optim.SGD(other.parameters(), 0.1, momentum=0.9)

            def step(x, y, other=other, optimizer=optimizer):
                loss = F.cross_entropy(other(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss

            minicnn.compile(step)(*data[0])
            count += 1
        return count

    def predict():
        try:
            return [eager(model)(x).numpy() for x, _ in data for _ in range(3)][::3]
        finally:
            stop.set()

    run = Run(small_vgg, compiled=False)  # its masks are drawn from a stream that nobody else draws from
    recorded, answers, trained = at_once(record, predict, lambda: run.train(data))
    assert recorded > 0
    assert [a.tobytes() for a in answers] == [a.tobytes() for a in alone_answers]
    assert [a.tobytes() for a in trained] == [a.tobytes() for a in alone_training]


def test_recording_leaves_the_draws_of_others(monkeypatch):
    """A record that is made while others draw neither takes their keys nor gives them twice."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5))
    state = random.get_state()

    def step(x):
        thread = threading.Thread(target=random.default_generator.key)
        thread.start()
        thread.join()
        return layers(x)

    compiled = minicnn.compile(step)
    compiled(np.ones((3, 12), dtype=np.float32))
    random.default_generator.set_state(state)
    keys = [random.default_generator.key() for _ in range(3)]
    random.default_generator.set_state(state)
    compiled(np.ones((3, 12), dtype=np.float32))
    assert random.default_generator.key() == keys[1]  # one for the replay, none for the record


def test_keys_are_drawn_once():
    keys = at_once(*([lambda: [random.default_generator.key() for _ in range(2000)]] * 4))
    assert len({key for some in keys for key in some}) == 8000


@pytest.mark.parametrize("compiled", [True, False])
def test_training_beside_training(compiled):
    """Two networks with their own optimizers and rates; what a replay reads anew is its own."""
    data = batches(8, (9, 3, 32, 32))
    optimizers = [
        lambda p: optim.SGD(p, 0.05, momentum=0.9),
        lambda p: optim.AdamW(p, 1e-3),
        lambda p: optim.SGD(p, 0.01, momentum=0.5, nesterov=True),
    ]

    def train(run):
        results = []
        for number, (x, y) in enumerate(data):
            run.optimizer.lr *= 0.9 if number % 2 else 1.0
            results += [t.numpy() for t in run.step(Tensor(x), Tensor(y))]
        return [a.tobytes() for a in [*results, *run.state()]]

    alone = [train(Run(LeNet, optimizer, compiled=compiled)) for optimizer in optimizers]
    runs = [Run(LeNet, optimizer, compiled=compiled) for optimizer in optimizers]
    assert at_once(*(lambda run=run: train(run) for run in runs)) == alone


def test_one_training_step_from_several_threads():
    """Its calls queue up: every step is whole, and counted once."""
    ((x, y),) = batches(1, (9, 3, 32, 32))
    run, alone = Run(LeNet), Run(LeNet)
    at_once(*([lambda: [run.step(Tensor(x), Tensor(y)) for _ in range(6)]] * 4))
    for _ in range(24):
        alone.step(Tensor(x), Tensor(y))
    assert [a.tobytes() for a in run.state()] == [a.tobytes() for a in alone.state()]


def test_predictions_leave_a_module_as_it_is():
    """Evaluation from several threads beside a model in training: modes, statistics and gradients stay."""
    model, requests = small_vgg(), pictures(4, 5)
    state = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    frozen = [model[0] if isinstance(model, nn.Sequential) else next(iter(model.children()))]
    frozen[0].eval()
    modes = [module.training for module in model.modules()]
    expected = [probabilities(model, x) for x in requests]
    seen = []

    def ask():
        return [probabilities(model, x).tobytes() for _ in range(5) for x in requests]

    def explain():
        return [grad_cam(model, Tensor(requests[0]), [0] * 5).tobytes() for _ in range(3)]

    def watch():
        seen.extend([m.training for m in model.modules()] for _ in range(200))

    *answers, maps, _ = at_once(ask, ask, ask, explain, watch)
    assert answers == [[e.tobytes() for _ in range(5) for e in expected]] * 3 and len(set(maps)) == 1
    assert all(found == modes for found in seen) and [m.training for m in model.modules()] == modes
    assert all(tensor.numpy().tobytes() == state[name].tobytes() for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_loading_weights_beside_predictions():
    model, requests = small_vgg(), pictures(3, 9)
    predict = minicnn.compile(model)
    alone = [predict(x).numpy().tobytes() for x in requests]
    weights = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}

    def load():
        for _ in range(40):
            model.load_state_dict(weights)

    def ask():
        return [predict(x).numpy().tobytes() for _ in range(20) for x in requests]

    *answers, _ = at_once(ask, ask, load)
    assert answers == [alone * 20] * 2


def test_a_backend_is_used_by_its_own_context():
    model, (x,) = LeNet(), pictures(1, 3)
    alone = eager(model)(x).numpy().tobytes()
    stop, names = threading.Event(), []

    def use():
        while not stop.is_set():
            with backend.use("reference"):
                names.append(backend.default().name)
                eager(model)(x)

    def ask():
        try:
            return {eager(model)(x).numpy().tobytes() for _ in range(30)} | {backend.default().name}
        finally:
            stop.set()

    _, found = at_once(use, ask)
    assert set(names) == {"reference"} and found == {alone, "numpy"}


def test_a_failure_in_one_thread_is_its_own():
    """A replay that raises gives its memory back; the others go on."""
    ((x, y),) = batches(1, (9, 3, 32, 32))
    model = LeNet()
    loss = minicnn.compile(lambda x, y: F.cross_entropy(model(x), y))
    alone = loss(x, y).item()

    def fail():
        for _ in range(20):
            with pytest.raises(ValueError, match="expected labels"):
                loss(x, y + 10)

    def ask():
        return {loss(x, y).item() for _ in range(20)}

    assert at_once(fail, ask, fail, ask)[1::2] == [{alone}] * 2


def test_a_threaded_server():
    """Six clients of one model over loopback, each with requests of several sizes."""
    model = small_vgg()
    predict = minicnn.compile(model)
    requests = [x for size in (1, 2, 5) for x in pictures(2, size)]
    alone = [predict(x).numpy().tolist() for x in requests]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            x = np.frombuffer(self.rfile.read(int(self.headers["Content-Length"])), dtype=np.float32)
            answer = json.dumps(predict(x.reshape(-1, 3, 32, 32)).tolist()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # its end waits for all, so that no socket outlives the test

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"

        def client():
            answers = []
            for x in requests:
                with urllib.request.urlopen(urllib.request.Request(address, data=x.tobytes())) as response:
                    answers.append(json.loads(response.read()))
            return answers

        found = at_once(*([client] * 6))
        server.shutdown()
    assert found == [alone] * 6
