"""Configure structlog as programs do, then run one of the others: `with_structlog.py guarded`."""

import runpy
import sys
from pathlib import Path

import structlog

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    wrapper_class=structlog.make_filtering_bound_logger("info"),
)
structlog.get_logger().info("started")
runpy.run_path(str(Path(__file__).with_name(f"{sys.argv[1]}.py")))
