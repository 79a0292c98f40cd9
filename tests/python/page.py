"""The live page in a real browser: python page.py http://host:port

Talks with who started it by lines: says "ready" when the page shows eight loaded shards; is told "killed UNIX_MS" when
the worker of shard 3 was killed; says "offline MS" when the page showed that, MS after the kill; is told "restarted";
says "back". Then it goes on alone and ends with "ok". CHROMIUM is the browser's path; PAGE_SCREENSHOTS, if set, a
folder for pictures.
"""

import os
import re
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

import page_answers
from page_fake import MODEL, FakeGateway, replica, status
from page_steps import NOTE_TEXTS, TIMEOUT_S, ask, expect_announced, finished, open_settings, tab_to

URL = sys.argv[1]
SHARDS = 8
# What the page promises: a killed worker is shown OFFLINE so soon.
OFFLINE_WITHIN_MS = 2000


def say(line):
    print(line, flush=True)


def told(word):
    line = sys.stdin.readline().split()
    assert line and line[0] == word, f"expected {word!r}, was told {line}"
    return line[1:]


def shard_state(page: Page, shard: int):
    return page.locator(f"[data-shard='{shard}'] .shard-state")


def all_loaded(page: Page):
    expect(page.locator(".shard-state").get_by_text("LOADED", exact=True)).to_have_count(SHARDS)


def note_state_changes(page: Page, shard: int):
    """Lets the page itself note when a state appears: asking it again and again would come late."""
    page.evaluate(
        """(shard) => {
            const state = document.querySelector(`[data-shard='${shard}'] .shard-state`);
            window.changes = [];
            new MutationObserver(() => window.changes.push([Date.now(), state.textContent]))
                .observe(state, { childList: true, characterData: true, subtree: true });
        }""",
        shard,
    )


def a_killed_worker_is_offline_in_time_and_back_again(page: Page):
    page.goto(URL)
    all_loaded(page)
    expect(page.locator("#ready")).to_have_text("✓ yes")
    expect(page.locator("#model-name")).not_to_be_empty()
    note_state_changes(page, 3)
    say("ready")
    killed_at = int(told("killed")[0])
    expect(shard_state(page, 3)).to_have_text("OFFLINE")
    shown_at = next(at for at, state in page.evaluate("() => window.changes") if state == "OFFLINE")
    took = shown_at - killed_at
    assert took <= OFFLINE_WITHIN_MS, f"OFFLINE was shown {took} ms after the kill"
    expect_announced(page, "Shard 3 is offline. The swarm is not ready.")
    expect(page.locator("#ready")).to_have_text("✗ no")
    # The API's own words, where the answer would be.
    ask(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("the swarm is not ready")
    say(f"offline {took}")
    told("restarted")
    all_loaded(page)
    expect_announced(page, "The swarm is ready.")
    say("back")


def everything_can_be_done_by_keyboard(page: Page):
    page.goto(URL)
    all_loaded(page)
    tab_to(page, "Skip to the chat")
    peer = tab_to(page, "^Peer 12D3")
    full = peer.get_attribute("aria-label").removeprefix("Peer ")
    expect(peer.get_by_text(full)).to_be_visible()
    tab_to(page, "^Message")
    page.keyboard.type("hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    tab_to(page, "^Settings")
    page.keyboard.press("Enter")
    tab_to(page, "^Max tokens")
    page.keyboard.press("Control+A")
    page.keyboard.type("24")
    tab_to(page, "^Message", key="Shift+Tab")
    page.keyboard.press("Enter")
    finished(page)
    expect(page.locator("#conversation .user")).to_have_text("hello\nthere")
    path_times_are_shown_for_each_token(page)
    the_gateways_rate_was_shown(page)


def the_gateways_rate_was_shown(page: Page):
    until = time.monotonic() + TIMEOUT_S
    while not any(float(rate) > 0 for rate in page.evaluate("() => window.rates") if rate != "–"):
        assert time.monotonic() < until, "the rate never rose"
        page.wait_for_timeout(20)


def path_times_are_shown_for_each_token(page: Page):
    tokens = int(page.locator("#tokens").text_content())
    assert 1 <= tokens <= 24, tokens
    assert re.fullmatch(r"[\d.]+ ms", page.locator("#first-token").text_content())
    bars = tab_to(page, "^Tokens of the answer")
    expect(bars.get_by_role("option")).to_have_count(tokens)
    page.keyboard.press("Home")
    chosen = bars.get_by_role("option", selected=True)
    expect(chosen).to_have_attribute("aria-label", re.compile(r"^Token 1, .*ms; compute .*, queue .*, network "))
    expect(bars).to_have_attribute("aria-activedescendant", chosen.get_attribute("id"))
    expect(page.locator("#detail tbody tr")).to_have_count(SHARDS)
    if tokens > 1:
        page.keyboard.press("ArrowRight")
        expect(chosen).to_have_attribute("aria-label", re.compile("^Token 2,"))


def refusals_are_told_in_the_words_of_the_api(page: Page):
    page.get_by_label("Temperature").fill("9")
    ask(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("temperature must be")
    expect(page.get_by_role("alert")).to_contain_text("(invalid_value)")
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_role("log")).to_be_empty()
    expect(page.get_by_label("Message")).to_be_focused()


MUST_HAVE_NAMES = {"button", "link", "textbox", "spinbutton", "listbox", "option", "progressbar", "region", "log", "group"}


def the_page_has_landmarks_and_names(page: Page, empty=False):
    open_settings(page)
    told_to_readers = page.locator("body").aria_snapshot()
    for part in (
        "- banner:",
        "- main:",
        '- region "Swarm":',
        '- region "Chat":',
        '- heading "llama-swarm" [level=1]',
        *([] if empty else ['- heading "Shard 7" [level=3]']),
        '- list "Shards in order"' + ("" if empty else ":"),
        '- log "Conversation"',
        '- textbox "Message"',
        '- textbox "System prompt"',
        '- textbox "Stop strings"',
        '- spinbutton "Temperature"',
        '- spinbutton "Max tokens"',
        "- status",
    ):
        assert part in told_to_readers, f"no {part} in:\n{told_to_readers}"
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        node
        for node in nodes
        if node.get("role", {}).get("value") in MUST_HAVE_NAMES and not node.get("ignored") and not node["name"]["value"]
    ]
    assert not nameless, nameless
    assert page.evaluate("() => document.documentElement.lang") == "en"


# WCAG 2.2, relative luminance and contrast ratio; of each element that has text of its own.
LEAST_CONTRAST = """() => {
    const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const colour = rgb(getComputedStyle(node).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
    };
    const ratio = (node) => {
        const pair = [rgb(getComputedStyle(node).color), behind(node)].map(luminance).sort((a, b) => b - a);
        return (pair[0] + 0.05) / (pair[1] + 0.05);
    };
    const hasText = (node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    const shown = [...document.querySelectorAll('body *')].filter((node) =>
        hasText(node) && node.checkVisibility() && !node.matches('script, style, [aria-disabled=true]'));
    return shown.map((node) => [ratio(node), node.id || node.className || node.tagName]).sort((a, b) => a[0] - b[0])[0];
}"""


def contrast_is_enough(page: Page):
    ratio, where = page.evaluate(LEAST_CONTRAST)
    assert ratio >= 4.5, f"contrast {ratio:.2f} at {where}"


def states_shown_are_those_told(page: Page, fake: FakeGateway):
    """What a healthy swarm on one machine does not show: loading, replicas, round trips, hostile names."""
    hostile = "<img src=x onerror=document.title='owned'>"
    worker = [f"12D3KooWReplica{shard}" for shard in range(SHARDS)]
    shards = [[replica(worker[shard], shard)] for shard in range(SHARDS)]
    shards[0][0]["round_trips_us"] = {worker[1]: 420}
    shards[1][0] |= {"state": "LOADING", "loaded_percent": 45, "device": hostile}
    shards[1][0]["fetching"] = {"peers": 3, "bytes_per_second": 41_000_000}
    shards[2] = [replica(worker[2], 2), replica("12D3KooWSpare", 2) | {"state": "OFFLINE", "transport": None}]
    shards[2][0]["round_trips_us"] = {worker[3]: 12_345, "someone else": 1}
    shards[4] = []
    shards[7][0]["round_trips_us"] = {"gateway": 1_500}
    fake.tell(status(shards))
    page.goto(fake.url)
    card = lambda shard: page.locator(f"[data-shard='{shard}']")
    expect(shard_state(page, 1)).to_have_text("LOADING")
    expect(card(1).get_by_role("progressbar", name="Loaded so far")).to_have_attribute("value", "45")
    expect(card(1)).to_contain_text("45 % loaded · 3 peers · 41 MB/s")
    expect(card(1)).to_contain_text(hostile)
    assert page.locator("img").count() == 0 and page.title() == "llama-swarm"
    expect(shard_state(page, 2)).to_have_text("LOADED")
    expect(card(2).get_by_role("button")).to_have_count(2)
    expect(card(2).locator(".replica .state")).to_have_text(["LOADED", "OFFLINE"])
    expect(shard_state(page, 4)).to_have_text("NOT FOUND")
    # Shard 1 is not loaded, so the time to it is not one of a way that is gone; 3 goes to nobody.
    for shard, time_shown in [(0, "–"), (2, "12.3 ms"), (3, "–"), (7, "1.50 ms")]:
        expect(card(shard).locator(".link .numbers")).to_have_text(time_shown)
    expect(page.locator("#rate")).to_have_text("7.5")
    peer = card(2).get_by_role("button").first
    peer.focus()
    contrast_is_enough(page)
    # A change leaves the focus where it is.
    shards[1][0] |= {"state": "LOADED", "loaded_percent": 100}
    fake.tell(status(shards))
    expect(shard_state(page, 1)).to_have_text("LOADED")
    expect(card(0).locator(".link .numbers")).to_have_text("0.42 ms")
    expect_announced(page, "Shard 1 is loaded.")
    expect(peer).to_be_focused()


def an_answer_can_be_stopped(page: Page):
    ask(page, "never ends")
    expect(page.locator(".assistant")).to_have_text("token ")
    # A token whose text is held back has its bar all the same.
    expect(page.get_by_role("option")).to_have_count(2)
    page.keyboard.press("Escape")
    expect_announced(page, "Answer stopped.")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    ask(page, "breaks off")
    expect(page.get_by_role("alert")).to_have_text("worker gone (hop_failed)")


def a_lost_gateway_is_said_and_nothing_old_is_shown(page: Page, fake: FakeGateway):
    for lose, find in [(fake.stop, fake.start), (fake.fall_silent, fake.speak)]:
        lose()
        expect(page.locator("#connection")).to_contain_text("Not connected")
        expect(page.locator(".shard-state").get_by_text("UNKNOWN", exact=True)).to_have_count(SHARDS)
        expect(page.locator(".replica")).to_have_count(0)
        expect(page.locator("#ready")).to_have_text("–")
        expect(page.locator("#api-model")).to_be_hidden()
        expect_announced(page, "Not connected to the gateway.")
        find()
        expect(page.locator("#connection")).to_have_text("Connected")
        expect(page.locator("#model-name")).to_have_text(MODEL)
        expect(shard_state(page, 0)).to_have_text("LOADED")


def a_gateway_without_a_model_says_so(page: Page, fake: FakeGateway):
    fake.waits = "the model's header is still on its way"
    fake.tell(status([[replica(f"12D3KooWReplica{shard}", shard)] for shard in range(SHARDS)]))
    page.goto(fake.url)
    expect(page.locator("#connection")).to_have_text(fake.waits)
    expect(page.locator("#connection")).to_have_attribute("data-state", "LOADING")
    contrast_is_enough(page)
    fake.waits = None
    expect(page.locator("#connection")).to_have_text("Connected")
    all_loaded(page)


def a_key_is_asked_for_and_kept_in_the_tab_alone(page: Page, fake: FakeGateway, open_page):
    fake.key = "lsk-right"
    fake.tell(status([[replica(f"12D3KooWReplica{shard}", shard)] for shard in range(SHARDS)]))
    page.goto(fake.url)
    expect(page.locator("#connection")).to_have_text("This gateway asks for a key")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    contrast_is_enough(page)
    the_page_has_landmarks_and_names(page, empty=True)
    page.keyboard.type("lsk-wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-why")).to_have_text("This gateway does not take that key.")
    assert page.evaluate("() => sessionStorage.length") == 0
    key.fill(fake.key)
    key.press("Enter")
    expect(page.locator("#connection")).to_have_text("Connected")
    all_loaded(page)
    expect(key).to_be_hidden()
    expect(page.locator("#model-name")).to_have_text(MODEL)
    ask(page, "breaks off")
    expect(page.get_by_role("alert")).to_have_text("worker gone (hop_failed)")
    page.reload()
    all_loaded(page)
    assert page.evaluate("() => localStorage.length + document.cookie.length") == 0, "nothing outlives the tab"
    assert fake.key not in page.content()
    # The key is taken back: the next question brings the form again, and the answer of the API.
    fake.key = "lsk-other"
    ask(page, "hello")
    expect(key).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("(invalid_api_key)")
    other = open_page("light")
    other.goto(fake.url)
    expect(other.get_by_label("API key")).to_be_visible()
    fake.key = None


def pictures(page: Page, scheme: str):
    if folder := os.environ.get("PAGE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"page-{scheme}.png"), full_page=True)


def no_sideways_scrolling_on_a_telephone(page: Page):
    page.set_viewport_size({"width": 340, "height": 700})
    wider = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0, f"the page is {wider} px too wide"


def main():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        troubles = []

        def open_page(scheme):
            page = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 1000}).new_page()
            page.add_init_script(NOTE_TEXTS)
            page.on("pageerror", lambda error: troubles.append(f"{scheme}: {error}"))
            page.on("console", lambda line: "Security" in line.text and troubles.append(f"{scheme}: {line.text}"))
            return page

        page = open_page("light")
        a_killed_worker_is_offline_in_time_and_back_again(page)
        for scheme in ("light", "dark"):
            page = open_page(scheme)
            everything_can_be_done_by_keyboard(page)
            contrast_is_enough(page)
            pictures(page, scheme)
            the_page_has_landmarks_and_names(page)
        no_sideways_scrolling_on_a_telephone(page)
        refusals_are_told_in_the_words_of_the_api(page)
        with FakeGateway(URL) as fake:
            page = open_page("dark")
            states_shown_are_those_told(page, fake)
            the_page_has_landmarks_and_names(page)
            an_answer_can_be_stopped(page)
            a_lost_gateway_is_said_and_nothing_old_is_shown(page, fake)
            no_sideways_scrolling_on_a_telephone(page)
            page_answers.check(open_page, fake, contrast_is_enough)
            page = open_page("light")
            a_gateway_without_a_model_says_so(page, fake)
            a_key_is_asked_for_and_kept_in_the_tab_alone(page, fake, open_page)
            no_sideways_scrolling_on_a_telephone(page)
        browser.close()
        assert not troubles, troubles
    say("ok")


main()
