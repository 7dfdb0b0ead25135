"""Ways in which a call goes wrong, for `FaultProxy`."""

from __future__ import annotations

import random
import threading

from tests.support.proxy import Exchange, Fault
from tests.support.waiting import LONGEST

GIB = 1 << 30
_PIECE = b"x" * (1 << 18)


def silence(exchange: Exchange) -> None:
    """Accept the request and say nothing."""
    exchange.pause()


def reset_before(exchange: Exchange) -> None:
    """Reset the connection, nothing was done."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """Do what was asked, then reset the connection."""
    exchange.forward()
    exchange.reset()


def held(arrived: threading.Event, go_on: threading.Event) -> Fault:
    """Hold the request until it may go on."""

    def fault(exchange: Exchange) -> None:
        arrived.set()
        go_on.wait(LONGEST)
        exchange.answer(*exchange.forward())

    return fault


def dripped_header(exchange: Exchange) -> None:
    """Do what was asked, then send a header without end, byte by byte."""
    exchange.forward()
    exchange.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100_000)


def dripped_body(exchange: Exchange) -> None:
    """Do what was asked, then send a body without end, byte by byte."""
    exchange.forward()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    exchange.drip(b" " * 100_000)


def cut_body(exchange: Exchange) -> None:
    """Do what was asked, then end the connection in the middle of the answer."""
    status, body = exchange.forward()
    exchange.send(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body) + 10}\r\n\r\n".encode() + body)
    exchange.end()


def gigabyte(exchange: Exchange) -> None:
    """Do what was asked, then answer with 1 GiB."""
    exchange.forward()
    exchange.send(f"HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n".encode())
    for _ in range(GIB // len(_PIECE)):
        exchange.send(_PIECE)


def gigabyte_in_chunks(exchange: Exchange) -> None:
    """Do what was asked, then answer with 1 GiB, chunked."""
    exchange.forward()
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(GIB // len(_PIECE)):
        exchange.send(f"{len(_PIECE):x}\r\n".encode() + _PIECE + b"\r\n")


def junk(exchange: Exchange) -> None:
    """Answer with noise."""
    exchange.send(random.Random(7).randbytes(500) + b"\r\n\r\n")
    exchange.end()


def html(exchange: Exchange) -> None:
    """Answer 200 with a page that quotes the request, as a gateway's login page might."""
    exchange.answer(200, f"<!DOCTYPE html><title>Sign in</title><pre>{exchange.echo()}</pre>", Content_Type="text/html")


def empty(exchange: Exchange) -> None:
    """Answer 200 with nothing."""
    exchange.answer(200)


def not_succeeded(exchange: Exchange) -> None:
    """Answer 200 with a no that quotes the request."""
    exchange.answer(200, {"succeeded": False, "message": f"No, not {exchange.echo()}"})


def status(number: int, **headers: str) -> Fault:
    """Answer with a status and the request."""

    def fault(exchange: Exchange) -> None:
        exchange.answer(number, {"message": f"Because of {exchange.echo()}"}, **headers)

    return fault


def says(number: int, body: object, **headers: str) -> Fault:
    """Answer with this."""

    def fault(exchange: Exchange) -> None:
        exchange.answer(number, body, **headers)

    return fault


def in_turn(*turns: Fault) -> Fault:
    """One fault after the other."""
    left = iter(turns)

    def fault(exchange: Exchange) -> None:
        next(left)(exchange)

    return fault


def sends(data: bytes, *, forwarding: bool = False) -> Fault:
    """Send these bytes and end the connection."""

    def fault(exchange: Exchange) -> None:
        if forwarding:
            exchange.forward()
        exchange.send(data)
        exchange.end()

    return fault


redirect = status(307, Location="http://127.0.0.1:9/elsewhere")
