"""The KPI file of `anymate-guard exec`, in every state that a command may leave it in; and `anymate-guard record`."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymate_guard import Run
from anymate_guard._commands.exec.kpi_file import kpi_file, kpis_of
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until

from .support import ended, journal, needs_sh, recorded, started

pytestmark = needs_sh

WRITTEN_OVER = "anymate-guard exec: ANYMATE_KPI_FILE was overwritten or replaced, so KPIs may be missing"


def run(script: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `exec`, in which `record` is `anymate-guard record`."""
    record = f'record() {{ "{sys.executable}" -m anymate_guard record "$@"; }}\n'
    return ended("exec", *options, "jobs", "--", "sh", "-c", record + script, **environ)


@pytest.mark.parametrize(
    "script",
    [
        "for n in 3 4 51; do echo entries=$n > $ANYMATE_KPI_FILE; done",
        "echo entries=51 > new; mv new $ANYMATE_KPI_FILE",
        ": > $ANYMATE_KPI_FILE; echo entries=51 >> $ANYMATE_KPI_FILE",
        "rm $ANYMATE_KPI_FILE; echo entries=51 >> $ANYMATE_KPI_FILE",
        "printf entries=51 | dd of=$ANYMATE_KPI_FILE conv=notrunc status=none; truncate -s 10 $ANYMATE_KPI_FILE",
    ],
    ids=["overwritten", "replaced", "truncated", "made anew", "written over"],
)
def test_not_appended(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A file that was overwritten, truncated or replaced is warned of once; what is in it now counts."""
    monkeypatch.chdir(tmp_path)
    done = run(script)
    assert done.returncode == 0
    assert [line[: len(WRITTEN_OVER)] for line in done.stderr.splitlines()] == [WRITTEN_OVER]
    assert "append to it, with >> or with `anymate-guard record entries=3`" in done.stderr
    assert recorded(sandbox) == [(51, None)]


def test_replaced_by_a_pipe(sandbox: Sandbox) -> None:
    """What goes into a pipe that the command puts in the place of its KPI file is not read: that is warned of."""
    pipe = "rm $ANYMATE_KPI_FILE; mkfifo $ANYMATE_KPI_FILE; exec 3<> $ANYMATE_KPI_FILE; echo entries=4 >&3"
    done = run(f"echo entries=3 >> $ANYMATE_KPI_FILE; {pipe}; exit 3")
    assert done.returncode == 3
    assert [line[: len(WRITTEN_OVER)] for line in done.stderr.splitlines()] == [WRITTEN_OVER]
    assert recorded(sandbox) == [(3, None)]


def test_overwritten_step_by_step(sandbox: Sandbox) -> None:
    """Each content that was read in time counts, though every one is overwritten by the next."""
    script = "; ".join(f"echo entries={n} > $ANYMATE_KPI_FILE; echo; read line" for n in (3, 4, 51))
    with started("exec", "jobs", "--", "sh", "-c", script) as process:
        assert process.stdin is not None
        for total in (3, 7, 58):
            until(lambda total=total: [row for row in journal() if row["entries"] == total])  # type: ignore[misc]
            process.stdin.write("go on\n")
            process.stdin.flush()
        _, err = process.communicate(timeout=LONGEST)
    assert err.count(WRITTEN_OVER) == 1
    assert recorded(sandbox) == [(58, None)]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no such file elsewhere")
def test_file_that_can_not_be_read(sandbox: Sandbox) -> None:
    """What the command does to its KPI file never ends `exec` before the command: it is warned of, once."""
    done = run("echo entries=3 >> $ANYMATE_KPI_FILE; sleep 1; ln -sf /proc/self/mem $ANYMATE_KPI_FILE; sleep 1; exit 3")
    assert done.returncode == 3
    assert done.stderr.count("ANYMATE_KPI_FILE can't be read, so KPIs may be missing") == 1
    assert "Traceback" not in done.stderr
    assert recorded(sandbox) == [(3, None)]


def test_removed(sandbox: Sandbox) -> None:
    """What was read before the command removed the file stays counted."""
    done = run("record entries=3; sleep 1; rm $ANYMATE_KPI_FILE")
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(sandbox) == [(3, None)]


def test_many_bad_lines(sandbox: Sandbox) -> None:
    """Twenty bad lines are shown, the others counted."""
    done = run("yes nonsense | head -n 20000 >> $ANYMATE_KPI_FILE; echo entries=3 >> $ANYMATE_KPI_FILE")
    lines = done.stderr.splitlines()
    assert len(lines) == 21
    assert lines[0] == (
        "anymate-guard exec: skipped line 2 of ANYMATE_KPI_FILE, 'nonsense': "
        "it is neither entries=… nor seconds_saved=…"
    )
    assert lines[-1] == "anymate-guard exec: skipped 19980 more lines of ANYMATE_KPI_FILE"
    assert recorded(sandbox) == [(3, None)]


def test_a_line_without_an_end(sandbox: Sandbox) -> None:
    """Megabytes without the end of a line are one bad line, of which the beginning is shown."""
    done = run("yes | tr -d '\\n' | head -c 5000000 >> $ANYMATE_KPI_FILE; echo >> $ANYMATE_KPI_FILE; record entries=1")
    assert len(done.stderr.splitlines()) == 1
    assert f"'{'y' * 100}'" in done.stderr
    assert recorded(sandbox) == [(1, None)]


def test_sum_past_all_numbers(sandbox: Sandbox) -> None:
    """Lines whose sum no number can hold are skipped one by one, and the command is guarded to its end."""
    done = run(
        f"for n in 1 2; do echo seconds_saved=17{'0' * 307} >> $ANYMATE_KPI_FILE; done; record entries=2; exit 3"
    )
    assert (done.returncode, done.stderr.count("skipped line")) == (3, 2)
    assert recorded(sandbox) == [(2, None)]


def test_too_many(sandbox: Sandbox) -> None:
    """The line with which a total would get too large is skipped, those before and after it count."""
    done = run("record entries=2147483647 seconds_saved=1; record entries=1 seconds_saved=2")
    assert "skipped line 6 of ANYMATE_KPI_FILE, 'entries=1': entries can't pass 2147483647" in done.stderr
    assert recorded(sandbox) == [(2_147_483_647, 3)]


def test_quiet(sandbox: Sandbox) -> None:
    """`-q` says nothing of lines that were skipped, or of a file that was overwritten."""
    done = run("echo nonsense > $ANYMATE_KPI_FILE; echo entries=3 >> $ANYMATE_KPI_FILE", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(sandbox) == [(3, None)]


AMOUNTS = st.one_of(
    st.tuples(st.just("entries"), st.integers(0, 10_000)),
    st.tuples(st.just("seconds_saved"), st.decimals(0, 100_000, places=3)),
)


@given(st.lists(AMOUNTS, max_size=50), st.lists(st.integers(0, 400), max_size=5))
def test_any_pieces(amounts: list[tuple[str, object]], cuts: list[int]) -> None:
    """Lines add up to the same, whatever pieces they come in, as if each were recorded by itself."""
    run, wanted = Run("jobs"), Run("jobs")
    for name, amount in amounts:
        wanted.merge(kpis_of(f"{name}={amount}"))
    text = "".join(f"{name}={amount}\n" for name, amount in amounts).encode()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    complaints: list[str] = []
    with kpi_file(run, complaints.append) as kpis:
        for start, end in itertools.pairwise(places):
            with kpis.path.open("ab") as file:
                file.write(text[start:end])
            kpis.read()
        kpis.finish()
    assert (run.kpis, complaints) == (wanted.kpis, [])


def test_record(sandbox: Sandbox) -> None:
    """`record` adds to the KPIs of the run from any shell, also after a line without an end."""
    done = run("printf entries=1 >> $ANYMATE_KPI_FILE; record entries=3 seconds_saved=12.5; record entries=4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert recorded(sandbox) == [(8, 13)]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("entries", "'' is not a whole number"),
        ("entries=2.5", "'2.5' is not a whole number"),
        ("entries=-1", "entries must be from 0 to 2147483647, got -1"),
        ("seconds_saved=soon", "'soon' is not a number"),
        ("seconds_saved=nan", "seconds saved must be a finite number, got nan"),
        ("seconds=3", "it is neither entries=… nor seconds_saved=…"),
    ],
)
def test_record_nonsense(tmp_path: Path, word: str, why: str) -> None:
    """What can't be recorded is said with the reason, with exit code 2, and nothing is recorded."""
    file = tmp_path / "kpis"
    done = ended("record", "entries=1", word, ANYMATE_KPI_FILE=str(file))
    assert (done.returncode, done.stderr) == (2, f"anymate-guard record: can't record '{word}': {why}\n")
    assert not file.exists()


def test_record_outside() -> None:
    """Outside `exec`, or where the file can't be written, it says so, with exit code 2."""
    done = ended("record", "entries=1", ANYMATE_KPI_FILE="")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "anymate-guard record: ANYMATE_KPI_FILE is not set: use it in a command that `anymate-guard exec`"
    )
    done = ended("record", "entries=1", ANYMATE_KPI_FILE="/nowhere/kpis")
    assert done.returncode == 2
    assert done.stderr == "anymate-guard record: can't append to '/nowhere/kpis': No such file or directory\n"


def test_record_is_quick() -> None:
    """`record` imports nothing of what talks to Anymate: a shell loop may call it for each invoice."""
    program = (
        "import sys\nfrom anymate_guard.__main__ import main\nmain(['record', 'entries=1'])\n"
        "print({'requests', 'structlog', 'sqlite3', 'urllib3'} & set(sys.modules))\n"
    )
    # Without coverage, which imports sqlite3 itself.
    environ = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=True, env=environ
    )
    assert done.stdout == "set()\n"
