"""What the environment says of proxies, and of authorities whose certificates are trusted."""

from __future__ import annotations

import contextlib
import os
import sys


def ca_bundle() -> str | None:
    """The authorities whose certificates are trusted, by the variables of requests; None for its own."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or None


def without_proxy(host: str) -> dict[str, str]:
    """The variables with which a host is reached directly, where the environment names a proxy."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    names = {name.lower() for name in os.environ}
    if hosts == "*" or names.isdisjoint({"http_proxy", "https_proxy", "all_proxy"}):
        return {}
    return dict.fromkeys(("NO_PROXY", "no_proxy"), f"{hosts},{host}" if hosts else host)


def may_have_proxies() -> bool:
    """Whether there may be a proxy: Windows and macOS have settings of their own for that."""
    if any(name.lower().endswith("_proxy") for name in os.environ):
        return True
    if sys.platform == "win32":
        import winreg

        settings = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings"
        with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_CURRENT_USER, settings) as key:
            return bool(winreg.QueryValueEx(key, "ProxyEnable")[0])
    return sys.platform == "darwin"
