"""Whether this checkout computes the same bits as another of the project: compiled training steps and predictions.

    git worktree add ../before COMMIT
    python benchmarks/bits.py ../before

Each network takes 20 compiled steps of SGD from a fixed seed, then predicts batches of 1, 3, 5 and 128 pictures. Of the
losses and of each prediction the SHA-256 is compared, a line each. Without another checkout, the digests are printed.

Exit codes: 0 where all are the same, 1 where some are not, 2 usage.
"""

import argparse
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np

import minicnn
import minicnn.functional as F
from minicnn import Tensor, optim

_STEPS, _BATCHES = 20, (1, 3, 5, 128)
_NETWORKS = {"lenet": 128, "vgg": 128, "resnet20": 128, "resnet18": 24, "vit": 128}
"""By the name of a model, the images of a step."""


def main() -> None:
    """Compare with another checkout, or print the digests of this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="folder of the other checkout")
    parser.add_argument("--model", choices=_NETWORKS, nargs="+", default=list(_NETWORKS))
    arguments = parser.parse_args()
    if arguments.other is None:
        print(json.dumps({name: digests(name) for name in arguments.model}))
        return
    if not (arguments.other / "minicnn").is_dir():
        parser.error(f"expected a folder with minicnn/, received {str(arguments.other)!r}")
    different = 0
    for name in arguments.model:
        now, before = (_digests_of(folder, name) for folder in (Path(__file__).parents[1], arguments.other))
        for what in now:
            different += now[what] != before[what]
            print(f"{name}, {what}: {'the same bits' if now[what] == before[what] else 'OTHER BITS'}", flush=True)
    sys.exit(bool(different))


def _digests_of(checkout: Path, name: str) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, str(Path(__file__).resolve()), "--model", name]
    found: dict[str, dict[str, str]] = json.loads(subprocess.check_output(command, env=environment))
    return found[name]


def digests(name: str) -> dict[str, str]:
    """Return the SHA-256 of the losses of a network, and of its predictions of each batch."""
    minicnn.manual_seed(0)
    rng = np.random.default_rng(0)
    model = minicnn.models.create(name)
    optimizer = optim.SGD(model.parameters(), 0.01, momentum=0.9)

    @minicnn.compile
    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = sha256()
    for _ in range(_STEPS):
        images = rng.standard_normal((_NETWORKS[name], 3, 32, 32), dtype=np.float32)
        losses.update(step(images, rng.integers(0, 10, len(images))).numpy().tobytes())
    found = {f"losses of {_STEPS} steps": losses.hexdigest()}
    model.eval()
    predict = minicnn.compile(model)
    for count in _BATCHES:
        images = rng.standard_normal((count, 3, 32, 32), dtype=np.float32)
        found[f"prediction of {count}"] = sha256(predict(images).numpy().tobytes()).hexdigest()
    return found


if __name__ == "__main__":
    main()
