"""What a plan shows to people: a listing, a graph, and how much it computes."""

from typing import Any

from minicnn.compile.encode import Code, MachineProgram
from minicnn.compile.graph import Block, Node, Region

Line = tuple[str] | tuple[str, str, str]
"""Of a plan: a heading, or the layer, what is done, and with what."""


def summary(code: Code, flop: int) -> str:
    """Return one line about a plan: its batch, work and memory."""
    allocation, graph = code.allocation, code.graph
    return (
        f"plan: {graph.program.batch} images in {graph.count} blocks of {graph.layout.images}, {flop / 1e6:,.1f} "
        f"MFLOP, memory {allocation.length * 4 / 2**20:,.1f} MiB, of which {allocation.room * 4 / 1024:,.0f} KiB "
        "scratch a thread"
    )


def lines(code: Code) -> list[Line]:
    """Return what a plan keeps, then its steps phase by phase: calls from Python, instructions with their operands."""
    found: list[Line] = []
    if code.constants.chains:
        found.append(("made once, and again after an edit:",))
    for nodes in code.constants.chains:
        made = " ".join(_described(code, thing) for thing in nodes[-1].writes)
        found.append((_layer(nodes[-1]), ", ".join(map(_title, nodes)), f"-> {made}"))
    for step in code.steps:
        if isinstance(step, MachineProgram):
            found.append((f"the machine, over {step.images} images in blocks:",))
            for row, node in zip(step.rows, step.nodes, strict=True):
                name, _, operands = code.machine.disassembled(row, code.numbers).partition(" ")
                found.append((f"  {_layer(node)}", name, operands))
        else:
            ends = (" ".join(_described(code, thing) for thing in things) for things in (step.reads, step.writes))
            found.append((_layer(step), _title(step), " -> ".join(ends)))
    return found


def dot(code: Code) -> str:
    """Return a plan as a graph in the DOT language."""
    lines = ["digraph plan {", "  rankdir=TB; node [shape=box, fontname=monospace];"]
    made: dict[Any, int] = {}
    edges = []
    index = 0
    for phase, nodes in enumerate(code.phases):
        members = []
        for node in nodes:
            members.append(f'n{index} [label="{_layer(node)}\\n{_title(node)}"];')
            reads = [code.graph.place_of(thing) for thing in node.reads]
            edges += [f'  n{made[r]} -> n{index} [label="{_described(code, r)}"];' for r in reads if r in made]
            made.update((code.graph.place_of(w), index) for w in node.writes)
            index += 1
        if members:
            lines.append(f'  subgraph cluster_{phase} {{ label="phase {phase}"; {" ".join(members)} }}')
    return "\n".join([*lines, *edges, "}"])


def _layer(node: Node) -> str:
    return node.call.layer if node.call else ""


def _title(node: Node) -> str:
    return node.call.kernel if node.kind == "call" and node.call else node.kind


def _described(code: Code, thing: Any) -> str:
    """A thing's shape, and where it lives: blocks in scratch or memory, a region, an array of its own."""
    if isinstance(thing, Block):
        halo = code.allocation.halos[thing]
        around = f"+{halo[0]},{halo[1]}" if halo != (0, 0) else ""
        points = f" x {thing.points}" if thing.points > 1 else ""
        where = "scratch" if code.allocation.places[thing].step < 0 else "blocks"
        return f"{where}{list(thing.size)}{around}{points}"
    return f"{'region' if isinstance(thing, Region) else 'array'}{list(thing.shape)}"
