"""Pictures of a run, drawn from plain arrays on figures of their own: matplotlib's global state stays untouched."""

from minicnn.plots.confusion import confusion_matrix
from minicnn.plots.curves import curves, learning_rates, runs
from minicnn.plots.network import feature_maps, filters, overlays
from minicnn.plots.pictures import before_after, in_turn, mistakes, probability_bars, samples
from minicnn.plots.profile import profile
from minicnn.plots.style import BLUE, FAINT, GREEN, GRID, INK, ORANGE, RED, to_png

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "GRID",
    "INK",
    "ORANGE",
    "RED",
    "before_after",
    "confusion_matrix",
    "curves",
    "feature_maps",
    "filters",
    "in_turn",
    "learning_rates",
    "mistakes",
    "overlays",
    "probability_bars",
    "profile",
    "runs",
    "samples",
    "to_png",
]
