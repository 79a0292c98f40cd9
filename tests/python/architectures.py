#!/usr/bin/env python3
"""What `transformers` says with the weights of the tiny models, for the engine's test to compare itself with.

Has the example `tiny` of the crate `gguf` write the models, reads each with the package `gguf`, gives its weights to the
model of that family in `transformers`, and writes what that answers: the log-probability of each token of a prompt, then
64 greedy tokens with theirs. Which tensor of `transformers` is which in the file is told by the table of the package
`gguf`; what those who convert models change in them is undone here.

    python3 -m venv v && v/bin/pip install -r tests/python/architectures-requirements.txt
    v/bin/python tests/python/architectures.py [--models FOLDER] [--check] [NAME ...]

Without `--check` it writes `crates/shard-engine/tests/data/architectures/NAME.txt`; with it, it compares.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "crates/shard-engine/tests/data/architectures"
VOCABULARY = 268
PROMPT = [(37 * place + 5 * (place // 7) + 11) % VOCABULARY for place in range(40)]
GREEDY = 64
# A lead of the best token that rounding cannot overtake.
SMALLEST_LEAD = 2e-4


class Model:
    """A tiny model's file: its numbers and its tensors."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.arch = self.fields["general.architecture"]
        self.tensors = {
            tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).reshape(
                list(map(int, reversed(tensor.shape)))
            )
            for tensor in reader.tensors
        }
        self.layers = self.number("block_count")
        self.heads = self.number("attention.head_count")
        self.kv_heads = self.number("attention.head_count_kv")
        self.head = self.number("attention.key_length")
        self.tied = "output.weight" not in self.tensors
        self.experts = self.number("expert_count", 0)
        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.arch)
        self.names = gguf.get_tensor_name_map(arch, self.layers)

    def number(self, key, otherwise=None):
        return self.fields.get(f"{self.arch}.{key}", otherwise)

    def rope(self):
        """The rotation as `transformers` is told of it."""
        rope = {"rope_theta": self.number("rope.freq_base"), "rope_type": "default"}
        turned = self.number("rope.dimension_count") / self.head
        if turned != 1:
            rope["partial_rotary_factor"] = turned
        kind, factor = self.number("rope.scaling.type"), self.number("rope.scaling.factor")
        original = self.number("rope.scaling.original_context_length")
        if "rope_freqs.weight" in self.tensors:
            # Nothing there takes factors as they are: they are put in below.
            pass
        elif "rope_factors_long.weight" in self.tensors:
            rope |= {"rope_type": "longrope", "original_max_position_embeddings": original}
            rope["long_factor"] = self.tensors["rope_factors_long.weight"].tolist()
            rope["short_factor"] = self.tensors["rope_factors_short.weight"].tolist()
        elif kind == "yarn":
            rope |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
            if self.arch == "gpt-oss":
                # As its own configuration has it.
                rope["truncate"] = False
        elif kind == "linear":
            rope |= {"rope_type": "linear", "factor": factor}
        return rope

    def config(self):
        """Class of the configuration, and its numbers."""
        common = {
            "vocab_size": VOCABULARY,
            "hidden_size": self.number("embedding_length"),
            "intermediate_size": self.number("feed_forward_length"),
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "max_position_embeddings": self.number("context_length"),
            "rope_parameters": self.rope(),
            "tie_word_embeddings": self.tied,
            "pad_token_id": None,
            "bos_token_id": None,
            "eos_token_id": None,
            "attn_implementation": "eager",
        }
        for ours, theirs in (("rms_epsilon", "rms_norm_eps"), ("epsilon", "layer_norm_eps")):
            if epsilon := self.number(f"attention.layer_norm_{ours}"):
                common[theirs] = epsilon
        experts = {
            "num_local_experts": self.experts,
            "num_experts": self.experts,
            "num_experts_per_tok": self.number("expert_used_count"),
        }
        window = self.number("attention.sliding_window")
        name, more = {
            "llama": ("Llama", {}),
            "qwen2": ("Qwen2", {"use_sliding_window": False}),
            "qwen3": ("Qwen3", {"use_sliding_window": False}),
            "gemma": ("Gemma", {"hidden_act": "gelu_pytorch_tanh"}),
            "gemma2": (
                "Gemma2",
                {
                    "query_pre_attn_scalar": self.head,
                    "sliding_window": window,
                    "attn_logit_softcapping": self.number("attn_logit_softcapping"),
                    "final_logit_softcapping": self.number("final_logit_softcapping"),
                },
            ),
            "gemma3": ("Gemma3Text", {"query_pre_attn_scalar": self.head, "sliding_window": window}),
            "phi3": (
                "Phi3",
                {
                    "sliding_window": window,
                    # Here, and not only in what is said of the rotation, or 4096 counts.
                    "original_max_position_embeddings": self.number(
                        "rope.scaling.original_context_length", self.number("context_length")
                    ),
                },
            ),
            "smollm3": ("SmolLM3", {}),
            "olmo2": ("Olmo2", {}),
            "granite": ("Granite", self.multipliers()),
            "granitemoe": (
                "GraniteMoeShared",
                self.multipliers()
                | experts
                | {"shared_intermediate_size": self.number("expert_shared_feed_forward_length")},
            ),
            "gpt-oss": ("GptOss", experts | {"sliding_window": window}),
            "command-r": (
                "Cohere",
                {"logit_scale": self.number("logit_scale"), "use_qk_norm": "blk.0.attn_q_norm.weight" in self.tensors},
            ),
            "cohere2": ("Cohere2", {"logit_scale": self.number("logit_scale"), "sliding_window": window}),
            "glm4": ("Glm4", {"attention_bias": True}),
            "qwen2moe": (
                "Qwen2Moe",
                experts
                | {
                    "moe_intermediate_size": self.number("expert_feed_forward_length"),
                    "shared_expert_intermediate_size": self.number("expert_shared_feed_forward_length"),
                    "norm_topk_prob": False,
                    "use_sliding_window": False,
                },
            ),
            "qwen3moe": (
                "Qwen3Moe",
                experts
                | {
                    "moe_intermediate_size": self.number("expert_feed_forward_length"),
                    "norm_topk_prob": True,
                    "use_sliding_window": False,
                },
            ),
        }[self.arch]
        if self.arch == "llama" and self.experts:
            name, more = "Mixtral", experts | {"sliding_window": None}
        if self.arch == "gemma3":
            local = {"rope_type": "default", "rope_theta": self.number("rope.freq_base_swa")}
            common["rope_parameters"] = {"full_attention": self.rope(), "sliding_attention": local}
        return name, common | more

    def multipliers(self):
        return {
            "attention_multiplier": self.number("attention.scale"),
            "embedding_multiplier": self.number("embedding_scale"),
            "residual_multiplier": self.number("residual_scale"),
            "logits_scaling": self.number("logit_scale"),
        }

    def weight(self, name):
        """The tensor that `transformers` calls so."""
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        of = lambda part, kind="weight": self.tensors[f"blk.{layer[1]}.{part}.{kind}"]
        if self.arch == "gpt-oss" and (found := re.search(r"experts\.(\w+?)(_bias)?$", name)):
            # Inputs come before outputs there, and of the outputs those of the gate and of the other take turns.
            kind = "bias" if found[2] else "weight"
            turned = lambda tensor: tensor if found[2] else tensor.transpose(1, 2)
            if found[1] == "down_proj":
                return turned(of("ffn_down_exps", kind))
            pair = [turned(of(f"ffn_{part}_exps", kind)) for part in ("gate", "up")]
            return torch.stack(pair, dim=-1).flatten(-2)
        if name.endswith("self_attn.sinks"):
            return of("attn_sinks")
        if re.search(r"experts\.gate_up_proj$|block_sparse_moe\.input_linear\.weight$", name):
            return torch.cat([of("ffn_gate_exps"), of("ffn_up_exps")], dim=1)
        if re.search(r"experts\.down_proj$|block_sparse_moe\.output_linear\.weight$", name):
            return of("ffn_down_exps")
        if name.endswith("shared_mlp.input_linear.weight"):
            return torch.cat([of("ffn_gate_shexp"), of("ffn_up_shexp")], dim=0)
        if name.endswith("shared_mlp.output_linear.weight"):
            return of("ffn_down_shexp")
        if name.endswith("shared_expert_gate.weight"):
            return of("ffn_gate_inp_shexp").unsqueeze(0)
        if name.endswith("block_sparse_moe.router.weight"):
            return of("ffn_gate_inp")
        if name == "lm_head.weight":
            # The table has none for families whose head is the embedding in all models so far.
            return self.tensors["output.weight"]
        own = self.names.get_name(name, try_suffixes=(".weight", ".bias"))
        # The name of what stands behind attention there is that of what stands before the other half elsewhere.
        if self.arch in ("gemma2", "gemma3", "gpt-oss") and name.endswith("post_attention_layernorm.weight"):
            own = f"blk.{layer[1]}.post_attention_norm.weight"
        if own is None or own not in self.tensors:
            raise KeyError(f"{name} is {own} in the file, which has {sorted(self.tensors)[:40]}")
        tensor = self.tensors[own]
        if self.arch.startswith("gemma") and "norm" in name:
            return tensor - 1
        if self.arch in ("llama", "smollm3", "granite", "granitemoe"):
            for part, heads in (("q_proj.weight", self.heads), ("k_proj.weight", self.kv_heads)):
                if name.endswith(part):
                    pairs = tensor.reshape(heads, self.head // 2, 2, -1).transpose(1, 2)
                    return pairs.reshape(tensor.shape)
        return tensor

    def transformer(self):
        """The model in `transformers`, with the file's weights."""
        name, numbers = self.config()
        config = getattr(transformers, f"{name}Config")(**numbers)
        family = "Gemma3" if name == "Gemma3Text" else name
        model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                weight = self.weight(name)
                assert weight.shape == parameter.shape, (name, weight.shape, parameter.shape)
                parameter.copy_(weight)
        if "rope_freqs.weight" in self.tensors:
            model.model.rotary_emb.inv_freq /= self.tensors["rope_freqs.weight"]
        return model


def answers(model):
    """Lines of what it says, and the smallest lead of a greedy token over the second best."""
    lines, tokens, lead = [f"prompt {' '.join(map(str, PROMPT))}"], list(PROMPT), float("inf")

    def scores(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), dim=-1)

    told = scores(PROMPT)
    for place, token in enumerate(PROMPT[1:]):
        lines.append(f"score {token} {told[place, token]:.6f}")
    for _ in range(GREEDY):
        best = torch.topk(scores(tokens)[-1], 2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
        lines.append(f"greedy {tokens[-1]} {best.values[0]:.6f}")
    return lines, lead


def differences(lines, path):
    """What is not the same as in the file of answers."""
    old = path.read_text().splitlines()
    if len(old) != len(lines):
        return [f"{len(old)} lines, {len(lines)} now"]
    found = []
    for a, b in zip(old[1:], lines[1:]):
        (_, token, log), (_, now, now_log) = a.split(), b.split()
        if token != now or abs(float(log) - float(now_log)) > 1e-4:
            found.append(f"{a}, {b} now")
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", type=pathlib.Path, help="where the tiny models are; without it they are written")
    arguments.add_argument("--check", action="store_true", help="compare with the answers that are there")
    arguments.add_argument("names", nargs="*")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.models or pathlib.Path(folder)
        if not arguments.models:
            command = "cargo run --release --locked -p gguf --features test-support --example tiny --"
            subprocess.run([*command.split(), folder], cwd=ROOT, check=True)
        failed = False
        for path in sorted(models.glob("*.gguf")):
            if arguments.names and path.stem not in arguments.names:
                continue
            model = Model(path)
            lines, lead = answers(model.transformer())
            different = len({line.split()[1] for line in lines if line.startswith("greedy")})
            print(f"{path.stem}: {model.config()[0]}, smallest lead {lead:.4f}, {different} different tokens", flush=True)
            if lead < SMALLEST_LEAD:
                print(f"  {path.stem} has a tie: give it another seed")
                failed = True
            if arguments.check:
                found = differences(lines, ANSWERS / f"{path.stem}.txt")
                failed |= bool(found)
                print("".join(f"  {line}\n" for line in found), end="")
            else:
                ANSWERS.mkdir(parents=True, exist_ok=True)
                (ANSWERS / f"{path.stem}.txt").write_text("\n".join(lines) + "\n")
        return failed


if __name__ == "__main__":
    sys.exit(main())
