"""The passes from a recorded program to a plan, each a function from data to data."""

from typing import Any

from minicnn.backend import package
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
"""Images up to which a prediction takes them one by one, if that leaves no convolution or product to calls."""


def compiled(program: Program) -> Plan:
    """Return the plan that replays a program; ``machine`` is :mod:`minicnn.backend.cpu.machine`."""
    machine = package("numpy").machine
    graph = fuse(_lowered(program, machine), machine)
    phases = rematerialise(schedule(graph, machine))
    phases, allocation = allocate(phases, graph, machine)
    return Plan(encode(phases, allocation, graph, machine))


def _lowered(program: Program, machine: Any) -> Graph:
    """Lower in the layout for few images, where that suits, or in the one for many."""
    if program.batch <= _FEW:
        graph = lower(program, machine, SINGLE)
        if not any(node.kind == "call" and node.call and node.call.flop() for node in graph.nodes):
            return graph
    return lower(program, machine, interleaved(machine.LANES))
