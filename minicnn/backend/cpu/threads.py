"""The threads of the kernels: how many, for one call at a time, and none in a forked process.

Numba lets compiled code call ``numba_parallel_for``, with a function and the pieces of work for it, and finds that by
its name. Here the name stands for a few instructions that decide before each loop whether Numba's team of threads takes
the pieces, and how many of them, or whether the calling thread works through them itself. It does where

- one thread is asked for;
- the team is at work for another thread of this process: more than one team would wait for each other's processors,
  and of Numba's teams not all can be called by two threads at once;
- the process was forked from one that had started the team: GNU OpenMP has no threads in the child, and Numba would
  end it.

The pieces are the same in each case, and so are the bits of the results.
"""

import ctypes
import os
import sys

import numba
from llvmlite import binding as llvm
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel

_PARALLEL_FOR = "numba_parallel_for"
NUMBER = "minicnn_num_threads"
"""Name of a function of compiled code, without arguments: :func:`get_num_threads`, as int64."""

YIELD = "minicnn_yield"
"""Name of a function of compiled code, without arguments, that lets another thread have the processor."""

_SPINS = "GOMP_SPINCOUNT", "10000"

_number = ctypes.c_int32(numba.config.NUMBA_NUM_THREADS)
_started: object = None
_forked = False  # from a process that had started the team

_DECISION = """
@busy = internal global i32 0

define i64 @number() {{
  %number = load i32, i32* inttoptr (i64 {number} to i32*)
  %wide = zext i32 %number to i64
  ret i64 %wide
}}

define void @run(i8* %work, i8* %arrays, i8* %pieces, i8* %steps, i8* %data, i64 %axes, i64 %count, i32 %wanted) {{
  %most = load i32, i32* inttoptr (i64 {number} to i32*)
  %fewer = icmp slt i32 %most, %wanted
  %threads = select i1 %fewer, i32 %most, i32 %wanted
  %one = icmp eq i32 %threads, 1
  br i1 %one, label %alone, label %ask
ask:
  %answer = cmpxchg i32* @busy, i32 0, i32 1 acquire monotonic
  %free = extractvalue {{ i32, i1 }} %answer, 1
  br i1 %free, label %team, label %alone
team:
  call void inttoptr (i64 {team} to void (i8*, i8*, i8*, i8*, i8*, i64, i64, i32)*)(
    i8* %work, i8* %arrays, i8* %pieces, i8* %steps, i8* %data, i64 %axes, i64 %count, i32 %threads)
  store atomic i32 0, i32* @busy release, align 4
  ret void
alone:
  %function = bitcast i8* %work to void (i8*, i8*, i8*, i8*)*
  call void %function(i8* %arrays, i8* %pieces, i8* %steps, i8* %data)
  ret void
}}
"""


def start() -> None:
    """Start Numba's team of threads and stand before it; to be called before parallel code is linked."""
    global _started
    with global_compiler_lock:
        if _started is None:
            _started = _stand_before_the_team()


def _start_the_team() -> None:
    """Let Numba start its threads, which wait for work for a tenth of a millisecond before they sleep.

    Unless a user says how. GNU OpenMP's own choice is to spin for milliseconds. Beside other programs that takes the
    processor from the thread that is waited for, and a step of some milliseconds takes a hundred.
    """
    wanted = {} if {"OMP_WAIT_POLICY", _SPINS[0]} & os.environ.keys() else dict([_SPINS])
    os.environ |= wanted  # the library reads it when it is loaded
    try:
        parallel._launch_threads()
    finally:
        for name in wanted:
            del os.environ[name]


def _stand_before_the_team() -> object:
    """Return what has the code, and must be kept."""
    _start_the_team()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    team = llvm.address_of_symbol(_PARALLEL_FOR)
    module = llvm.parse_assembly(_DECISION.format(number=ctypes.addressof(_number), team=team))
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(jit=True))
    engine.finalize_object()
    llvm.add_symbol(_PARALLEL_FOR, engine.get_function_address("run"))
    llvm.add_symbol(NUMBER, engine.get_function_address("number"))
    if sys.platform == "win32":
        give_way = ctypes.windll.kernel32.SwitchToThread
    else:
        give_way = ctypes.CDLL(None).sched_yield
    llvm.add_symbol(YIELD, ctypes.cast(give_way, ctypes.c_void_p).value)
    return engine


def set_num_threads(count: int) -> None:
    """Use ``count`` threads in the whole process from now on, at most as many as there are processors."""
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ValueError(f"set_num_threads: expected 1 to {most}, received {count}")
    _number.value = 1 if _forked else count


def get_num_threads() -> int:
    """Return the number of threads in use: 1 in a process that was forked from one that had started its threads."""
    return _number.value


def _go_on_alone() -> None:
    global _forked
    if _started is not None:
        _forked, _number.value = True, 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_go_on_alone)
