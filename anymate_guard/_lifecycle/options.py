"""What one guard asks for, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from anymate_guard._run.run import Outcome

Credit = Literal["always", "succeeded", "never"]
CREDITS: tuple[Credit, ...] = get_args(Credit)


@dataclass(frozen=True)
class Options:
    """What one guard asks for; see `anymate_run`."""

    run_id: int | None = None
    check_ok_to_run: bool = False
    report_failure: bool = False
    default_credit: Credit = "always"
    require_start: bool = False
    require_finish: bool = False

    def zeros(self, outcome: Outcome) -> bool:
        """Whether KPIs that were not recorded count as 0, for a body that ended like this."""
        return self.default_credit == "never" or (self.default_credit == "succeeded" and outcome != "succeeded")

    def reports(self, outcome: Outcome) -> bool:
        """Whether people are to be told of a body that ended like this."""
        return self.report_failure and outcome == "failed"


@dataclass(frozen=True)
class Mate:
    """Who runs the process, and how patient to be.

    Attributes:
        address: The API's address.
        username: The mate's user name.
        timeout: Seconds for one connect or one read.
        deadline: Seconds in all for entering, and again for leaving.
        disabled: Whether nothing is called or stored.
        client: Makes the calls; the lifecycle only hands it on.
    """

    address: str
    username: str
    timeout: float
    deadline: float
    disabled: bool
    client: Any = field(repr=False, compare=False, default=None)
