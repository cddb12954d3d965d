"""What a plan shows to people: a listing, a graph, and how much it computes."""

import math
from typing import Any

from minicnn.compile.layout import Layout
from minicnn.compile.lower import Block, Node, Region
from minicnn.compile.program import Call


def listing(plan: Layout) -> str:
    """Return the nodes of a plan, phase by phase, with what each reads and writes."""
    scratch, memory = plan.room * 4 / 1024, plan.length * 4 / 2**20
    lines = [
        f"plan: {plan.batch} images in {plan.count} blocks of {plan.lanes}, {flop(plan) / 1e6:,.1f} MFLOP, "
        f"memory {memory:,.1f} MiB, of which {scratch:,.0f} KiB scratch a thread"
    ]
    for phase in sorted({node.phase for node in plan.nodes}):
        lines.append(f"phase {phase}: " + ("the machine, block by block" if phase % 2 else "calls from Python"))
        for node in plan.nodes:
            if node.phase == phase:
                ends = (" ".join(map(_described, things)) for things in (node.reads, node.writes))
                lines.append(f"  {_title(node):<20} {' -> '.join(ends)}")
    return "\n".join(lines)


def graph(plan: Layout) -> str:
    """Return a plan as a graph in the DOT language."""
    lines = ["digraph plan {", "  rankdir=TB; node [shape=box, fontname=monospace];"]
    made: dict[Any, int] = {}
    edges = []
    phases: dict[int, list[str]] = {}
    for index, node in enumerate(plan.nodes):
        phases.setdefault(node.phase, []).append(f'n{index} [label="{_title(node)}"];')
        edges += [f'  n{made[r]} -> n{index} [label="{_described(r)}"];' for r in node.reads if r in made]
        made.update((w, index) for w in node.writes)
    for phase, members in sorted(phases.items()):
        lines.append(f'  subgraph cluster_{phase} {{ label="phase {phase}"; {" ".join(members)} }}')
    return "\n".join([*lines, *edges, "}"])


def flop(plan: Layout) -> int:
    """Return the floating-point operations of a replay in convolutions and linear layers; 2 a multiply-add.

    Also where a transform needs fewer.
    """
    return sum(map(_flop, plan.program.calls))


def _flop(call: Call) -> int:
    if call.kernel in ("conv2d", "linear"):
        (y,), weight = call.outputs, call.arguments[1].shape
    elif call.kernel in ("conv2d_grad_input", "linear_grad_input"):
        y, weight = call.arguments[0], call.arguments[1].shape
    elif call.kernel in ("conv2d_grad_weight", "linear_grad_weight"):
        y, weight = call.arguments[0], call.outputs[0].shape
    else:
        return 0
    return 2 * math.prod(weight) * math.prod(y.shape) // weight[0]


def _title(node: Node) -> str:
    return node.options["call"].kernel if node.kind == "call" else node.kind


def _described(thing: Any) -> str:
    """A thing's shape, and where it lives: blocks in scratch or memory, a plain region, an array of its own."""
    if isinstance(thing, Block):
        halo = f"+{thing.halo[0]},{thing.halo[1]}" if any(thing.halo) else ""
        points = f" x {thing.points}" if thing.points > 1 else ""
        return f"{'scratch' if thing.step < 0 else 'blocks'}{list(thing.size)}{halo}{points}"
    return f"{'plain' if isinstance(thing, Region) else 'array'}{list(thing.shape)}"
