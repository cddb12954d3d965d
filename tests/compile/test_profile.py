"""Where the time of a plan goes: every kernel is there, with its layer and its work, and the replays are real."""

import numpy as np
import pytest

import minicnn
from minicnn import nn, plots
from minicnn.models import LeNet
from shared.runs import Run, batches, same

BATCH = batches(1, (9, 3, 32, 32))
LAYERS = ["conv1", "conv2", "fc1", "fc2", "fc3"]


def plan_of(compiled):
    (plan,) = compiled.plans.values()
    return plan


def test_every_kernel_of_every_layer_is_a_row():
    run = Run(LeNet)
    run.train(BATCH)
    plan = plan_of(run.step)
    profile = plan.profile(*BATCH[0], replays=3)
    rows = {(row.layer, row.kernel): row for row in profile.rows}
    for layer in LAYERS[:2]:
        assert {(layer, "conv2d"), (layer, "conv2d_grad_weight")} <= rows.keys()
    for layer in LAYERS[2:]:
        assert {(layer, "linear"), (layer, "linear_grad_input"), (layer, "linear_grad_bias")} <= rows.keys()
    assert ("conv1", "conv2d_grad_input") not in rows
    assert {"products", "gather_rows"} <= set(rows["conv2", "conv2d"].instructions)
    assert rows["", "sgd_step"].instructions == ("sgd_steps",)
    assert sum(row.share for row in profile.rows) == pytest.approx(1)
    assert sum(row.milliseconds for row in profile.rows) == pytest.approx(profile.milliseconds)
    flop = sum(row.gflops * row.milliseconds for row in profile.rows) * 1e6
    assert flop == pytest.approx(plan.flop())
    assert list(profile.layers()) == ["conv1", "others", *LAYERS[1:]]  # in the order of their first calls
    text = str(profile)
    assert text.splitlines()[0].split() == ["layer", "kernel", "ms", "share", "GFLOP/s", "GB/s", "instructions"]
    assert text.endswith("the mean of 3") and len(text.splitlines()) == len(profile.rows) + 2


def test_the_replays_of_a_training_step_train():
    """As many as were timed, and one before."""
    results = []
    for profiled in (True, False):
        run = Run(LeNet)
        run.train(BATCH)
        if profiled:
            plan_of(run.step).profile(*BATCH[0], replays=2)
        else:
            run.train(BATCH * 3)
        results.append(run.state())
    same(*results)


def test_the_listing_and_the_graph_name_the_layers():
    run = Run(LeNet)
    run.train(BATCH)
    plan = plan_of(run.step)
    lines = str(plan).splitlines()
    assert {line.split()[0] for line in lines} >= set(LAYERS)
    assert all(layer in plan.to_dot() for layer in LAYERS)
    products = next(line for line in lines if " products " in line)
    assert "weight_steps=" in products and "floor=-inf" in products


def test_the_listing_shows_what_is_made_once():
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16)).eval()
    compiled = minicnn.compile(model)
    compiled(BATCH[0][0][:1])
    _, heading, line, *_ = str(plan_of(compiled)).splitlines()
    assert heading == "made once, and again after an edit:"
    assert line.split(maxsplit=1) == ["0", "copy, add, power, affine_terms, scaled, shifted, packed -> region[448]"]


def test_other_inputs_and_a_plan_that_no_longer_holds_are_refused():
    model = LeNet()
    compiled = minicnn.compile(model)
    x = BATCH[0][0]
    compiled(x)
    plan = plan_of(compiled)
    with pytest.raises(ValueError, match=r"profile: expected inputs .*9, 3, 32, 32.*received .*2, 3, 32, 32"):
        plan.profile(x[:2])
    with pytest.raises(ValueError, match="profile: expected at least 1 replay, received 0"):
        plan.profile(x, replays=0)
    model.fc3.weight.data = np.zeros_like(model.fc3.weight.data)
    with pytest.raises(RuntimeError, match="profile: expected the plan that holds"):
        plan.profile(x)


def test_the_picture():
    figure = plots.profile({"conv1": (1.0, 2.0), "fc": (0.5, 0.0)})
    assert plots.to_png(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1", "fc"]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5, 2.0, 0.0]
    with pytest.raises(ValueError, match="at least one layer"):
        plots.profile({})
