"""The number of threads, put back after a test, and a verifier of every plan that a test makes."""

import pytest

from minicnn import backend
from minicnn.compile import passes
from shared import verify


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Check what each pass of the compiler returns."""
    seen = {}

    def scheduled(phases, graph, machine):
        seen[id(phases)] = phases, graph
        verify.schedule(phases, graph, machine)

    def watch(name, check):
        run = getattr(passes, name)

        def checked(*arguments):
            result = run(*arguments)
            check(result, *arguments)
            return result

        monkeypatch.setattr(passes, name, checked)

    watch("lower", lambda graph, program, machine, layout: verify.graph(graph, machine))
    watch("fold", lambda graph, _, constant: verify.graph(graph, machine))
    watch("fuse", lambda graph, _, machine, constant: verify.graph(graph, machine, unique=False))
    watch("schedule", scheduled)
    machine = backend.package("numpy").machine
    watch("rematerialise", lambda result, phases: verify.schedule(result, seen.pop(id(phases))[1], machine))
    watch("allocate", lambda result, phases, graph, machine: verify.allocation(*result, graph))
    watch("encode", lambda code, *_: verify.code(code))


@pytest.fixture
def threads():
    """Set the number of threads; where there are not that many, the test is skipped."""
    before = backend.get_num_threads()

    def use(count):
        try:
            backend.set_num_threads(count)
        except ValueError:
            pytest.skip("one processor")

    yield use
    backend.set_num_threads(before)
