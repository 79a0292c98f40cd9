"""What the checks of the live page do again and again."""

import re
import time

from playwright.sync_api import Page, expect

TIMEOUT_S = 60

expect.set_options(timeout=1000 * TIMEOUT_S)

# What is shown or told to screen readers for a moment only, because the next text may replace it at once.
NOTE_TEXTS = """addEventListener('DOMContentLoaded', () => {
    const note = (node, texts) => new MutationObserver(() => texts.push(node.textContent)).observe(node, { childList: true });
    [window.announced, window.rates] = [[], []];
    note(document.querySelector('[role=status]'), window.announced);
    note(document.getElementById('rate'), window.rates);
})"""


def expect_announced(page: Page, text: str):
    """Waits until this was announced; forgets it and what came before."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        announced = page.evaluate("() => window.announced")
        for place, said in enumerate(announced):
            if text in said:
                page.evaluate("(count) => window.announced.splice(0, count)", place + 1)
                return
        page.wait_for_timeout(20)
    raise AssertionError(f"{text!r} was not announced, but {announced}")


def ask(page: Page, text: str):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def finished(page: Page):
    expect_announced(page, "Answer finished")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def tab_to(page: Page, name: str, key="Tab"):
    """Presses the key until the element with this accessible name has the focus, which must be visible."""
    for _ in range(40):
        page.keyboard.press(key)
        focused = page.locator(":focus")
        label = focused.evaluate("node => node.ariaLabel ?? node.labels?.[0]?.textContent ?? node.textContent")
        if re.search(name, label):
            assert focused.evaluate("node => getComputedStyle(node).outlineStyle") != "none", f"{name}: no outline"
            return focused
    raise AssertionError(f"{key} never came to {name!r}")


def open_settings(page: Page):
    """The focus stays where it is."""
    page.locator("#settings").evaluate("node => (node.open = true)")
