"""A guard belongs into the main interpreter."""

from __future__ import annotations

from anymate_guard.sandbox import Sandbox
from tests.support.bots import run_bot

from .bots import finished, run


def test_sub_interpreter(sandbox: Sandbox) -> None:
    """A guard in a sub-interpreter is refused before anything is sent."""
    text = """
        import importlib
        number = sys.version_info >= (3, 13)
        interpreters = importlib.import_module("_interpreters" if number else "_xxsubinterpreters")
        program = '''
        from anymate_guard import anymate_run
        try:
            with anymate_run("k"):
                print("inside")
        except RuntimeError as error:
            print(str(error)[:46], flush=True)
        '''
        sub = interpreters.create()
        (interpreters.exec if number else interpreters.run_string)(sub, __import__("textwrap").dedent(program))
        interpreters.destroy(sub)
        """
    # Not measured: coverage can't be in a sub-interpreter.
    assert run(text, COVERAGE_PROCESS_CONFIG="") == (0, "anymate_run was entered in a sub-interpreter, \n", "")
    assert sandbox.requests() == []


def test_python_without_sub_interpreters(sandbox: Sandbox) -> None:
    """On a Python that has no sub-interpreters, every guard is in the main one."""
    done = run_bot("""
        import sys
        sys.modules["_interpreters"] = sys.modules["_xxsubinterpreters"] = None
        from anymate_guard import anymate_run
        with anymate_run("k") as run:
            run.add_entries(3)
        """)
    assert (done.returncode, done.stderr) == (0, "")
    assert finished(sandbox) == [(3, None)]
