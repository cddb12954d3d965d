"""Learning-rate schedules against the schedulers of PyTorch, step by step."""

import json
import math

import numpy as np
import pytest

from minicnn.optim import schedules

STEPS = 40
CASES = {  # ours, PyTorch's scheduler and its options; the optimizer starts at 0.4
    "constant": (schedules.constant(0.4), "ConstantLR", {"factor": 1.0}),
    "step": (schedules.step(0.4, 7, 0.5), "StepLR", {"step_size": 7, "gamma": 0.5}),
    "step 1": (schedules.step(0.4, 1), "StepLR", {"step_size": 1}),
    "multi_step": (
        schedules.multi_step(0.4, [3, 10, 30], 0.3),
        "MultiStepLR",
        {"milestones": [3, 10, 30], "gamma": 0.3},
    ),
    "multi_step twice": (schedules.multi_step(0.4, [5, 5]), "MultiStepLR", {"milestones": [5, 5]}),
    "cosine": (schedules.cosine(0.4, STEPS, 0.01), "CosineAnnealingLR", {"T_max": STEPS, "eta_min": 0.01}),
    "one_cycle": (schedules.one_cycle(0.4, STEPS), "OneCycleLR", {"max_lr": 0.4, "total_steps": STEPS}),
    "one_cycle options": (
        schedules.one_cycle(0.4, STEPS, 0.45, 10.0, 100.0),
        "OneCycleLR",
        {"max_lr": 0.4, "total_steps": STEPS, "pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 100.0},
    ),
    "warm-up": (
        schedules.linear_warmup(schedules.constant(0.4), 4),
        "LinearLR",
        {"start_factor": 0.2, "total_iters": 4},
    ),
}


def optimizer(torch):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("name", CASES)
def test_schedule_agrees_with_torch(name, torch):
    schedule, kind, options = CASES[name]
    sgd = optimizer(torch)
    scheduler = getattr(torch.optim.lr_scheduler, kind)(sgd, **options)
    for step in range(STEPS):
        assert schedule(step) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9), step
        if step < STEPS - 1:
            scheduler.step()


def test_piecewise_linear():
    knots = [(0.1, 0.5), (0.25, 2.0), (0.25 + 1e-9, 1.0), (0.9, 0.1)]
    schedule = schedules.piecewise_linear(0.4, STEPS, knots)
    expected = 0.4 * np.interp(np.arange(50) / STEPS, *zip(*knots, strict=True))
    assert [schedule(step) for step in range(50)] == pytest.approx(expected.tolist())
    for wrong in ([], [(0.5, 1.0), (0.5, 2.0)], [(0.5, 1.0), (0.25, 2.0)]):
        with pytest.raises(ValueError, match="piecewise_linear: expected knots with rising shares"):
            schedules.piecewise_linear(0.4, STEPS, wrong)


def test_values_by_hand():
    cosine = schedules.cosine(1.0, 4, 0.2)
    assert [cosine(s) for s in (0, 2, 4, 99)] == pytest.approx([1, 0.6, 0.2, 0.2])
    warm = schedules.linear_warmup(schedules.multi_step(1.0, [2]), 3)
    assert [warm(s) for s in range(7)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.1, 0.1])
    cycle = schedules.one_cycle(1.0, 10)
    assert max(range(10), key=cycle) == 2 and cycle(0) == pytest.approx(0.04) and cycle(9) == pytest.approx(4e-6)
    assert cycle(50) == cycle(9)
    for total in (1, 2, 3):
        assert all(math.isfinite(schedules.one_cycle(1.0, total)(s)) for s in range(total))


METRICS = [5, 4, 3, 3, 2.9999, 3, 3, 3, 2, 2, 2, 2, 2, 2, float("nan"), 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_agrees_with_torch(patience, torch):
    sgd = optimizer(torch)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, factor=0.3, patience=patience, min_lr=0.004)
    ours = schedules.ReduceOnPlateau(0.4, factor=0.3, patience=patience, min_lr=0.004)
    for epoch, metric in enumerate(METRICS):
        if epoch == 9:  # a stop and a resume
            state = json.loads(json.dumps(ours.state_dict()))
            ours = schedules.ReduceOnPlateau(9.0, factor=0.3, patience=patience, min_lr=0.004)
            ours.load_state_dict(state)
        ours.observe(metric)
        theirs.step(metric)
        assert ours(epoch) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9), epoch


def test_a_fresh_plateau_round_trip():
    fresh = schedules.ReduceOnPlateau(0.4)
    other = schedules.ReduceOnPlateau(0.1)
    other.load_state_dict(json.loads(json.dumps(fresh.state_dict(), allow_nan=False)))
    assert (other.lr, other.best, other.bad_epochs) == (0.4, np.inf, 0)


@pytest.mark.parametrize(
    "action, message",
    [
        (lambda: schedules.step(1.0, 0), "step: expected step_size from 1, received 0"),
        (lambda: schedules.cosine(1.0, 0), "cosine: expected total_steps from 1, received 0"),
        (lambda: schedules.one_cycle(1.0, -1), "one_cycle: expected total_steps from 1, received -1"),
        (lambda: schedules.linear_warmup(schedules.constant(1.0), -1), "linear_warmup: expected warmup_steps from 0"),
        (
            lambda: schedules.ReduceOnPlateau(1.0, factor=1.0),
            r"ReduceOnPlateau: expected factor in \(0, 1\), received 1.0",
        ),
    ],
)
def test_errors(action, message):
    with pytest.raises(ValueError, match=message):
        action()
