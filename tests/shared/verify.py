"""A verifier of what the compiler's passes hand on; each check holds for every plan."""

import numpy as np

from minicnn.compile.graph import Block, Region

DERIVED = {
    "added",
    "adjoint",
    "framed",
    "groups",
    "high",
    "inputs",
    "phase",
    "size",
    "sweeps",
    "weight_shape",
    "window",
}
"""What the encoder makes operands of."""


def graph(graph, machine, unique=True):
    """Nodes are complete, and everything is written before it is read; ``unique``: each block is written once."""
    nodes(graph, graph.nodes, machine)
    if unique:
        written = [thing for node in graph.nodes for thing in node.writes if isinstance(thing, Block)]
        assert len(written) == len(set(written)), "a block is written twice"


def nodes(graph, members, machine):
    """Operands are those of the instruction, results are among them, and what is read was written."""
    written = set()
    for node in members:
        assert set(node.results) <= node.operands.keys(), node
        if node.kind in machine.INSTRUCTIONS:
            declared = machine.INSTRUCTIONS[node.kind]
            assert node.operands.keys() <= declared.operands.keys() | DERIVED, node
            assert set(node.results) == set(declared.results), node
        for thing in map(graph.place_of, node.reads):
            if isinstance(thing, Block | Region) and thing not in graph.constants:
                assert thing in written, f"{node.kind} reads {thing} before it is written"
        written.update(map(graph.place_of, node.writes))


def schedule(phases, graph, machine):
    """Odd phases are instructions, even ones calls; in this order too everything is written before it is read."""
    for phase, members in enumerate(phases):
        for node in members:
            assert (node.kind in machine.INSTRUCTIONS or node.kind == "reshape") == phase % 2, (phase, node)
    ordered = [node for members in phases for node in members]
    nodes(graph, ordered, machine)


def allocation(phases, allocation, graph):
    """No reshape is left, and everything lies inside the memory, blocks of scratch in one phase alone."""
    homes = {}
    for phase, members in enumerate(phases):
        for node in members:
            assert node.kind != "reshape"
            for thing in map(graph.place_of, (*node.reads, *node.writes)):
                if isinstance(thing, Block | Region) and thing not in graph.constants:
                    at, step = allocation.places[thing]
                    assert 0 <= at < allocation.length and (step >= 0 or isinstance(thing, Block))
                    homes.setdefault((thing, step), set()).add(phase)
    assert all(len(phases) == 1 for (_, step), phases in homes.items() if step < 0)


def code(code):
    """Every row is an instruction of its node, with its addresses inside the memory."""
    for step in code.steps:
        if not hasattr(step, "rows"):
            continue
        assert len(step.rows) == len(step.nodes) and step.rows.dtype == np.int64
        for row, node in zip(step.rows, step.nodes, strict=True):
            name, declared = next((n, d) for n, d in code.machine.INSTRUCTIONS.items() if d.code == row[0])
            assert name in (node.kind, "frame") or node.kind in ("amx_sums", "matrix", "matrices", "wide_products")
            for operand, words in declared.words(row):
                if declared.operands[operand] in ("view", "place"):
                    outside = operand == "weight"  # a constant
                    assert outside or 0 <= words[0] < code.allocation.length and words[1] >= -1, (name, operand)
            assert code.machine.disassembled(row, code.numbers).startswith(name)
