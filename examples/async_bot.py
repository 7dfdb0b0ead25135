"""An async bot: the guard never blocks the event loop, and every task has a current run of its own."""

import asyncio

from anymate_guard import anymate_run, current_run

PAGES = {"orders": 3, "returns": 2}


async def fetch(page: str, number: int) -> None:
    """Fetch one item of a page."""
    await asyncio.sleep(0.01)
    current_run().add_entries()
    print(f"{page} {number}, in run {current_run().run_id}")


@anymate_run("returns")
async def returns() -> None:
    """A guarded coroutine function."""
    for number in range(PAGES["returns"]):
        await fetch("returns", number)


async def orders() -> None:
    """A guarded block, whose tasks all record on its run."""
    async with anymate_run("orders"):
        await asyncio.gather(*(fetch("orders", number) for number in range(PAGES["orders"])))


async def main() -> None:
    """Run both at the same time."""
    await asyncio.gather(orders(), returns())


if __name__ == "__main__":
    asyncio.run(main())
