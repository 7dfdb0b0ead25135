"""What one guard asks for."""

from __future__ import annotations

import attrs


@attrs.frozen
class Options:
    """What one guard asks for; see `anymate_run`."""

    run_id: int | None = None
    check_ok_to_run: bool = False
    report_failure: bool = False
    credit_failed_runs: bool = True
    require_start: bool = False
    require_finish: bool = False
