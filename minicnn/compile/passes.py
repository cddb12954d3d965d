"""The passes from a recorded program to a plan, each a function from data to data."""

from typing import Any

from minicnn.backend import get
from minicnn.compile.allocate import allocate
from minicnn.compile.encode import encode
from minicnn.compile.fuse import fuse
from minicnn.compile.graph import Graph
from minicnn.compile.lower import lower
from minicnn.compile.plan import Plan
from minicnn.compile.program import Program
from minicnn.compile.rules import SINGLE, interleaved
from minicnn.compile.schedule import rematerialise, schedule

_FEW = 4
"""Images up to which a prediction takes them one by one ..."""
_HEAVY = {"conv2d", "linear", "conv2d_grad_input", "conv2d_grad_weight", "linear_grad_input", "linear_grad_weight"}
"""... if that leaves none of these to calls."""


def compiled(program: Program) -> Plan:
    """Return the plan that replays a program."""
    machine = get("numpy").kernels.machine
    graph = fuse(_lowered(program, machine), machine)
    phases = rematerialise(schedule(graph, machine))
    phases, allocation = allocate(phases, graph, machine)
    return Plan(encode(phases, allocation, graph, machine))


def _lowered(program: Program, machine: Any) -> Graph:
    """Lower in the layout for few images, where that takes all heavy calls, or in the one for many."""
    if program.batch <= _FEW:
        graph = lower(program, machine, SINGLE)
        if not any(node.kind == "call" and node.call.kernel in _HEAVY for node in graph.nodes if node.call):
            return graph
    return lower(program, machine, interleaved(machine.LANES))
