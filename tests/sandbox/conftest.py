"""A sandbox for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from anymate_guard.sandbox import Sandbox

from .support import Bot, Clock


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="sandbox")
def _sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture(name="stranger")
def _stranger(sandbox: Sandbox) -> Iterator[Bot]:
    bot = Bot(sandbox)
    yield bot
    bot.close()


@pytest.fixture(name="bot")
def _bot(sandbox: Sandbox) -> Iterator[Bot]:
    bot = Bot(sandbox)
    yield bot.login()
    bot.close()
