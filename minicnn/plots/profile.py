"""Where the time of a step goes."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from minicnn.plots.style import BLUE, FAINT, ORANGE, WIDTH, legend_below, new_figure, plain, short


def profile(layers: Mapping[str, tuple[float, float]], title: str = "Time of a training step") -> Figure:
    """A bar for each layer, forward and backward, in milliseconds; on the right its share of the whole.

    layers: by name, in order, milliseconds forward and backward.
    """
    if not layers:
        raise ValueError("profile: expected at least one layer, received none")
    parts = np.array(list(layers.values()), dtype=float)
    sums = parts.sum(axis=1)
    places = np.arange(len(layers))
    figure = new_figure(WIDTH, 1.5 + 0.24 * len(layers))
    axes = figure.subplots()
    axes.barh(places, parts[:, 0], color=BLUE, height=0.7, label="forward")
    axes.barh(places, parts[:, 1], left=parts[:, 0], color=ORANGE, height=0.7, label="backward")
    for place, whole in enumerate(sums.tolist()):
        share = whole / max(sums.sum(), 1e-12)
        axes.text(whole, place, f" {whole:.2f} ms  {share:.0%}", va="center", fontsize=8, color=FAINT)
    plain(axes, f"{title}: {sums.sum():.2f} ms", "milliseconds")
    axes.grid(axis="y", visible=False)
    axes.set_yticks(places, [short(name, 40) for name in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(0, max(sums.max(), 1e-9) * 1.15)
    legend_below(figure, *axes.get_legend_handles_labels())
    return figure
