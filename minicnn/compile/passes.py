"""The passes from a recorded program to a plan, each a function from data to data."""

from typing import Any

from minicnn.backend import package
from minicnn.compile.allocate import allocate
from minicnn.compile.channels import channels
from minicnn.compile.constants import Store, constant_nodes
from minicnn.compile.encode import encode
from minicnn.compile.fuse import fuse
from minicnn.compile.graph import Graph
from minicnn.compile.lower import lower
from minicnn.compile.plan import Plan
from minicnn.compile.program import Program
from minicnn.compile.rules import interleaved
from minicnn.compile.schedule import rematerialise, schedule

_FEW = 8
"""Images up to which the lanes of a prediction hold channels, if that leaves no convolution or product to calls."""


def compiled(program: Program, store: Store) -> Plan:
    """Return the plan that replays a program; ``machine`` is :mod:`minicnn.backend.cpu.machine`."""
    machine = package("numpy").machine
    graph = lowered(program, machine)
    graph = fuse(graph, machine, constant_nodes(graph, machine))
    graph, constants = store.take_out(graph, constant_nodes(graph, machine), machine)
    phases = rematerialise(schedule(graph, machine))
    phases, allocation = allocate(phases, graph, machine)
    return Plan(encode(phases, allocation, graph, constants, machine))


def lowered(program: Program, machine: Any) -> Graph:
    """Lower in the layout for few images, where that suits, or in the one for many."""
    if program.batch <= _FEW:
        graph = lower(program, machine, channels(machine.LANES, program.batch))
        is_whole = not any(node.kind == "call" and node.call and node.call.flop() for node in graph.nodes)
        if is_whole and any(node.kind == "channel_products" for node in graph.nodes):
            return graph
    return lower(program, machine, interleaved(machine.LANES))
