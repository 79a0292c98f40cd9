"""What a header says of the model: architectures, numbers, scaling, and keys of other types."""

from .case import refused, sound
from .writing import (
    ARRAY,
    BOOL,
    F32,
    F64,
    HEAD,
    HIDDEN,
    I32,
    TEXT,
    U8,
    U16,
    U32,
    U64,
    File,
    integers,
    tensor,
    texts,
    tiny,
)

LAYERS = range(2)
OTHERS = (
    "mistral3 starcoder2 qwen3next qwen35moe qwen3vl gemma3n gemma4 phi2 glm4moe deepseek2 lfm2 mamba falcon gpt2"
    " llama4 minicpm3 exaone4 flux LLAMA llama\x1b[31m"
).split()
ENCODERS = ("bert", "nomic-bert", "jina-bert-v2", "t5encoder", "gemma-embedding")


def architectures():
    yield sound("architecture llama", tiny(), worker=True)
    norms = {f"blk.{n}.attn_{which}_norm.weight": tensor((HEAD,)) for n in LAYERS for which in "qk"}
    yield sound("architecture qwen3", tiny("qwen3").having(tensors=norms), worker=True)
    rows = (("q", HIDDEN), ("k", 32), ("v", 32))
    biases = {f"blk.{n}.attn_{which}.bias": tensor((size,)) for n in LAYERS for which, size in rows}
    yield sound("architecture qwen2", tiny("qwen2").having(tensors=biases), worker=True)
    yield refused("qwen2 without biases", tiny("qwen2"), "tensor blk.0.attn_q.bias is missing")
    yield sound("architecture granite", tiny("granite"), worker=True)
    posts = {f"blk.{n}.post_{part}_norm.weight": tensor((HIDDEN,)) for n in LAYERS for part in ("attention", "ffw")}
    windows = {"gemma2.attention.sliding_window": (U32, 64)}
    yield sound("architecture gemma2", tiny("gemma2").having(windows, posts), worker=True)
    yield refused("gemma2 without its window", tiny("gemma2").having({}, posts), "gemma2.attention.sliding_window")
    for name in OTHERS:
        yield refused(
            f"architecture {name!r}"[:24],
            tiny(name),
            f"architecture {name[:5]}",
            "llama, qwen2",
            never=("\x1b", "damaged"),
        )
    yield refused("what helps with an architecture", tiny("mamba"), never=("--total-shards",))
    for name in ENCODERS:
        yield refused(f"encoder {name}", tiny(name), f"architecture {name} ", "supported: llama", never=("damaged",))
    bare = File(
        {"general.architecture": (TEXT, "clip"), "clip.has_vision_encoder": (BOOL, 1)},
        {"v.post_ln.weight": tensor((8,))},
    )
    yield refused("a projector of images", bare, "projector", "language model")
    adapter = {"general.type": (TEXT, "adapter"), "adapter.type": (TEXT, "lora"), "adapter.lora.alpha": (F32, 16.0)}
    adapter |= {"general.architecture": (TEXT, "llama")}
    lora = File(adapter, {f"blk.0.attn_q.weight.lora_{which}": tensor((HIDDEN, 4)) for which in "ab"})
    yield refused("an adapter", lora, "adapter", "language model", worker=True)
    matrix = File({"general.type": (TEXT, "imatrix")}, {"blk.0.attn_q.weight.in_sum2": tensor((HIDDEN,))})
    yield refused("a matrix of importance", matrix, "imatrix", "language model")
    yield refused("no architecture", tiny().having({"general.architecture": None}), "general.architecture is missing")
    yield refused("architecture as a number", tiny().having({"general.architecture": (U32, 1)}), "must be a text")
    many = {"llama.expert_count": (U32, 8), "llama.expert_used_count": (U32, 2)}
    yield refused("experts that are not there", tiny().having(many), "ffn_gate_inp.weight is missing")
    gate = {f"blk.{n}.ffn_gate_inp.weight": tensor((HIDDEN, 4)) for n in LAYERS}
    stacks = {f"blk.{n}.ffn_{part}_exps.weight": tensor((HIDDEN, 256, 4)) for n in LAYERS for part in ("gate", "up")}
    stacks |= {f"blk.{n}.ffn_down_exps.weight": tensor((256, HIDDEN, 4)) for n in LAYERS}
    dense = {f"blk.{n}.ffn_{part}.weight": None for n in LAYERS for part in ("gate", "up", "down")}
    mixture = tiny().having(many | {"llama.expert_count": (U32, 4)}, gate | stacks | dense)
    yield sound("experts", mixture, worker=True)
    apart = {f"blk.{n}.ffn_gate.{expert}.weight": tensor((HIDDEN, 256)) for n in LAYERS for expert in range(4)}
    old = mixture.having(tensors=apart | {name: None for name in stacks})
    yield refused("experts as of old, a tensor each", old, "ffn_gate_exps.weight is missing")
    yield refused(
        "more experts used than there are", mixture.having({"llama.expert_used_count": (U32, 5)}), "5 of 4 experts"
    )
    other = {f"granite.{key.split('.')[1]}": value for key, value in many.items()}
    yield refused(
        "experts of another architecture", tiny("granite").having(other), "granite with experts", "not supported"
    )


def rope(kind, factor=4.0, **more):
    entries = {"llama.rope.scaling.type": (TEXT, kind)} if kind else {}
    entries |= {"llama.rope.scaling.factor": (F32, factor)} if factor is not None else {}
    return tiny().having(entries | more)


def scaling():
    for kind in ("", "none", "linear", "yarn"):
        yield sound(f"rope scaling {kind or 'by a factor alone'}", rope(kind), worker=True)
    yield sound(
        "rope scaling yarn with its length", rope("yarn", **{"llama.rope.scaling.original_context_length": (U32, 128)})
    )
    yield sound("rope scaling linear without a factor", rope("linear", None), worker=True)
    yield sound("rope scaling yarn without a factor", rope("yarn", None), worker=True)
    for kind in ("dynamic", "llama3", "su", "longrope", "mrope"):
        yield refused(
            f"rope scaling {kind}", rope(kind), f"rope scaling {kind}", "none, linear, yarn", worker=kind == "dynamic"
        )
    fast = tiny().having({"llama.rope.freq_base": (F32, 1e-30)})
    yield refused("angles that are too large", fast, "rope.freq_base", worker=True)
    yield refused("rope scaling by -1", rope("linear", -1.0), "factor -1")
    old = tiny().having({"llama.rope.scale_linear": (F32, 2.0)})
    yield sound("rope scaling as of old", old, worker=True)


def numbers():
    """Numbers that are there for each layer, that are missing, of other types, or that cannot be."""
    kv, wide = "llama.attention.head_count_kv", "llama.feed_forward_length"
    for kind, name in ((U32, "U32"), (I32, "I32")):
        yield sound(f"{name} of heads for each layer", tiny().having({kv: integers([2, 2], kind)}), worker=True)
    yield sound("widths for each layer", tiny().having({wide: integers([256, 256])}))
    unequal = "with other numbers for other layers"
    yield refused("unequal heads for each layer", tiny().having({kv: integers([4, 2])}), kv, unequal, worker=True)
    yield refused("unequal widths for each layer", tiny().having({wide: integers([256, 128])}), wide, unequal)
    yield refused("heads for no layer", tiny().having({kv: integers([])}), kv, "must be")
    yield refused("heads as texts", tiny().having({kv: texts(["2"])}), kv, "must be a whole number")
    for kind, name in ((U8, "U8"), (U16, "U16"), (I32, "I32"), (U64, "U64")):
        yield sound(f"a number as {name}", tiny().having({"llama.block_count": (kind, 2)}))
    for value in ((TEXT, "2"), (F32, 2.0), (I32, -2), (U64, 1 << 40), (BOOL, 1)):
        name = f"{value[1]!r} of type {value[0]} as a number"
        yield refused(name, tiny().having({"llama.block_count": value}), "llama.block_count must be a whole number")
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    yield sound("a fraction of 64 bits", tiny().having({epsilon: (F64, 1e-5)}))
    yield refused("no fraction", tiny().having({epsilon: (U32, 1)}), epsilon, "must be a finite number")
    yield refused("a fraction that is no number", tiny().having({epsilon: (F32, float("nan"))}), epsilon, "finite")
    without = tiny().having({"llama.context_length": None})
    yield refused("what helps where a key is missing", without, never=("--total-shards",))
    needed = "block_count context_length embedding_length feed_forward_length attention.head_count".split()
    for key in (*(f"llama.{name}" for name in needed), epsilon):
        yield refused(f"without {key}", tiny().having({key: None}), f"metadata key {key} is missing")
    for name in needed:
        file = tiny().having({f"llama.{name}": (U32, 0)})
        said = "the model has no layers" if name == "block_count" else f"llama.{name} is"
        yield refused(f"{name} 0", file, said, worker=name == "context_length")
    yield refused("a head of 7", tiny().having({"llama.rope.dimension_count": (U32, 7)}), "7 rope dimensions")
    yield refused("3 heads for keys", tiny().having({kv: (U32, 3)}), "4 heads with 3 key and value heads")
    yield refused(
        "values of another width", tiny().having({"llama.attention.value_length": (U32, 8)}), "different lengths"
    )
    yield refused("2^32-1 layers", tiny().having({"llama.block_count": (U32, 2**32 - 1)}), "block_count")
    yield sound("a context of 10 million", tiny().having({"llama.context_length": (U32, 10_485_760)}), worker=True)
    window = tiny().having({"llama.attention.sliding_window": (U32, 64)})
    yield sound("a window of another architecture", window, worker=True)


def entries():
    """Entries that nothing here reads."""
    yield sound("keys that are not known", tiny().having({"general.quantized_by": (TEXT, "x"), "a.b": (F64, 1.0)}))
    yield sound("a name that is empty", tiny().having({"general.name": (TEXT, "")}))
    latin = tiny().having({"general.author": (TEXT, "Käfer".encode("latin-1"))})
    yield sound("a text that is not UTF-8", latin, worker=True)
    large = tiny().having({"tokenizer.huggingface.json": (TEXT, '{"a": "' + "b" * (2 << 20) + '"}')})
    yield sound("a text of 2 MiB", large, worker=True)
    nested = tiny().having({"a.list": (ARRAY, (U32, []))})
    yield sound("a list of nothing", nested)
    twice = tiny().having(more_entries=[("general.name", (TEXT, "twice"))])
    yield refused("a key that is there twice", twice, "general.name is there twice", damage=True)
    truth = tiny().having({"a.b": (BOOL, 2)})
    yield refused("a truth value of 2", truth, "truth value 2", damage=True)


def cases():
    yield from architectures()
    yield from scaling()
    yield from numbers()
    yield from entries()
