"""A batch job with a guard around its body: it asks first whether it may run, so that people can stop it."""

from datetime import timedelta

from anymate_guard import NotOkToRun, anymate_run

INVOICES = {"2026-001": 120.0, "2026-002": -1.0, "2026-003": 99.5}


def post(amount: float) -> None:
    """Post an invoice."""
    if amount < 0:
        raise ValueError(f"can't post a negative amount: {amount}")


def main() -> None:
    """Post all invoices; one that can't be posted does not stop the others."""
    with anymate_run("invoice-intake", check_ok_to_run=True) as run:
        for number, amount in INVOICES.items():
            try:
                post(amount)
            except ValueError as error:
                print(f"{number}: {error}")
            else:
                run.add_entries()
                run.add_seconds_saved(timedelta(minutes=2))
        print(f"posted {run.entries} of {len(INVOICES)}")


if __name__ == "__main__":
    try:
        main()
    except NotOkToRun as reason:
        print(reason)
