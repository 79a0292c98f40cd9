"""Writes GGUF files: a tiny llama with a working vocabulary, and every way in which it can be otherwise.

The format is described in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
"""

import copy
import math
import random
import struct
from typing import NamedTuple

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
# ggml's types by number: name, numbers of a block, bytes of a block. Of those that ggml has given up, as they were.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    4: ("Q4_2", 16, 10),
    5: ("Q4_3", 16, 12),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    31: ("Q4_0_4_4", 32, 18),
    32: ("Q4_0_4_8", 32, 18),
    33: ("Q4_0_8_8", 32, 18),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
HIDDEN, HEADS, KV_HEADS, HEAD, WIDE, LAYERS = 64, 4, 2, 16, 256, 2
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Some thousand small numbers, of which every tensor takes as many as it needs.
POOL = struct.pack("<4096f", *(random.Random(1).uniform(-0.2, 0.2) for _ in range(4096)))


class Tensor(NamedTuple):
    kind: int
    # Innermost first.
    shape: tuple
    data: bytes
    # Where it is said to lie, if that is not where it lies.
    offset: int | None = None


def size(kind, shape):
    _, weights, count = TYPES.get(kind, ("", 1, 4))
    return math.prod(shape) // weights * count


def tensor(shape, kind=0):
    """With weights of 32 bits that are small, and with zeros where they are stored otherwise."""
    count = size(kind, shape)
    return Tensor(kind, tuple(shape), (POOL * (count // len(POOL) + 1))[:count] if kind == 0 else bytes(count))


def floats(values):
    """A tensor of one dimension with these numbers."""
    return Tensor(0, (len(values),), struct.pack(f"<{len(values)}f", *values))


class File:
    """A GGUF file before it is written; what is in it can be changed by then."""

    def __init__(self, metadata, tensors):
        self.metadata, self.tensors = dict(metadata), dict(tensors)
        self.version, self.order, self.alignment = 3, "<", 32
        # Entries behind the others as they are, and what the file says of numbers if that is not how many there are.
        self.more_entries, self.counts = [], {}

    def copy(self):
        return copy.deepcopy(self)

    def having(self, entries=(), tensors=(), **fields):
        """The same with these entries and tensors, without those that are None, and with these fields."""
        other = self.copy()
        for mine, changes in ((other.metadata, entries), (other.tensors, tensors)):
            for name, value in dict(changes).items():
                mine.pop(name, None) if value is None else mine.update({name: value})
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    def pack(self, form, *values):
        return struct.pack(self.order + form, *values)

    def text(self, value):
        value = value if isinstance(value, bytes) else value.encode()
        return self.pack("Q", len(value)) + value

    def value(self, kind, value):
        if kind == TEXT:
            return self.text(value)
        if kind == ARRAY:
            of, items = value
            if of == TEXT:
                body = b"".join(map(self.text, items))
            else:
                body = self.pack(f"{len(items)}{FORMS[of]}", *items)
            return self.pack("IQ", of, len(items)) + body
        return self.pack(FORMS[kind], value)

    def header(self):
        """All before the weights, and how many bytes of it are entries."""
        # Version 1 had counts of 32 bits, which nothing needs here: nobody reads on.
        head = b"GGUF" + self.pack("I", self.version)
        entries = [*self.metadata.items(), *self.more_entries]
        head += self.pack("Q", self.counts.get("tensors", len(self.tensors)))
        head += self.pack("Q", self.counts.get("entries", len(entries)))
        for key, (kind, value) in entries:
            head += self.text(key) + self.pack("I", kind) + self.value(kind, value)
        end_of_entries, offset = len(head), 0
        for name, tensor in self.tensors.items():
            place = offset if tensor.offset is None else tensor.offset
            head += (
                self.text(name) + self.pack("I", len(tensor.shape)) + self.pack("Q" * len(tensor.shape), *tensor.shape)
            )
            head += self.pack("IQ", tensor.kind, place)
            offset += -(-len(tensor.data) // self.alignment) * self.alignment
        return head, end_of_entries

    def bytes(self):
        head, _ = self.header()
        parts = [head, bytes(-len(head) % self.alignment)]
        for tensor in self.tensors.values():
            parts += [tensor.data, bytes(-len(tensor.data) % self.alignment)]
        return b"".join(parts)


def byte_characters():
    """The characters that stand for bytes, as GPT-2 maps them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġ t", "Ġt he"]
TOKENS = [*SPECIALS, *byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
TOKEN_TYPES = [3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS))
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh"]
PIECE_TYPES = [2, 3, 3] + [6] * 256 + [1] * 9


def texts(items):
    return ARRAY, (TEXT, list(items))


def integers(items, kind=I32):
    return ARRAY, (kind, list(items))


def byte_level(pre="smollm"):
    yield "tokenizer.ggml.model", (TEXT, "gpt2")
    if pre is not None:
        yield "tokenizer.ggml.pre", (TEXT, pre)
    yield "tokenizer.ggml.tokens", texts(TOKENS)
    yield "tokenizer.ggml.token_type", integers(TOKEN_TYPES)
    yield "tokenizer.ggml.merges", texts(MERGES)
    yield "tokenizer.ggml.bos_token_id", (U32, 1)
    yield "tokenizer.ggml.eos_token_id", (U32, 2)
    yield "tokenizer.ggml.add_bos_token", (BOOL, 0)
    yield "tokenizer.chat_template", (TEXT, TEMPLATE)


def sentence_piece():
    """What is otherwise than in the byte-level one."""
    return {
        "tokenizer.ggml.model": (TEXT, "llama"),
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": texts(PIECES),
        "tokenizer.ggml.token_type": integers(PIECE_TYPES),
        "tokenizer.ggml.scores": (ARRAY, (F32, [-float(number) for number in range(len(PIECES))])),
        "tokenizer.ggml.unknown_token_id": (U32, 0),
    }


def numbers(arch):
    for key, value in (
        ("block_count", LAYERS),
        ("context_length", 512),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", WIDE),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", HEAD),
    ):
        yield f"{arch}.{key}", (U32, value)
    yield f"{arch}.attention.layer_norm_rms_epsilon", (F32, 1e-5)
    yield f"{arch}.rope.freq_base", (F32, 10000.0)


def layer(number):
    for part, shape in (
        ("attn_norm", (HIDDEN,)),
        ("attn_q", (HIDDEN, HEADS * HEAD)),
        ("attn_k", (HIDDEN, KV_HEADS * HEAD)),
        ("attn_v", (HIDDEN, KV_HEADS * HEAD)),
        ("attn_output", (HEADS * HEAD, HIDDEN)),
        ("ffn_norm", (HIDDEN,)),
        ("ffn_gate", (HIDDEN, WIDE)),
        ("ffn_up", (HIDDEN, WIDE)),
        ("ffn_down", (WIDE, HIDDEN)),
    ):
        yield f"blk.{number}.{part}.weight", tensor(shape)


def tiny(arch="llama", vocabulary=len(TOKENS)):
    """A whole model. Of architectures besides llama with all that these have in common with it."""
    metadata = {"general.architecture": (TEXT, arch), "general.name": (TEXT, f"odd-{arch}")}
    tensors = {"token_embd.weight": tensor((HIDDEN, vocabulary)), "output_norm.weight": tensor((HIDDEN,))}
    for number in range(LAYERS):
        tensors.update(layer(number))
    return File(metadata | dict(numbers(arch)) | dict(byte_level()), tensors)
