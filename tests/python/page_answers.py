"""How the live page shows answers, and what it asks for; the answers are the test's own."""

import json

from playwright.sync_api import Page, expect

from page_fake import MODEL, PATH, FakeGateway, replica, status
from page_steps import ask, expect_announced, finished, open_settings, tab_to

ANSWER = """# Title with `code`

Some **bold**, *italic*, ***both***, _low_, ~~gone~~, snake_case_name, 2 * 3 * 4 and `a ** b`.
A [link](https://example.com/a_(b)?c=1 "said so"), <https://example.org/>, [mail](mailto:a@b.example),
https://example.net/x_y_z. And \\*stars\\*.

- one
  - nested **deep**
- two

  goes on

3. three
   ```
   in three
   ```
4. four

> quoted
> - listed

| left | right |
|:-----|------:|
| a \\| b | `2` |
| c | |

---
```python
if a < b:

    print("**not bold** 🦙")
```
The end"""

HOSTILE = [
    "<img src=x onerror=document.title='owned'>",
    "<script>document.title='owned'</script>",
    "<a href=javascript:document.title='owned'>x</a>",
    "[x](javascript:document.title='owned')",
    "[x](<javascript:document.title='owned'>)",
    "[x](JavaScript:document.title=1)",
    "[x](data:text/html,owned)",
    "[x](/v1/models)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
]

# What nests, repeats or never closes must not keep the page busy.
MARKS = ("[", "*a ", "**a *b ", "`", "` `` ", "> ", "- ", "_a", "<", "|-", "[a](", "~~a ", " ", "\\")
ENDLESS = [mark * 20_000 for mark in MARKS]

# What a message is like, whatever tokens it came in.
STRUCTURE = """() => {
    const message = [...document.querySelectorAll('.assistant')].at(-1).cloneNode(true);
    message.querySelectorAll('.token').forEach((token) => token.replaceWith(...token.childNodes));
    message.normalize();
    return message.innerHTML;
}"""

# Each piece is shown by itself, however fast they come.
SHOW_EACH = "window.requestAnimationFrame = (show) => { queueMicrotask(show); return 1; }"

NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: undefined })"


class Script:
    """Answers the page's questions, and keeps what it asked."""

    def __init__(self, page: Page):
        self.asked = []
        self.deltas = []
        page.route("**/v1/chat/completions", self._answer)

    def says(self, *pieces: str, thinks=()):
        self.deltas = [{"reasoning_content": piece} for piece in thinks] + [{"content": piece} for piece in pieces]

    def _answer(self, route):
        self.asked.append(route.request.post_data_json)
        chunks = [{"choices": [{"delta": delta}], "path_times": [PATH]} for delta in self.deltas]
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"]
        body = "".join(f"data: {event}\n\n" for event in events)
        route.fulfill(status=200, content_type="text/event-stream", body=body)


def the_last(page: Page):
    return page.locator(".assistant").last


def answered(page: Page, script: Script, *pieces: str, thinks=()):
    script.says(*pieces, thinks=thinks)
    ask(page, "hello")
    finished(page)
    return the_last(page)


def markdown_is_shown_as_what_it_means(page: Page, script: Script):
    answer = answered(page, script, ANSWER)
    expect(answer.get_by_role("heading", name="Title with code", level=3)).to_be_visible()
    expect(answer.locator("strong")).to_have_text(["bold", "both", "deep"])
    expect(answer.locator("em")).to_have_text(["italic", "both", "low"])
    expect(answer.locator("del")).to_have_text(["gone"])
    expect(answer.locator(":not(pre) > code")).to_have_text(["code", "a ** b", "2"])
    expect(answer.locator("p").first).to_contain_text("snake_case_name, 2 * 3 * 4 and")
    expect(answer.locator("p").first).to_contain_text("And *stars*.")
    expect(answer.locator("> ul > li")).to_have_count(2)
    expect(answer.locator("> ul > li > ul > li")).to_have_text(["nested deep"])
    expect(answer.locator("> ul > li").last.locator("p")).to_have_text(["two", "goes on"])
    expect(answer.locator("ol")).to_have_attribute("start", "3")
    expect(answer.locator("ol > li > p")).to_have_text(["three", "four"])
    expect(answer.locator("ol pre")).to_have_text("in three")
    expect(answer.locator("blockquote > p")).to_have_text("quoted")
    expect(answer.locator("blockquote > ul > li")).to_have_text("listed")
    expect(answer.locator("th")).to_have_text(["left", "right"])
    expect(answer.locator("td")).to_have_text(["a | b", "2", "c", ""])
    expect(answer.locator("td").nth(1)).to_have_css("text-align", "right")
    expect(answer.locator("hr")).to_have_count(1)
    expect(answer.locator("pre").last).to_have_text('if a < b:\n\n    print("**not bold** 🦙")', use_inner_text=True)
    expect(answer.locator("> p").last).to_have_text("The end")
    links = answer.get_by_role("link")
    hrefs = ["https://example.com/a_(b)?c=1", "https://example.org/", "mailto:a@b.example", "https://example.net/x_y_z"]
    assert [link.get_attribute("href") for link in links.all()] == hrefs
    for link in links.all():
        assert link.get_attribute("target") == "_blank" and "noopener" in link.get_attribute("rel")
    tab_to(page, "^link$", key="Shift+Tab")


def nothing_in_an_answer_becomes_markup_or_script(page: Page, script: Script):
    before = page.locator("#conversation a").count()
    answer = answered(page, script, "\n\n".join(HOSTILE))
    expect(answer.locator("p")).to_have_text(HOSTILE)
    fenced, table = f"```\n{HOSTILE[0]}\n```", f"| a | b |\n|-|-|\n| {HOSTILE[0]} | b |"
    within_code = answered(page, script, f"`{HOSTILE[0]}`\n{fenced}\n{table}")
    expect(within_code.locator("code")).to_have_text([HOSTILE[0], HOSTILE[0]])
    expect(within_code.locator("td").first).to_have_text(HOSTILE[0])
    link = answered(page, script, f"[{HOSTILE[0]}](https://example.com)").get_by_role("link")
    expect(link).to_have_text(HOSTILE[0])
    assert page.locator("#conversation :is(img, script, iframe, style)").count() == 0
    assert page.locator("#conversation a").count() == before + 1
    assert page.title() == "llama-swarm"


def an_answer_that_comes_in_pieces_looks_as_one_that_came_at_once(page: Page, script: Script):
    lists = "- a\n\n-\n- b\n\n1. c\n2. d\n\ne\n===\n```\nf"
    for text in (ANSWER, lists, "a\n| b | c |\n|---|---| d", "**a\nb** *c **d***\n\n\n"):
        answered(page, script, text)
        at_once = page.evaluate(STRUCTURE)
        answered(page, script, *text)
        assert page.evaluate(STRUCTURE) == at_once, f"{page.evaluate(STRUCTURE)}\nfor\n{at_once}"


def a_token_is_found_in_the_text_it_came_with(page: Page, script: Script):
    answer = answered(page, script, "a **bo", "ld** _", "c_\n\n- li", "st")
    bars = tab_to(page, "^Tokens of the answer")
    page.keyboard.press("Home")
    expect(answer.locator(".chosen")).to_have_text(["a ", "bo"])
    page.keyboard.press("ArrowRight")
    expect(answer.locator(".chosen")).to_have_text(["ld", " "])
    answer.locator("li .token").last.hover()
    expect(bars.get_by_role("option", selected=True)).to_have_attribute("id", "path-3")


def thoughts_are_folded_away_and_not_sent_back(page: Page, script: Script):
    answer = answered(page, script, "Yes.", thinks=["Is it? ", "It is."])
    thoughts = answer.get_by_text("Is it? It is.")
    expect(thoughts).to_be_hidden()
    tab_to(page, "^Thinking$", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(thoughts).to_be_visible()
    expect(answer.locator("> p")).to_have_text(["Yes."])
    answered(page, script, "No.")
    assert script.asked[-1]["messages"][-2] == {"role": "assistant", "content": "Yes."}


def an_answer_without_an_end_is_shown_at_once(page: Page, script: Script):
    for text in ENDLESS:
        answered(page, script, text)
        page.get_by_role("button", name="Clear").click()


def settings_are_asked_for(page: Page, script: Script):
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_label("Temperature")).to_be_hidden()
    always = {"stream": True, "path_times": True}
    answered(page, script, "Hi.")
    question = {"role": "user", "content": "hello"}
    assert script.asked[-1] == {"messages": [question], "temperature": 0, "max_tokens": 256, **always}, script.asked[-1]
    open_settings(page)
    page.get_by_label("System prompt").fill("Be short.")
    page.get_by_label("Stop strings").fill("END\n\n\\n\\nUser:")
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("Max tokens").fill("")
    answered(page, script, "Ho.")
    said = [{"role": "system", "content": "Be short."}, question, {"role": "assistant", "content": "Hi."}, question]
    settings = {"temperature": 0.7, "stop": ["END", "\n\nUser:"]}
    assert script.asked[-1] == {"messages": said, **settings, **always}, script.asked[-1]


def code_is_code_before_its_end(page: Page):
    page.unroute("**/v1/chat/completions")
    ask(page, "code that goes on")
    expect(the_last(page).locator("pre code")).to_have_text("a < b")
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    page.keyboard.press("Escape")
    expect_announced(page, "Answer stopped.")
    expect(the_last(page).locator("pre code")).to_have_text("a < b")


def the_models_name_can_be_copied(page: Page):
    expect(page.locator("#model-name")).to_have_text(MODEL)
    for without_clipboard in (False, True):
        # As a page has it that came from another machine without TLS.
        page.evaluate(NO_CLIPBOARD if without_clipboard else "() => navigator.clipboard.writeText('')")
        page.get_by_label("Message").fill("")
        tab_to(page, "^Copy the name", key="Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copied")).to_be_focused()
        tab_to(page, "^Message")
        page.keyboard.press("Control+V")
        expect(page.get_by_label("Message")).to_have_value(MODEL)
    expect_announced(page, "The name is copied.")


def on_a_telephone_the_chat_comes_first_and_nothing_is_too_wide(page: Page, script: Script):
    table = f"| {' | '.join(['cell'] * 12)} |\n{'|-' * 12}|"
    wide = f"{'word' * 60}\n\n```\n{'code ' * 60}\n```\n{table}\n\n{'> - ' * 9}deep `{'c' * 90}`"
    tops = "() => ['#chat', '#shards'].map((id) => document.querySelector(id).getBoundingClientRect().top)"
    answered(page, script, wide)
    page.get_by_label("Message").focus()
    for width, chat_first in [(390, True), (320, True), (1280, False)]:
        page.set_viewport_size({"width": width, "height": 844})
        # The same order for the eye and the Tab key.
        expect(page.locator("#chat ~ #swarm")).to_have_count(1 if chat_first else 0)
        chat, shards = page.evaluate(tops)
        assert (chat < shards) == chat_first, f"at {width}: chat {chat}, shards {shards}"
        wider = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"the page is {wider} px too wide at {width}"
        expect(page.get_by_label("Message")).to_be_focused()


def check(open_page, fake: FakeGateway, contrast_is_enough):
    fake.tell(status([[replica(f"12D3KooWReplica{shard}", shard)] for shard in range(8)]))
    for scheme in ("light", "dark"):
        page = open_page(scheme)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.add_init_script(SHOW_EACH)
        page.goto(fake.url)
        script = Script(page)
        expect(page.locator("#connection")).to_have_text("Connected")
        markdown_is_shown_as_what_it_means(page, script)
        contrast_is_enough(page)
    nothing_in_an_answer_becomes_markup_or_script(page, script)
    an_answer_that_comes_in_pieces_looks_as_one_that_came_at_once(page, script)
    a_token_is_found_in_the_text_it_came_with(page, script)
    thoughts_are_folded_away_and_not_sent_back(page, script)
    an_answer_without_an_end_is_shown_at_once(page, script)
    settings_are_asked_for(page, script)
    on_a_telephone_the_chat_comes_first_and_nothing_is_too_wide(page, script)
    code_is_code_before_its_end(page)
    the_models_name_can_be_copied(page)
