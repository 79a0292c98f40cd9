"""Tokenizers and chat templates, at which gateways look."""

from .case import refused, sound
from .writing import (
    BOOL,
    I32,
    MERGES,
    PIECES,
    TEMPLATE,
    TEXT,
    TOKEN_TYPES,
    TOKENS,
    U8,
    U32,
    integers,
    sentence_piece,
    texts,
    tiny,
)

KNOWN = (
    "llama-bpe llama3 falcon3 qwen2 deepseek-r1-qwen megrez qwen35 tekken gpt-4o dbrx glm4 smollm starcoder command-r"
    " gpt-2 mpt deepseek-llm deepseek-coder deepseek-v3 falcon seed-coder bloom viking"
).split()
PRE, TOKEN = "tokenizer.ggml.pre", "tokenizer.ggml.tokens"
CHAT = "tokenizer.chat_template"


def text(name, entries, *words, **more):
    return refused(name, tiny().having(entries), *words, text=True, **more)


def tokenizers():
    for name in KNOWN:
        yield sound(f"cuts text as {name}", tiny().having({PRE: (TEXT, name)}))
    for name in ("kimi-k2", "youtu", "Qwen2", "", "x\x1b[2J"):
        words = (f"pre-tokenizer {name[:1]}", "supported: ", "no gateway can")
        yield text(f"cuts text as {name!r}", {PRE: (TEXT, name)}, *words, never=("\x1b",))
    # They are cut in the same way.
    works = "completions of plain text work all the same"
    unfit = {"never": (works,)}
    yield sound("does not say how it cuts text", tiny().having({PRE: None}), "does not say", PRE, **unfit)
    yield sound("cuts text by default", tiny().having({PRE: (TEXT, "default")}), "`default`", PRE, **unfit)
    yield text("pre-tokenizer as a number", {PRE: (U32, 1)}, f"{PRE} must be a text")
    pieces = sentence_piece()
    yield sound("SentencePiece", tiny(vocabulary=len(PIECES)).having(pieces), worker=True)
    unscored = tiny(vocabulary=len(PIECES)).having(pieces | {"tokenizer.ggml.scores": None})
    yield refused("SentencePiece without scores", unscored, "score", text=True)
    for name in ("bert", "t5", "rwkv", "plamo2", "gemma4", "none", "no_vocab"):
        words = (f"tokenizer {name} ", "supported: gpt2, llama", "no gateway can")
        yield text(f"tokenizer {name}", {"tokenizer.ggml.model": (TEXT, name)}, *words)
    for key in ("model", "tokens", "merges"):
        key = f"tokenizer.ggml.{key}"
        yield text(f"without {key}", {key: None}, f"metadata key {key} is missing", "no gateway can")
    yield text("tokens as numbers", {TOKEN: integers([1, 2])}, TOKEN, "must be a list of texts")


def vocabularies():
    odd = tiny().having({"tokenizer.ggml.merges": texts([*MERGES, "q zz", "nothing", "", "Ġ Ġ Ġ"])})
    yield sound("merges of tokens that are not there", odd)
    yield sound("no merges", tiny().having({"tokenizer.ggml.merges": texts([])}))
    latin = [token.encode() for token in TOKENS[:-1]] + [b"\xff\xfe"]
    yield sound("a token that is not UTF-8", tiny().having({TOKEN: texts(latin)}), worker=True)
    twice = tiny().having({TOKEN: texts([*TOKENS[:-1], "Ā"]), "tokenizer.ggml.merges": texts(MERGES[:-1])})
    yield sound("a token that is there twice", twice)
    yield sound("an empty token", tiny().having({TOKEN: texts([*TOKENS[:-1], ""])}))
    types = "tokenizer.ggml.token_type"
    yield sound("no types of tokens", tiny().having({types: None}))
    fewer = {types: integers(TOKEN_TYPES[:-3])}
    yield text("fewer types than tokens", fewer, f"{len(TOKENS)} tokens", f"{len(TOKENS) - 3} types")
    yield sound("rows for more tokens", tiny(vocabulary=320), worker=True)
    row = "token_embd.weight"
    fewer = tiny(vocabulary=len(TOKENS) - 8)
    yield refused("rows for fewer tokens", fewer, row, str(len(TOKENS)), worker=True)
    yield sound("vocab_size is otherwise", tiny().having({"llama.vocab_size": (U32, 999)}))
    for value in (2**32 - 1, len(TOKENS)):
        yield sound(f"ends with token {value}", tiny().having({"tokenizer.ggml.eos_token_id": (U32, value)}))
    yield text("ends with token -1", {"tokenizer.ggml.eos_token_id": (I32, -1)}, "eos_token_id must be a whole number")
    yield text("begins as a number", {"tokenizer.ggml.add_bos_token": (U8, 1)}, "add_bos_token must be a truth value")
    gone = {f"tokenizer.ggml.{key}": None for key in ("bos_token_id", "eos_token_id", "add_bos_token")}
    yield sound("no token to begin and to end with", tiny().having(gone))
    none = {TOKEN: texts([]), types: integers([]), "tokenizer.ggml.merges": texts([])}
    yield text("no tokens", none, TOKEN, "one text or more")


def templates():
    other = ("/v1/completions", "--chat-template")
    yield sound("no chat template", tiny().having({CHAT: None}), "has no chat template", *other)
    for source in ("", "  \n"):
        yield sound(f"chat template {source!r}", tiny().having({CHAT: (TEXT, source)}), "empty", *other)
    broken = {
        "that is cut off": TEMPLATE[:40],
        "with an unknown word": "{% foo %}",
        "of Go": "{{- range .Messages }}{{ .Content }}{{ end }}",
    }
    for name, source in broken.items():
        yield sound(f"chat template {name}", tiny().having({CHAT: (TEXT, source)}), "cannot be used", *other)
    unknown = tiny().having({CHAT: (TEXT, "{{ messages | nothing_like_it }}")})
    yield sound("chat template with an unknown filter", unknown, "cannot be used", "nothing_like_it", *other)
    generation = TEMPLATE.replace(
        "{{ message['content'] }}", "{% generation %}{{ message['content'] }}{% endgeneration %}"
    )
    assert generation != TEMPLATE
    for name, source in {
        "with generation": generation,
        "with break": "{% for m in messages %}{% break %}{% endfor %}",
    }.items():
        yield sound(f"chat template {name}", tiny().having({CHAT: (TEXT, source)}), never=("cannot be used",))
    tools = {f"{CHAT}.tool_use": (TEXT, "{% foo %}"), f"{CHAT}s": texts(["tool_use"])}
    yield sound("a broken template for tools", tiny().having(tools))
    yield text("chat template as a list", {CHAT: texts([TEMPLATE])}, f"{CHAT} must be a text")
    yield text("chat template as a truth value", {CHAT: (BOOL, 1)}, f"{CHAT} must be a text")


def cases():
    yield from tokenizers()
    yield from vocabularies()
    yield from templates()
