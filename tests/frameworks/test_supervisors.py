"""Programs that start bots and stop them: supervisord, and `timeout` of GNU."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .support import INSIDE, WAIT, done, finished, runs, started, until

BOT = f"""
from anymate_guard import anymate_run

with anymate_run("k") as run:
    run.add_entries(3)
    {WAIT.replace(chr(10), chr(10) + "    ")}
"""
POOL = f"""
import concurrent.futures, time
from anymate_guard import anymate_run

if __name__ == "__main__":
    with anymate_run("k") as run, concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(time.sleep, 0).result()
        run.add_entries(3)
        {WAIT.replace(chr(10), chr(10) + "        ")}
"""
SUPERVISORD = """
[supervisord]
nodaemon = true
pidfile = {folder}/supervisord.pid
logfile = {folder}/supervisord.log

[unix_http_server]
file = {folder}/s.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{folder}/s.sock

[program:bot]
command = {python} bot.py
autorestart = false
startsecs = 0
stopwaitsecs = 40
"""


def test_supervisord_stops_a_bot(sandbox: Sandbox, tmp_path: Path) -> None:
    """A bot that supervisord stops finishes its run with what was recorded."""
    Path("bot.py").write_text(BOT)
    Path("supervisord.conf").write_text(SUPERVISORD.format(folder=tmp_path, python=sys.executable))
    with started(shell="supervisord -c supervisord.conf"):
        until(INSIDE.exists)
        assert "bot: stopped" in done(shell="supervisorctl -c supervisord.conf stop bot")
        until(lambda: finished(sandbox))
    assert runs(sandbox) == [("k", 3, None)]


@pytest.mark.parametrize("once_more", range(5))
def test_timeout_stops_a_pool(sandbox: Sandbox, once_more: int) -> None:
    """`timeout` signals the bot and then its whole group: that is one request to end, and the run is finished."""
    Path("bot.py").write_text(POOL)
    with started("timeout", "60", sys.executable, "bot.py") as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)  # which it passes on just as it sends its own
        bot.communicate(timeout=60)
    assert runs(sandbox) == [("k", 3, None)]
