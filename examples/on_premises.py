"""A bot for an Anymate in one's own data centre, with a client of its own and not that of the environment.

    python on_premises.py https://anymate.example.com https://login.example.com

Where one Anymate is all there is, setting ANYMATE_API_URL and ANYMATE_AUTH_URL does the same without a line
of code. A certificate authority of one's own is named by REQUESTS_CA_BUNDLE, a proxy by HTTPS_PROXY.
"""

import os
import sys

from anymate_guard import AnymateClient, Settings, anymate_run


def main(api_url: str, auth_url: str) -> None:
    """Do a bit of work, guarded by that Anymate."""
    settings = Settings(
        api_url=api_url,
        auth_url=auth_url,
        client_id=os.environ["ANYMATE_CLIENT_ID"],
        client_secret=os.environ["ANYMATE_CLIENT_SECRET"],
        username=os.environ["ANYMATE_USERNAME"],
        password=os.environ["ANYMATE_PASSWORD"],
        deadline=10,
    )
    with AnymateClient(settings) as client, anymate_run("stock-count", client=client) as run:
        run.set_kpis(entries=1200, seconds_saved=3600)
        print(f"run {run.run_id} on {settings.api_url}")


if __name__ == "__main__":
    main(*sys.argv[1:])
