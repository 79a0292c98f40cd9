#!/usr/bin/env python3
"""What the package `tokenizers` makes of texts, for every way to cut text that model files name.

The ways are written here as the models' own `tokenizer.json` files have them, with patterns that look ahead, and run by
another engine for patterns than the gateway's. Wants a folder with vocabularies as the source of llama.cpp has them
(`models/ggml-vocab-*.gguf`, in the source package of `llama-cpp-python` too).

    python3 -m venv v && v/bin/pip install -r tests/python/tokenizing-requirements.txt
    v/bin/python tests/python/tokenizing.py FOLDER [--check] [--tokens PROGRAM]

Without `--check` it writes `services/gateway/src/text/tokenizer/tests/ways.json`: of GPT-2's vocabulary what the texts
need, and the tokens of each text by each way. A test of the gateway compares itself with that on every run. With it, it
compares. With `--tokens`, the gateway's example of that name, it also compares all vocabularies of the folder whole: with
`tokenizers` on these texts and on random ones, and with the answers that lie beside them.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

import gguf
from tokenizers import Regex, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Sequence, Split

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "services/gateway/src/text/tokenizer/tests/ways.json"
SEPARATOR = "\n__ggml_vocab_test__\n"

TEXTS = [
    "Hello world, it's 9:05 and WE'VE 1234567 reasons!",
    "  two blanks,\tone tab \t\n\n three lines\r\n\r\nlast   ",
    "don't DON'T I'll i'LL o'clock 'tis 's",
    "camelCaseWord HTTPServer iPhone McDonald's ÀÉÎ àéî",
    "3.14159 + 2,000,000 = 0x1F // 12 345 ½ ⅷ ٣٤٥",
    "def f(x):\n    return {'a': [x**2, !x]}  # ok?\n\n\n",
    "漢字とカタカナ、한국어 텍스트。 ไทย हिन्दी कि العربية",
    "e\u0301 e\u0302\u0301 A\u030a \u1112\u1161\u11ab",
    "🦙🚀 👩‍👩‍👧 ★☆ €5 <tag/> $x ~y ^z `w` |v|",
    "\u3000\u3000wide\u00a0no-break\u200bnone\u2028line",
    "…!?。，、 (a) [b] {c} \"d\" ‘e’ “f”",
    "a/b//c\n/d ./e \\n",
    "нещо На Български ΑΒΓ αβγ Ǆ ǅ ǆ ʰʲ",
    " ",
    "\n",
    "0",
    "100 1000 10000 100000a",
]

SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
PLAIN = r" ?[^\s\p{L}\p{N}]+[\r\n]*|" + BLANKS
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cut(pattern):
    return Split(Regex(pattern), "isolated")


def capitals(end, digits):
    first = r"[^\r\n\p{L}\p{N}]?"
    words = f"{first}{UPPER}*{LOWER}+{end}|{first}{UPPER}+{LOWER}*{end}"
    return cut(words + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + BLANKS)


BYTES = ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = [ByteLevel(add_prefix_space=False, use_regex=True)]
STARCODER = [Digits(individual_digits=True), *GPT2]
LLAMA3 = [cut(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + PLAIN), BYTES]
QWEN2 = [cut(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + PLAIN), BYTES]
QWEN35 = [cut(SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + BLANKS), BYTES]
SEED = [cut(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + BLANKS), BYTES]
MINICPM = [cut(r"\p{N}{1,3}"), cut(SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|" + PLAIN), BYTES]
EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
CASED = "[\\p{Lu}\\p{Ll}\\p{Lt}]"
DEEPSEEK_LLM = [
    cut("[\r\n]"), cut(rf"\s?{CASED}+"), cut("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"), cut(r"\s+$"), cut(EAST_ASIAN),
    Digits(individual_digits=False), BYTES,
]
DEEPSEEK_CODER = [
    cut("[\r\n]"), cut(r"\s?\p{L}+"), cut(r"\s?\p{P}+"), cut(EAST_ASIAN), Digits(individual_digits=True), BYTES,
]
DEEPSEEK_V3 = [
    cut(r"\p{N}{1,3}"), cut("[一-龥぀-ゟ゠-ヿ]+"),
    cut(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + BLANKS),
    BYTES,
]
VIKING = cut(r" ?[^(\s|.,!?…。，、।۔،)]+")
LAST_BLANK = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
DEFAULT = [cut(r"[\p{P}\$\+<=>\^~\|]+"), cut(LAST_BLANK), cut(r"\p{N}+"), cut("[0-9][0-9][0-9]"), BYTES]
FALCON = [cut(r"[\p{P}\$\+<=>\^~\|`]+"), cut(LAST_BLANK), cut("[0-9][0-9][0-9]"), BYTES]

# By one of its names: how text is cut, whether it is composed, whether words that are tokens are left whole.
WAYS = {
    "llama-bpe": (LLAMA3, False, True),
    "glm4": (LLAMA3, False, True),
    "dbrx": (LLAMA3, False, False),
    "qwen2": (QWEN2, True, False),
    "stablelm2": (QWEN2, False, False),
    "qwen35": (QWEN35, False, False),
    "tekken": ([capitals("", r"\p{N}"), BYTES], False, True),
    "gpt-4o": ([capitals(SHORT + "?", r"\p{N}{1,3}"), BYTES], False, False),
    "smollm": (STARCODER, False, False),
    "command-r": (STARCODER, True, False),
    "gpt-2": (GPT2, False, False),
    "mpt": (GPT2, True, False),
    "falcon": (FALCON, False, False),
    "deepseek-llm": (DEEPSEEK_LLM, False, False),
    "deepseek-coder": (DEEPSEEK_CODER, False, False),
    "deepseek-v3": (DEEPSEEK_V3, False, False),
    "seed-coder": (SEED, False, False),
    "minicpm5": (MINICPM, False, True),
    "bloom": ([VIKING, BYTES], False, False),
    "viking": ([VIKING, Digits(individual_digits=True), BYTES], False, False),
    "default": (DEFAULT, False, False),
}
SAME = {"refact": "smollm", "starcoder": "smollm"}


class Vocabulary:
    """What a vocabulary's file holds."""

    def __init__(self, path):
        fields = {name: field for name, field in gguf.GGUFReader(path).fields.items()}
        content = {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.ggml.")}
        self.model = content["tokenizer.ggml.model"]
        self.pre = content.get("tokenizer.ggml.pre")
        self.tokens = content["tokenizer.ggml.tokens"]
        self.types = content["tokenizer.ggml.token_type"]
        self.merges = [tuple(merge.split(" ")) for merge in content.get("tokenizer.ggml.merges", [])]


def reference(tokens, merges, way):
    pre_tokenizers, composes, whole = WAYS[way]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
    tokenizer.pre_tokenizer = Sequence(pre_tokenizers)
    if composes:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def steps(word, ranks):
    """All that stands there while a word is merged."""
    symbols = list(word)
    seen = set(symbols)
    while True:
        pairs = [(ranks.get(pair, len(ranks)), place) for place, pair in enumerate(zip(symbols, symbols[1:]))]
        rank, place = min(pairs, default=(len(ranks), 0))
        if rank == len(ranks):
            return seen
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        seen.add(symbols[place])


def needed(vocabulary):
    """Of a vocabulary what the texts need, and the tokens of each text by each way."""
    ranks = {merge: rank for rank, merge in enumerate(vocabulary.merges)}
    known = set(vocabulary.tokens)
    kept = {token for token in known if len(token) == 1}
    for way in WAYS:
        tokenizer = reference(vocabulary.tokens, vocabulary.merges, way)
        for text in TEXTS:
            composed = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
            for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(composed):
                kept |= steps(word, ranks) | ({word} & known)
    tokens = [token for token in vocabulary.tokens if token in kept]
    merges = [merge for merge in vocabulary.merges if {*merge, "".join(merge)} <= kept]
    answers = {}
    for way in WAYS:
        whole, small = reference(vocabulary.tokens, vocabulary.merges, way), reference(tokens, merges, way)
        answers[way] = [ids(small, text) for text in TEXTS]
        for text, made in zip(TEXTS, answers[way]):
            assert [tokens[place] for place in made] == [vocabulary.tokens[place] for place in ids(whole, text)]
    merges = [" ".join(merge) for merge in merges]
    return {"tokens": tokens, "merges": merges, "texts": TEXTS, "ways": answers}


def written(case):
    """JSON with a line for each text."""
    ways = ",\n".join(
        f" {json.dumps(way)}: [\n" + ",\n".join(f"  {json.dumps(made)}" for made in answers) + "]"
        for way, answers in case["ways"].items()
    )
    parts = [f"{json.dumps(part)}: {json.dumps(case[part], ensure_ascii=True)}" for part in ("tokens", "merges", "texts")]
    return "{" + ",\n".join(parts) + ',\n"ways": {\n' + ways + "}}\n"


def random_texts(count):
    draw = random.Random(7)
    letters = [" ", " ", "\n", "\r\n", "\t", "'", "s", "T", "ll", "a", "B", "é", "é", "ß", "漢", "か", "한", "ع", "1", "23", "½",
               ".", ",", "!", "$", "_", "/", "-", "🦙", "\u200d", "\u3000", "ि", "ก", "<", "</", ">", "the", " world", "İ", "ſ"]
    return ["".join(draw.choice(letters) for _ in range(draw.randrange(1, 30))) for _ in range(count)]


def told(program, path, texts):
    asked = json.dumps({"model": str(path), "texts": texts})
    answer = subprocess.run([program], input=asked, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def compare(program, path):
    """How many texts there were, and how many of them were read otherwise."""
    vocabulary, inputs = Vocabulary(path), path.with_name(path.name + ".inp")
    wrong, count = 0, 0

    def count_wrong(kind, texts, expected):
        nonlocal wrong, count
        for text, expected, made in zip(texts, expected, told(program, path, texts), strict=True):
            count += 1
            if expected != made:
                wrong += 1
                if wrong <= 3:
                    print(f"  {kind} {text!r}:\n    {expected}\n    {made}")

    if inputs.exists():
        texts = inputs.read_bytes().decode().split(SEPARATOR)
        answers = path.with_name(path.name + ".out").read_text().split("\n")
        count_wrong("answer", texts, [[int(token) for token in line.split()] for line in answers[: len(texts)]])
    way = SAME.get(vocabulary.pre, vocabulary.pre)
    if vocabulary.model == "gpt2" and way in WAYS:
        tokenizer = reference(vocabulary.tokens, vocabulary.merges, way)
        whole = [t for t, kind in zip(vocabulary.tokens, vocabulary.types) if kind in (3, 4)]
        texts = [t for t in TEXTS + random_texts(400) if not any(special in t for special in whole)]
        count_wrong("tokenizers", texts, [ids(tokenizer, text) for text in texts])
    return count, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--tokens", metavar="PROGRAM")
    arguments = parser.parse_args()
    text = written(needed(Vocabulary(arguments.folder / "ggml-vocab-gpt-2.gguf")))
    failed = False
    if not arguments.check:
        ANSWERS.write_text(text)
    elif ANSWERS.read_text() != text:
        failed = True
        print(f"{ANSWERS} is not what tokenizers says")
    for path in sorted(arguments.folder.glob("ggml-vocab-*.gguf")) if arguments.tokens else []:
        try:
            count, wrong = compare(arguments.tokens, path)
        except subprocess.CalledProcessError as error:
            print(f"{path.name}: {error.stderr.strip()}")
            continue
        failed |= wrong > 0
        print(f"{path.name}: {count - wrong} of {count} as the reference")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
