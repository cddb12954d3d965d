"""What a plan shows to people: a listing, a graph, and how much it computes."""

import math
from typing import Any

from minicnn.compile.layout import Layout
from minicnn.compile.lower import Block, Node, Region


def listing(plan: Layout) -> str:
    """Return the nodes of a plan, phase by phase, with what each reads and writes."""
    scratch, memory = plan.room * 4 / 1024, plan.memory.nbytes / 2**20
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
    """Return the floating-point operations of a replay in convolutions and linear layers; 2 a multiply-add."""
    return sum(map(_flop, plan.nodes)) * plan.batch


def _flop(node: Node) -> int:
    """Operations an image, also where a transform needs fewer."""
    options = node.options
    if node.kind in ("products", "winograd"):
        small = options["x" if options["turned"] else "y"]  # the gradient for the input counts as the convolution
        taps = 9 if node.kind == "winograd" else math.prod(options["weight"].shape[2:])
        return 2 * taps * options["x"].channels * options["y"].channels * small.height * small.width
    if node.kind == "weight_gradient":
        return 2 * options["partial"].size * options["gy"].height * options["gy"].width
    if node.kind in ("winograd_gradient", "winograd_operands"):
        return 2 * 9 * options["x"].channels * math.prod(options["gy"].size)
    if node.kind == "linear_single":
        return 2 * options["weight"].size
    return 2 * options["region"].size if node.kind == "matrix" else 0


def _title(node: Node) -> str:
    return node.options["call"].kernel if node.kind == "call" else node.kind


def _described(thing: Any) -> str:
    """A thing's shape, and where it lives: blocks in scratch or memory, a plain region, an array of its own."""
    if isinstance(thing, Block):
        halo = f"+{thing.halo[0]},{thing.halo[1]}" if any(thing.halo) else ""
        return f"{'scratch' if thing.step < 0 else 'blocks'}{list(thing.size)}{halo}"
    return f"{'plain' if isinstance(thing, Region) else 'array'}{list(thing.shape)}"
