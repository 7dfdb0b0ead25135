"""A bot that calls Anymate with the official SDK."""

import contextlib
import io
import os

import anymate

names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
client = anymate.client(*(os.environ[f"ANYMATE_{name}"] for name in names))
client.set_on_premises_mode(os.environ["ANYMATE_API_URL"], os.environ["ANYMATE_AUTH_URL"])
with contextlib.redirect_stdout(io.StringIO()):
    run_id = client.start_or_get_run("benchmark").runId
    client.finish_run({"runId": run_id, "overwriteEntries": 3})
