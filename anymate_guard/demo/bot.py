"""An invoice bot as a user of anymate_guard would write it.

It reads a CSV file of invoices, checks each one, books the good ones and rejects the others with a reason.
Two lines tell Anymate what came of it: `run.add_entries()` and `run.add_seconds_saved(…)`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path

import structlog

from anymate_guard import anymate_run

COLUMNS = ("number", "supplier", "vat_number", "issued", "due", "currency", "net", "vat_rate", "vat", "total")
VAT_NUMBER = re.compile(r"[A-Z]{2}[0-9A-Z]{8,13}")
SMALLEST_UNIT = {
    **dict.fromkeys(("CHF", "CZK", "DKK", "EUR", "GBP", "NOK", "PLN", "SEK"), Decimal("0.01")),
    **dict.fromkeys(("HUF", "ISK"), Decimal(1)),
}
LARGEST_AMOUNT = Decimal(10) ** 12
BOOKED_BY_HAND = timedelta(seconds=95.5)
CHECKED_BY_HAND = timedelta(seconds=20)

Row = dict[str, str | None]  # as csv reads it: None stands for what is missing in a row

log = structlog.get_logger("invoice_bot")


class UnusableFile(Exception):
    """The file can't be read as a table of invoices."""


class Rejected(Exception):
    """An invoice can't be booked, and this is why."""


@dataclass(frozen=True)
class Invoice:
    """One invoice, its fields read."""

    number: str
    vat_number: str
    issued: date
    due: date
    currency: str
    net: Decimal
    vat_rate: Decimal
    vat: Decimal
    total: Decimal

    @classmethod
    def of(cls, row: Row) -> Invoice:
        """The invoice in a row; raises `Rejected` for one that can't be read."""
        if None in row or None in row.values():
            raise Rejected("wrong number of fields")
        text = {name: (value or "").strip() for name, value in row.items()}
        return cls(
            number=text["number"],
            vat_number=text["vat_number"],
            issued=day(text["issued"]),
            due=day(text["due"]),
            currency=text["currency"],
            net=amount(text["net"]),
            vat_rate=amount(text["vat_rate"]),
            vat=amount(text["vat"]),
            total=amount(text["total"]),
        )


@dataclass
class Report:
    """What the bot did."""

    booked: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    totals: dict[str, Decimal] = field(default_factory=dict)
    saved: timedelta = timedelta()

    @property
    def processed(self) -> int:
        """How many invoices were handled."""
        return self.booked + self.rejected.total()


def process(path: Path, each: Callable[[list[Row]], Iterable[Row]] = iter) -> Report:
    """Handle a file of invoices in one guarded run.

    Args:
        path: A CSV file in UTF-8, with a header.
        each: Goes through the rows; the demo shows its progress, and its crash, there.

    Returns:
        What was booked, and what was rejected why.

    Raises:
        UnusableFile: It can't be read; the run is finished all the same, and the failure reported.
    """
    report, seen = Report(), set[tuple[str, str]]()
    with anymate_run("invoice-intake", report_failure=True, default_credit="never") as run:
        for row in each(read(path)):
            saved = CHECKED_BY_HAND
            try:
                invoice = Invoice.of(row)
                check(invoice, seen)
            except Rejected as reason:
                report.rejected[str(reason)] += 1
                about = {name: row[name] for name in ("number", "supplier")}
                log.debug("invoice.rejected", reason=str(reason), **about)
            else:
                book(invoice, report)
                saved += BOOKED_BY_HAND
            report.saved += saved
            run.add_entries()
            run.add_seconds_saved(saved)
        log.info("invoices.processed", booked=report.booked, rejected=dict(report.rejected))
    return report


def read(path: Path) -> list[Row]:
    """Read all rows before the first is booked, so that a broken file is booked as a whole or not at all."""
    table = csv.DictReader(io.StringIO(text_of(path), newline=""), strict=True)
    try:
        header = table.fieldnames or ()
        rows = list(table)
    except csv.Error as error:
        raise UnusableFile(f"'{path}' is not a CSV file: {error} after line {table.line_num}") from error
    if not header:
        raise UnusableFile(f"'{path}' is empty; its first line must be {','.join(COLUMNS)}")
    if missing := [column for column in COLUMNS if column not in header]:
        raise UnusableFile(f"'{path}' lacks {', '.join(missing)} in its header, the first line")
    return rows


def text_of(path: Path) -> str:
    """Read a file in UTF-8, with a byte order mark or without."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"can't read '{path}': {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UnusableFile(f"'{path}' is not UTF-8 text in line {line}; save it in UTF-8") from error


def check(invoice: Invoice, seen: set[tuple[str, str]]) -> None:
    """Raise `Rejected` unless an invoice can be booked; `seen` is what came before it."""
    key = (invoice.vat_number, invoice.number)
    if key in seen:
        raise Rejected("duplicate")
    seen.add(key)
    if not VAT_NUMBER.fullmatch(invoice.vat_number):
        raise Rejected("no valid VAT number")
    if invoice.due < invoice.issued:
        raise Rejected("due before it was issued")
    unit = SMALLEST_UNIT.get(invoice.currency)
    if unit is None:
        raise Rejected("unknown currency")
    if invoice.vat != (invoice.net * invoice.vat_rate / 100).quantize(unit, ROUND_HALF_UP):
        raise Rejected("wrong VAT")
    if invoice.total != invoice.net + invoice.vat:
        raise Rejected("wrong total")


def book(invoice: Invoice, report: Report) -> None:
    """Book an invoice that was checked; a real bot would type it into the accounts here."""
    report.booked += 1
    report.totals[invoice.currency] = report.totals.get(invoice.currency, Decimal()) + invoice.total


def day(text: str) -> date:
    """A date like 2026-03-31."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Rejected("bad date") from None


def amount(text: str) -> Decimal:
    """An amount like 1234.50."""
    with contextlib.suppress(InvalidOperation):  # of the comparison too, for NaN
        value = Decimal(text)
        if 0 <= value <= LARGEST_AMOUNT:
            return value
    raise Rejected("bad amount")
