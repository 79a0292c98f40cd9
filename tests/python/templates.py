#!/usr/bin/env python3
"""What the package `transformers` makes of conversations by real chat templates, and whether the gateway makes that too.

The templates are taken out of packages that have many: the source of llama.cpp (in that of `llama-cpp-python`),
`axolotl`, `trl` and `xinference`. They are downloaded into FOLDER, unless they lie there already.

    python3 -m venv v && v/bin/pip install -r tests/python/templates-requirements.txt
    cargo build --release -p gateway --example templates
    v/bin/python tests/python/templates.py FOLDER target/release/examples/templates [--only NAME] [--show]

Each conversation is rendered by each template. Equal are the same text, and two refusals; what is compared with is said
at `reference`. The date is today's on both sides. Fails where templates differ that `LISTED` does not have, or where it
has one that is equal.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

PACKAGES = ["llama-cpp-python==0.3.36", "axolotl==0.19.0", "trl==1.16.0", "xinference==4.1.0"]
SOURCE = "llama-cpp-python"
BEGIN, END = "<s>", "</s>"

# By template: why the gateway makes something else of some conversations.
LISTED = {
    "axolotl/llava": "writes a blank before what a message says, also where it says nothing and is not null",
    "llama_cpp_python/CohereForAI-c4ai-command-r-plus-tool_use": "goes through None where there are no tools",
    "llama_cpp_python/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "goes through None where there are no tools",
    "llama_cpp_python/llama-cpp-deepseek-r1": "writes an iterator as JSON, which Python refuses",
    "llama_cpp_python/meetkai-functionary-medium-v3.1": "puts `safe` texts together with others, which Jinja escapes",
}


def called(place, name, arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call{place:05}", "type": "function", "function": function}


def result(place, name, content):
    return {"role": "tool", "tool_call_id": f"call{place:05}", "name": name, "content": content}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def tool(name, description, properties, required):
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


SYSTEM = {"role": "system", "content": "You are a careful assistant.\nAnswer briefly."}
TOOLS = [
    tool("weather", "Tells the weather of a place; \"quoted\" & <b>bold</b>.", {
        "place": {"type": "object", "description": "Where", "properties": {
            "city": {"type": "string", "description": "Its name, e.g. 'Zürich'"},
            "position": {"type": "array", "items": {"type": "number"}, "minItems": 2},
        }, "required": ["city"]},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14},
        "fine": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    }, ["place"]),
    tool("time", "Tells the time.", {}, []),
]
ASKED = [SYSTEM, user("How is the weather in Zürich?")]
CALL = {"place": {"city": "Zürich", "position": [47.37, 8.5]}, "days": 3, "fine": True, "unit": None}
TURNS = [user("Hi."), assistant("Hello! How can I help?"), user("Tell me of Rome."), assistant("It is old.")]
ODD = "  \n\tIt's \"odd\": \\n \\\\ {{ x }} {% if %} <b>&amp;</b> é 漢字 🦙 e\u0301 \u00a0\u2028 'q' \n\n "

# By name: the messages, and what else there is.
CONVERSATIONS = {
    "system": ([SYSTEM, user("Hi.")], {}),
    "no system": ([user("Hi.")], {}),
    "turns": ([SYSTEM, *TURNS, user("And?")], {}),
    "ended": ([SYSTEM, *TURNS[:2]], {"add_generation_prompt": False}),
    "assistant twice": ([SYSTEM, *TURNS[:2]], {}),
    "goes on": (TURNS, {"continue_final_message": True, "add_generation_prompt": False}),
    "odd text": ([{**SYSTEM, "content": ODD}, user(ODD), assistant(ODD), user(ODD)], {}),
    "parts": ([SYSTEM, user([{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}])], {}),
    "empty": ([{**SYSTEM, "content": ""}, user(""), assistant(""), user("Hi.")], {}),
    "tools": (ASKED, {"tools": TOOLS}),
    "tools, no system": (ASKED[1:], {"tools": TOOLS}),
    "call": ([*ASKED, assistant(None, tool_calls=[called(1, "weather", CALL)])], {"tools": TOOLS}),
    "result": ([*ASKED, assistant(None, tool_calls=[called(1, "weather", CALL)]),
                result(1, "weather", '{"sky": "blue"}')], {"tools": TOOLS}),
    "empty call": ([*ASKED, assistant("", tool_calls=[called(1, "time", {})]), result(1, "time", "9:05")],
                   {"tools": TOOLS}),
    "two calls": ([*ASKED, assistant("I look.", tool_calls=[called(1, "weather", CALL), called(2, "time", {})]),
                   result(1, "weather", "blue"), result(2, "time", "9:05"), assistant("Blue."), user("Thanks.")],
                  {"tools": TOOLS}),
    "thought": ([user("2+2?"), assistant("4", reasoning_content="Two and\n\ntwo."), user("3+3?")], {}),
    "thought and called": ([*ASKED, assistant("", reasoning_content="I look.", tool_calls=[called(1, "time", {})]),
                            result(1, "time", "9:05")], {"tools": TOOLS}),
    "no thinking": ([SYSTEM, user("Hi.")], {"enable_thinking": False}),
}


def download(folder):
    """The packages' files."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        name, version = package.replace("-", "_").split("==")
        if not list(folder.glob(f"{name}-{version}*")):
            # The source is not built: its metadata are made with what is installed.
            is_source = package.startswith(SOURCE)
            how = ["--no-binary", name, "--no-build-isolation"] if is_source else ["--only-binary", name]
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            subprocess.run([*pip, *how, "-d", folder, package], check=True)
        yield next(folder.glob(f"{name}-{version}*"))


def files(package):
    """Names and texts of what may have templates."""
    if package.suffix == ".gz":
        with tarfile.open(package) as archive:
            for member in archive:
                if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                    yield member.name, archive.extractfile(member).read().decode()
        return
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if name.endswith(".jinja") or "/model/llm/models/" in name and name.endswith(".json"):
                yield name, archive.read(name).decode()


def templates(folder):
    """By name, each once."""
    found = {}
    for package in download(folder):
        for name, text in files(package):
            whose = f"{package.name.split('-')[0]}/{pathlib.Path(name).stem}"
            if name.endswith(".jinja"):
                found.setdefault(text.strip("\n"), (whose, text))
                continue
            specs = json.loads(text)
            for spec in specs if isinstance(specs, list) else [specs]:
                if source := spec.get("chat_template"):
                    found.setdefault(source.strip("\n"), (whose, source))
    return dict(sorted(found.values()))


HF = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=BEGIN, eos_token=END)


def rendered(template, messages, more):
    """The text, or None where it is refused."""
    try:
        given = {"add_generation_prompt": True, **more}
        return HF.apply_chat_template(messages, chat_template=template, tokenize=False, **given)
    except Exception:
        return None


def with_arguments(messages, form):
    """The messages with the arguments of calls in another form."""
    def other(call):
        return {**call, "function": {**call["function"], "arguments": form(call["function"]["arguments"])}}
    return [{**m, "tool_calls": [other(c) for c in m["tool_calls"]]} if "tool_calls" in m else m for m in messages]


def joined(content):
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def without_parts(messages):
    return [{**m, "content": joined(m["content"]) if m["content"] else m["content"]} for m in messages]


def in_parts(messages):
    return [{**m, "content": [{"type": "text", "text": joined(m["content"])}]} for m in messages]


def wants_parts(template):
    """Whether it leaves out what is no list of parts."""
    texts = [rendered(template, form([user("needle")]), {}) for form in (list, in_parts)]
    return "needle" not in (texts[0] or "") and "needle" in (texts[1] or "")


def reference(template, messages, more):
    """What there is to render. Parts are one text, which is a list of one part where nothing else is shown. Arguments
    are an object, as `transformers` documents it, and what is null is left out; where that is refused, null is an empty
    text; where that is refused too, arguments are the text that OpenAI has."""
    plain = [{**m, "content": joined(m["content"])} for m in messages]
    forms = [in_parts(messages)] if wants_parts(template) else [without_parts(messages), plain]
    texts = (rendered(template, with_arguments(said, form), more) for form in (json.loads, str) for said in forms)
    return next((text for text in texts if text is not None), None)


def made(program, cases):
    """What the gateway makes of them: the texts and what is refused, in order."""
    lines = []
    for template, messages, more in cases:
        more = dict(more)
        speaks, goes_on = more.pop("add_generation_prompt", True), more.pop("continue_final_message", False)
        following = "more_of_the_last" if goes_on else "new_message" if speaks else "anything"
        plain = [{**m, "content": joined(m["content"])} for m in messages]
        asked = {"messages": plain, "variables": more, "next": following}
        lines.append(json.dumps({"template": template, "begin": BEGIN, "end": END, **asked}))
    answer = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in answer.stdout.split("\n")[:-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--only", metavar="NAME", default="", help="templates with this in their names")
    parser.add_argument("--show", action="store_true", help="both texts of what differs")
    arguments = parser.parse_args()
    asked = [
        ((name, conversation), (template, *CONVERSATIONS[conversation]))
        for name, template in templates(arguments.folder).items() if arguments.only in name
        for conversation in CONVERSATIONS
    ]
    counts = collections.Counter()
    different = collections.Counter()
    for (place, case), answer in zip(asked, made(arguments.program, [case for _, case in asked]), strict=True):
        name, conversation = place
        expected = reference(*case)
        if conversation == "parts" and rendered(*case) != expected:
            counts["otherwise if the parts are a list"] += 1
        if answer.get("text") == expected:
            counts["refused by both" if expected is None else "the same text"] += 1
            continue
        counts["different"] += 1
        different[name] += 1
        if name not in LISTED:
            print(f"{name}: {conversation}: {difference(expected, answer)}")
        if arguments.show:
            print(f"--- {expected}\n+++ {answer}")
    names = {name for (name, _), _ in asked}
    for name in sorted(names & set(LISTED)):
        print(f"{name}: {different[name]} conversations, as listed: {LISTED[name]}")
    print(f"{len(names)} templates, {len(names) - len(different)} of them equal in all of {len(CONVERSATIONS)} "
          f"conversations; {len(asked)} in all: {dict(counts)}")
    return 1 if (names & set(LISTED)) != set(different) else 0


def difference(expected, answer):
    """In a line."""
    text = answer.get("text")
    if text is None:
        return f"refused: {answer['error']}"
    if expected is None:
        return "transformers refuses it"
    place = next((i for i, (a, b) in enumerate(zip(expected, text)) if a != b), min(len(expected), len(text)))
    start = max(place - 20, 0)
    return f"{expected[start:place + 30]!r} is {text[start:place + 30]!r}"


if __name__ == "__main__":
    sys.exit(main())
