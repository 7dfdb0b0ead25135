"""A bot whose entrypoint is guarded: whatever happens in it, its run on Anymate is finished.

The process key comes from ANYMATE_PROCESS_KEY, so the same script serves every process that is set up for it.
"""

import sys

from anymate_guard import anymate_run, current_run


@anymate_run(report_failure=True, default_credit="succeeded")
def main(mails: list[str]) -> int:
    """Answer mails; the exit code tells how many could not be."""
    unanswered = [mail for mail in mails if not answer(mail)]
    return len(unanswered)


def answer(mail: str) -> bool:
    """Answer one mail. Deep inside the bot, `current_run()` is the run."""
    if "@" not in mail:
        return False
    current_run().add_entries()
    current_run().add_seconds_saved(42.5)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
