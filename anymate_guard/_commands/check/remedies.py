"""What to do about each kind of trouble with Anymate."""

from __future__ import annotations

from anymate_guard import AnymateGuardError, ApiError, AuthenticationError, UnreachableError

_REMEDIES = {  # by what an error says, the first that fits
    ("certificate",): "name the authority that signed the certificate in REQUESTS_CA_BUNDLE",
    ("proxy", "tunnel"): "check HTTPS_PROXY and NO_PROXY",
    ("gaierror", "getaddrinfo", "nameresolution"): "check the spelling of {variable}, and the network",
    ("timed out", "timeout"): "the server is too slow, or a firewall drops what is sent: check the network and "
    "HTTPS_PROXY, or raise ANYMATE_TIMEOUT",
    ("http 5", "http 429"): "Anymate is reached, but in trouble: try again later",
}


def of_address(error: str, variable: str) -> str:
    """For an address that gives no answer.

    Args:
        error: What went wrong.
        variable: The setting that the address comes from.
    """
    for signs, remedy in _REMEDIES.items():
        if any(sign in error.lower() for sign in signs):
            return remedy.format(variable=variable)
    return f"check {variable}, the network and HTTPS_PROXY"


def of_login(error: AnymateGuardError) -> str:
    """For a token that could not be had."""
    if isinstance(error, UnreachableError):
        return of_address(error.reason, "ANYMATE_AUTH_URL")
    if not isinstance(error, AuthenticationError):
        return "check ANYMATE_AUTH_URL: something other than Anymate's login answers there"
    if "invalid_client" in error.message:
        return "copy both from Anymate: Settings → Api Key"
    if "invalid_grant" in error.message:
        return "use the mate's own login, not yours"
    return "copy them again from Anymate: Settings → Api Key, and the mate's own login"


def of_process(error: AnymateGuardError) -> str:
    """For OkToRun that was not answered."""
    if isinstance(error, UnreachableError):
        return of_address(error.reason, "ANYMATE_API_URL")
    if isinstance(error, ApiError) and error.status in {401, 403}:
        return "let the mate run the process: see its page in Anymate"
    return "check the process key, and that the mate may run the process"
