"""Somebody who looks at the page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
PATIENCE = 10  # seconds
FOCUSED = """
const at = document.activeElement;
return {id: at.id, name: at.name, text: at.textContent, ring: getComputedStyle(at).outlineStyle};
"""


class Reader:
    """Reads the page, clicks and types.

    Attributes:
        console: Errors and warnings of the browser's console, as far as the test did not provoke them.
        strange_requests: What was asked of any other address than the sandbox's.
    """

    def __init__(self, driver: Chrome, address: str) -> None:
        """Take a browser and the address of a sandbox."""
        self.driver = driver
        self.address = address
        self.console: list[str] = []
        self.strange_requests: list[str] = []
        self.provoked = "no such text"

    def open(self, path: str = "/") -> None:
        """Open the page, and mark it, so that a reload would be seen."""
        self.driver.get(self.address + path)
        self.run("window.marked = true")

    def leave(self) -> None:
        """Close the page and read the logs."""
        self.driver.get("about:blank")
        logs: Any = self.driver  # its types leave these out
        for line in logs.get_log("browser"):
            if self.provoked not in line["message"]:
                self.console.append(line["message"])
        for line in logs.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if url.startswith("http") and not url.startswith(self.address):
                    self.strange_requests.append(url)

    def look_like(self, width: int = 1280, height: int = 1000, **media: str) -> None:
        """Change the screen and the preferences, given as `prefers_color_scheme="dark"`."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *values: object) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *values)

    def one(self, selector: str) -> WebElement:
        """Return the element that is meant, waiting for it."""
        return self.until(lambda: self.all(selector))[0]

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that are meant."""
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, part: str) -> str:
        """Return what a part of the page says, on one line."""
        return " ".join(str(self.run("return document.getElementById(arguments[0]).innerText", part)).split())

    def until(self, condition: Callable[[], T]) -> T:
        """Look again and again until something is so, without a reload."""
        value: T = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: condition())
        assert self.run("return window.marked") is True
        return value

    def reads(self, part: str, *words: str) -> str:
        """Wait until a part of the page has all these words."""
        self.until(lambda: all(word in self.text(part) for word in words))
        return self.text(part)

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> dict[str, str]:
        """Return what has the focus."""
        return dict(self.run(FOCUSED))

    def provoke(self, message: str) -> None:
        """Expect lines in the console that have this text."""
        self.provoked = message
