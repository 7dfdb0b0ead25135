"""What an answer means: yes, no, or trouble that may pass; quoted without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anymate_guard._http.messages import Answer
from anymate_guard._secrecy import Mask, unseen
from anymate_guard.errors import ApiError

_PASSING = frozenset({408, 429, *range(500, 600)} - {501, 505})  # not what a server will never do
FOR_GOOD = frozenset({400, 404, 405, 410, 422})  # another try would come to the same, if it is Anymate's own no
_SUCCEEDING = frozenset({"FinishRun", "Failure"})  # they answer {"succeeded": …, "message": …}


@dataclass(eq=False)
class Reply:
    """An answer, read.

    Attributes:
        operation: The call that it answers.
        answer: What came back.
        data: Its JSON object, if it is one.
        mask: For quoting it.
        foreign: Whether it is a page that is not Anymate's: a gateway's, which may not reach it just now.
        sent_before: Whether an earlier try of the same call may have reached Anymate.
    """

    operation: str
    answer: Answer
    data: Mapping[str, Any] | None = field(repr=False)
    mask: Mask
    foreign: bool = False
    sent_before: bool = False

    @property
    def status(self) -> int:
        """The HTTP status; 0 when there was no whole answer."""
        return self.answer.status

    @property
    @unseen
    def text(self) -> str:
        """The beginning of what was answered, for people."""
        if self.operation == "token" and self.status < 300:  # all may be well in it, but for one comma
            return f"an answer of {len(self.answer.body)} bytes"
        coding = self.answer.header("Content-Encoding") or "identity"
        if coding != "identity":
            return self.mask.quoted(f"an answer that comes compressed ({coding}), which was not asked for")
        message = (self.data or {}).get("message")
        if (self.status >= 300 or self._said_no) and isinstance(message, str) and message.strip():
            return self.mask.quoted(message)
        body = self.answer.body
        return self.mask.quoted(body.decode(json.detect_encoding(body), "replace")) or "an empty answer"

    @property
    @unseen
    def trouble(self) -> str:
        """What may pass if the call is tried again; empty for an answer that counts."""
        if self.answer.error:
            return self.mask.quoted(self.answer.error)
        if self.status in _PASSING:
            return f"HTTP {self.status}: {self.text}"
        if self.status < 300 and (self.data is None or not self._complete(self.data)):
            return f"HTTP {self.status} that can't be read: {self.text}"
        if self.foreign and self.operation == "FinishRun":  # the others raise, as an address may be wrong
            return f"HTTP {self.status} that is not Anymate's: {self.text}"
        return ""

    @property
    def _said_no(self) -> bool:
        return (self.data or {}).get("succeeded") is False

    def _complete(self, data: Mapping[str, Any]) -> bool:
        return self.operation not in _SUCCEEDING or type(data.get("succeeded")) is bool

    def accepted(self) -> Mapping[str, Any]:
        """The data of an answer that means yes.

        Raises:
            ApiError: It means no.
        """
        if self.data is None or self.status >= 300:
            raise self.refusal(self._redirected() if self.status < 400 else self.text)
        if self._said_no:
            raise self.refusal(f"succeeded is false: {self.text}")
        return self.data

    def refusal(self, message: str, kind: type[ApiError] = ApiError) -> ApiError:
        """The error for an answer that means no."""
        return kind(self.operation, self.status, message, self.sent_before, said_no=self._said_no, foreign=self.foreign)

    def _redirected(self) -> str:
        target = self.mask.quoted(self.answer.header("Location") or "nowhere")
        return (
            f"redirected to {target}; redirects are not followed, as they turn a POST into a GET: "
            "set ANYMATE_API_URL and ANYMATE_AUTH_URL to the address that answers"
        )


@unseen
def read(operation: str, answer: Answer, mask: Mask, *, sent_before: bool) -> Reply:
    """Read an answer."""
    foreign = False
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        data = None
        page = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")  # it may begin with a mark of its encoding
        foreign = answer.status in FOR_GOOD and (page.startswith(b"<") or (answer.status == 404 and bool(page)))
    return Reply(operation, answer, data if isinstance(data, dict) else None, mask, foreign, sent_before)
