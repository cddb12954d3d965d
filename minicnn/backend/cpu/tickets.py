"""Tickets: how threads share the instructions of one program.

Each instruction is a piece of the work, and says after how many others it comes. A thread draws the number of the next
instruction, waits until those before it are done, and does it. So nobody waits for a thread that has no instruction in
hand: one that the system lets run late finds less to do. What an instruction computes depends on nothing but itself,
and so the bits do not depend on the threads.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnn.backend.cpu.jit import helper
from minicnn.backend.cpu.threads import YIELD

APART = 16
"""Numbers between two counters, so that each has a cache line of its own."""
_PATIENCE = 2000  # how often a thread looks before it lets others run
_PAUSE = {"x86_64": "llvm.x86.sse2.pause", "i686": "llvm.x86.sse2.pause"}.get(llvm.get_process_triple().split("-")[0])

_let_others_run = types.ExternalFunction(YIELD, types.int32())


@intrinsic
def _draw(typing, counter):
    """Add 1 to the number at an address, and return what it was."""

    def codegen(context, builder, signature, arguments):
        integer = ir.IntType(64)
        place = builder.inttoptr(arguments[0], integer.as_pointer())
        return builder.atomic_rmw("add", place, integer(1), "acq_rel")

    return types.int64(counter), codegen


@intrinsic
def _read(typing, counter):
    """The number at an address, as other threads have left it."""

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(counter), codegen


@intrinsic
def _pause(typing):
    """Tell the processor that this thread waits."""

    def codegen(context, builder, signature, arguments):
        if _PAUSE:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, _PAUSE), [])
        return context.get_dummy_value()

    return types.void(), codegen


@helper
def next_ticket(tickets):
    """Return the number of the next instruction; ``tickets``: the address of the counters."""
    return _draw(tickets)


@helper
def wait(tickets, others):
    """Return as soon as so many instructions are done."""
    looks = 0
    while _read(tickets + 8 * APART) < others:
        looks += 1
        if looks % _PATIENCE == 0:
            _let_others_run()
        else:
            _pause()


@helper
def done(tickets):
    """Count an instruction that is done."""
    _draw(tickets + 8 * APART)
