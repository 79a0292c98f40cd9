"""How tensors are stored, and which of them there are."""

from .case import refused, sound
from .writing import HEAD, HIDDEN, TYPES, WIDE, Tensor, floats, tensor, tiny

SUPPORTED = ("F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ4_NL IQ4_XS MXFP4").split()
# Types that a file of today may have, and whose numbers ggml has taken back.
NAMED = (
    "IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ3_S IQ2_S IQ1_M I8 I16 I32 I64 F64 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0"
    " TQ2_0 NVFP4 Q1_0"
).split()
DOWN = "blk.1.ffn_down.weight"


def types():
    """Every type of ggml, of one matrix of a model, and numbers that are none."""
    numbers = {name: number for number, (name, _, _) in TYPES.items()}
    for name in SUPPORTED:
        file = tiny().having(tensors={DOWN: tensor((WIDE, HIDDEN), numbers[name])})
        yield sound(f"type {name}", file, worker=True)
    cure = (DOWN, "not supported", "Q4_K_M")
    for name in NAMED:
        file = tiny().having(tensors={DOWN: tensor((WIDE, HIDDEN), numbers[name])})
        yield refused(f"type {name}", file, name, *cure, worker=name in ("IQ2_XXS", "TQ1_0"))
    for number in (4, 5, 36, 43, 200, 2**32 - 1):
        file = tiny().having(tensors={DOWN: Tensor(number, (WIDE, HIDDEN), bytes(4 * WIDE * HIDDEN))})
        yield refused(f"type of number {number}", file, f"type {number},", *cure)
    for name in ("F16", "BF16"):
        norms = {norm: tensor((HIDDEN,), numbers[name]) for norm in ("output_norm.weight", "blk.0.attn_norm.weight")}
        yield sound(f"norms of {name}", tiny().having(tensors=norms), worker=True)
    norm = {"output_norm.weight": tensor((HIDDEN,), numbers["Q8_0"])}
    yield sound("a norm of Q8_0", tiny().having(tensors=norm), worker=True)
    embedding = tiny().tensors["token_embd.weight"].shape
    yield sound("embedding of Q8_0", tiny().having(tensors={"token_embd.weight": tensor(embedding, 8)}), worker=True)
    broken = tiny().having(tensors={DOWN: Tensor(12, (WIDE // 2, HIDDEN), bytes(4096))})
    yield refused("rows that are no whole blocks", broken, DOWN, "blocks of 256", damage=True)


def others():
    """Tensors that a llama does not have, that it lacks, or that are otherwise."""
    row = tensor((HIDDEN,))
    for name in ("output.bias", "token_types.weight", "v.patch_embd.weight", "output_norm.bias"):
        yield refused(f"tensor {name}", tiny().having(tensors={name: row}), f"tensor {name}", "not supported")
    for part in ("ffn_up.bias", "attn_norm.bias", "attn_sinks.weight", "attn_q.scale", "ssm_a"):
        name = f"blk.1.{part}"
        yield refused(f"tensor {name}", tiny().having(tensors={name: row}), f"tensor {name}", "not supported")
    for name in ("blk.2.attn_norm.weight", "blk.x.attn_norm.weight"):
        file = tiny().having(tensors={name: row})
        yield refused(f"tensor {name} of no layer", file, f"tensor {name}", "not supported")
    yield sound("biases that a llama may have", tiny().having(tensors={"blk.0.attn_output.bias": row}), worker=True)
    output = tensor(tiny().tensors["token_embd.weight"].shape)
    yield sound("a head of its own", tiny().having(tensors={"output.weight": output}), worker=True)
    turns = floats([1.0] * (HEAD // 2))
    yield sound("rope_freqs", tiny().having(tensors={"rope_freqs.weight": turns}), worker=True)
    wrong = tiny().having(tensors={"rope_freqs.weight": tensor((HEAD,))})
    yield refused("rope_freqs of another shape", wrong, "rope_freqs.weight", "[8]")
    wrong = tiny().having(tensors={"rope_factors_long.weight": tensor((HEAD,))})
    yield refused("rope_factors of another shape", wrong, "rope_factors_long.weight", "[8]", worker=True)
    factors = {f"rope_factors_{which}.weight": turns for which in ("short", "long")}
    yield sound("rope_factors", tiny().having(tensors=factors), worker=True)
    for name in ("output_norm.weight", "token_embd.weight", "blk.1.attn_q.weight", "blk.0.ffn_down.weight"):
        yield refused(f"without {name}", tiny().having(tensors={name: None}), f"tensor {name} is missing")
    wide = tiny().having(tensors={"blk.0.attn_k.weight": tensor((HIDDEN, HIDDEN))})
    yield refused("keys of another shape", wide, "blk.0.attn_k.weight", "[64, 64]", "[64, 32]")
    tall = {name: Tensor(t.kind, (*t.shape, *[1] * (4 - len(t.shape))), t.data) for name, t in tiny().tensors.items()}
    yield sound("shapes with ones behind", tiny().having(tensors=tall), worker=True)
    gone = {name: None for name in tiny().tensors}
    yield refused("a vocabulary alone", tiny().having(tensors=gone), "no tensors", "vocabulary", never=("damaged",))
    gone = tiny().having(tensors={"output_norm.weight": None})
    yield refused("what helps where a tensor is missing", gone, never=("--total-shards",))
    yield refused("layers fewer than said", tiny().having({"llama.block_count": (4, 3)}), "blk.2", "block_count is 3")


def places():
    """Where tensors lie."""
    file = tiny()
    first, second = list(file.tensors)[:2]
    moved = file.having(tensors={second: file.tensors[second]._replace(offset=0)})
    yield refused("tensors over each other", moved, "lies over another", damage=True)
    far = file.having(tensors={first: file.tensors[first]._replace(offset=1 << 40)})
    yield refused("a tensor behind the end", far, first, "bytes are missing", damage=True)
    farther = file.having(tensors={first: file.tensors[first]._replace(offset=2**64 - 32)})
    yield refused("a tensor behind all ends", farther, first, "past all files", damage=True)
    askew = file.having(tensors={second: file.tensors[second]._replace(offset=33)})
    yield refused("a tensor that is not aligned", askew, second, "not aligned to 32", damage=True)
    for alignment in (8, 64, 4096):
        aligned = file.having({"general.alignment": (4, alignment)}, alignment=alignment)
        yield sound(f"aligned to {alignment}", aligned, worker=True)
    for alignment in (0, 7, 48):
        wrong = file.having({"general.alignment": (4, alignment)})
        yield refused(f"alignment {alignment}", wrong, "general.alignment must be a power of two")
    yield sound("bytes behind the end", file.bytes() + b"more", worker=True)
    flat = file.having(tensors={first: file.tensors[first]._replace(shape=(0, 4))})
    yield refused("a tensor of nothing", flat, first, "[0, 4]", damage=True)
    deep = file.having(tensors={first: file.tensors[first]._replace(shape=(64, 1, 1, 1, 1))})
    yield refused("five dimensions", deep, first, "5 dimensions", damage=True)


def weights():
    """Numbers that only those see who load them."""
    nan, inf = float("nan"), float("inf")
    for name, numbers in (("no number", [nan] * HIDDEN), ("infinite", [1.0] * (HIDDEN - 1) + [inf])):
        for norm in ("blk.0.attn_norm.weight", "output_norm.weight"):
            file = tiny().having(tensors={norm: floats(numbers)})
            yield sound(f"{norm} that is {name}", file, worker=True, weights=(norm, "not finite"))
    wide = floats([nan] * (WIDE * HIDDEN))._replace(shape=(WIDE, HIDDEN))
    yield sound("a matrix of no numbers", tiny().having(tensors={DOWN: wide}), worker=True, weights=("finite",))
    for value, said in ((0.0, "not positive"), (-1.0, "not positive"), (nan, "not finite")):
        file = tiny().having(tensors={"rope_freqs.weight": floats([value] * (HEAD // 2))})
        yield sound(f"rope_freqs of {value}", file, worker=True, weights=("rope_freqs.weight", said))


def cases():
    yield from types()
    yield from others()
    yield from places()
    yield from weights()
