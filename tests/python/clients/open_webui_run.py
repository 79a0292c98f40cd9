"""Open WebUI against a gateway, in Chromium: a first message at its default settings, "Continue Response", and a tool.

Open WebUI is started here, in a folder of its own, without accounts. Chromium is the system's.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from playwright.sync_api import sync_playwright

from steps import BASE, MODEL, run_steps, step

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="open-webui-"))
# It says at the start which parts of its own it could not fetch; a chat does not need them.
SETTINGS = {
    "DATA_DIR": str(FOLDER),
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "for this run alone",
    "OPENAI_API_BASE_URL": BASE,
    "OPENAI_API_KEY": "none",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
}
START_BOUND = 300
# A small model may go on until its context is full: then the answer is stopped as a person would.
PATIENCE = 60
TOOL = '''
class Tools:
    def weather(self, city: str) -> str:
        """
        Tells the weather of a city.
        :param city: the city's name
        """
        return f"Rain in {city}."
'''


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


HERE = f"http://127.0.0.1:{free_port()}"


def api(path, body=None, token=""):
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    asked = urllib.request.Request(HERE + path, body and json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(asked, timeout=30))


def start():
    command = [pathlib.Path(sys.executable).with_name("open-webui"), "serve", "--host", "127.0.0.1"]
    log = (FOLDER / "log").open("w")
    command += ["--port", HERE.rsplit(":", 1)[1]]
    child = subprocess.Popen(command, env={**os.environ, **SETTINGS}, cwd=FOLDER, stdout=log, stderr=log)
    since = time.monotonic()
    while time.monotonic() - since < START_BOUND and child.poll() is None:
        try:
            api("/health")
            return child
        except OSError:
            time.sleep(1)
    child.kill()
    sys.exit(f"FAULT: Open WebUI did not start: {(FOLDER / 'log').read_text()[-1500:]}")


def new_chat(page, query=""):
    page.goto(f"{HERE}/{query}", wait_until="domcontentloaded")
    page.locator("#chat-input").wait_for(timeout=60_000)
    news = page.get_by_role("button", name="Okay, Let's Go!")
    # It comes a moment after the page, and once alone.
    try:
        news.click(timeout=5_000)
    except Exception:
        pass


def send(page, text):
    page.locator("#chat-input").click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    return ended(page)


def ended(page):
    """The last message as Open WebUI has kept it, when the answer has ended or was stopped."""
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.wait_for(timeout=30_000)
    try:
        stop.wait_for(state="detached", timeout=PATIENCE * 1000)
    except Exception:
        stop.click()
        stop.wait_for(state="detached", timeout=30_000)
    page.wait_for_timeout(3_000)
    token = page.evaluate("localStorage.token")
    history = api(f"/api/v1/chats/{page.url.rsplit('/', 1)[1]}", token=token)["chat"]["history"]
    message = history["messages"][history["currentId"]]
    assert message["role"] == "assistant" and not message.get("error"), message
    return message


@step
def the_model_is_listed():
    new_chat(PAGE)
    PAGE.get_by_role("button", name=f"Selected model: {MODEL}").wait_for(timeout=30_000)


@step
def a_first_message_and_continue_response():
    first = send(PAGE, "Hi")
    assert first["content"].strip(), first
    PAGE.get_by_role("button", name="Continue Response").last.click()
    second = ended(PAGE)
    assert second["id"] == first["id"] and second["content"].startswith(first["content"].rstrip()), (first, second)


@step
def a_tool():
    token = PAGE.evaluate("localStorage.token")
    told = {"id": "weather", "name": "Weather", "content": TOOL, "meta": {"description": "Weather"}}
    api("/api/v1/tools/create", told, token)
    new_chat(PAGE, "?tools=weather")
    with PAGE.expect_request(lambda asked: asked.url.endswith("/api/chat/completions")) as sent:
        message = send(PAGE, "What is the weather in Paris?")
    assert "weather" in sent.value.post_data_json["tool_ids"], sent.value.post_data
    assert message["content"].strip() or message.get("output"), message


child = start()
try:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        PAGE = browser.new_page(viewport={"width": 1200, "height": 800})
        run_steps()
finally:
    child.send_signal(signal.SIGINT)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
