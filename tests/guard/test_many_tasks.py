"""Many tasks at once, while Anymate says nothing."""

from __future__ import annotations

import asyncio
import math

import pytest

from anymate_guard import UnreachableError, anymate_run
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import in_time


@pytest.mark.parametrize("silent", ["token", "StartRun"])
def test_many_tasks(sandbox: Sandbox, proxy: FaultProxy, silent: str) -> None:
    """320 guards that are entered at once, while the server says nothing, are each out at their deadline."""

    async def enter(number: int) -> None:
        with in_time(), pytest.raises(UnreachableError):
            async with anymate_run(f"process-{number}", client=client, require_start=True):
                pass

    async def main() -> None:
        await asyncio.gather(*map(enter, range(320)))

    with client_of(sandbox, proxy.url, timeout=10, deadline=2) as client:
        if silent != "token":
            client.ok_to_run("invoice-intake")
        proxy.break_next(silent, faults.silence, times=math.inf)
        asyncio.run(main())


def test_many_tasks_that_leave(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """320 guards that are left at once, while the server says nothing, begin no deadline of their own later on."""

    async def leave(number: int, inside: asyncio.Event, go_on: asyncio.Event) -> None:
        async with anymate_run(f"process-{number}", client=client):
            inside.set()
            await go_on.wait()

    async def main() -> None:
        go_on, inside = asyncio.Event(), [asyncio.Event() for _ in range(320)]
        tasks = [asyncio.create_task(leave(number, event, go_on)) for number, event in enumerate(inside)]
        for event in inside:
            await event.wait()
        proxy.break_next("FinishRun", faults.silence, times=math.inf)
        go_on.set()
        with in_time():  # which ten deadlines, one after the other, would pass by far
            await asyncio.gather(*tasks)

    with client_of(sandbox, proxy.url, timeout=10, deadline=6) as client:
        asyncio.run(main())
