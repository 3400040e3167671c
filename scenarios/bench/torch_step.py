"""The step that `heterotune bench step` takes, in PyTorch eager: `torch_step.py FOLDER SHAPE MODE STEPS`.

FOLDER is what `heterotune bench step SHAPE --write FOLDER` wrote. MODE: `check` compares loss and gradients with those in
FOLDER; `adapters` times steps in which the adapters are trained; `full` steps in which the whole model is, without any.
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder, shape, mode, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
config = json.load(open(f"{folder}/config.json"))
weights = load_file(f"{folder}/model.safetensors")
given = load_file(f"{folder}/step.safetensors")
layers, heads, width = config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"]
slots = sum(name.startswith("gate.") for name in given)
# Slot s stands behind block ceil((s + 1) L / S).
positions = [-(-(slot + 1) * layers // slots) for slot in range(slots)]
gradients = {name.removeprefix("gradient."): value for name, value in given.items() if name.startswith("gradient.")}
full = mode == "full"
if full:
    trained = {name: value.requires_grad_() for name, value in weights.items()}
    if shape != "decoder":
        trained |= {name: given[name].requires_grad_() for name in ["readout.weight", "readout.bias"]}
else:
    trained = {name: given[name].requires_grad_() for name in gradients}


def linear(x, name):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def attend(query, key, value, causal=False):
    split = lambda y: y.unflatten(-1, (heads, width // heads)).transpose(1, 2)
    query, key, value = split(query), split(key), split(value)
    if causal:
        query, key = rotate(query), rotate(key)
    seen = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return seen.transpose(1, 2).flatten(2)


def rotate(x):
    tokens, size = x.shape[-2:]
    half = size // 2
    angles = torch.arange(tokens)[:, None] * config["rope_theta"] ** (-torch.arange(half) * 2.0 / size)[None]
    (left, right), cos, sin = x.split(half, -1), angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


def rms(x, name):
    return F.rms_norm(x, (width,), weights[f"{name}.weight"], config["rms_norm_eps"])


def norm(x, name):
    return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])


def decoder_block(x, index):
    name = f"layers.{index}"
    n = rms(x, f"{name}.input_layernorm")
    query, key, value = (linear(n, f"{name}.self_attn.{part}_proj") for part in "qkv")
    x = x + linear(attend(query, key, value, causal=True), f"{name}.self_attn.o_proj")
    n = rms(x, f"{name}.post_attention_layernorm")
    inner = F.silu(linear(n, f"{name}.mlp.gate_proj")) * linear(n, f"{name}.mlp.up_proj")
    return x + linear(inner, f"{name}.mlp.down_proj")


def encoder_block(x, index):
    name = f"encoder.layer.{index}"
    query, key, value = (linear(x, f"{name}.attention.self.{part}") for part in ["query", "key", "value"])
    x = norm(x + linear(attend(query, key, value), f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
    inner = F.gelu(linear(x, f"{name}.intermediate.dense"))
    return norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")


def vit_block(x, index):
    name = f"encoder.layer.{index}"
    n = norm(x, f"{name}.layernorm_before")
    query, key, value = (linear(n, f"{name}.attention.attention.{part}") for part in ["query", "key", "value"])
    x = x + linear(attend(query, key, value), f"{name}.attention.output.dense")
    inner = F.gelu(linear(norm(x, f"{name}.layernorm_after"), f"{name}.intermediate.dense"))
    return x + linear(inner, f"{name}.output.dense")


def decoder_embed():
    return weights["embed_tokens.weight"][given["inputs"].long()]


def encoder_embed():
    ids = given["inputs"].long()
    places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = weights["embeddings.word_embeddings.weight"][ids] + places + weights["embeddings.token_type_embeddings.weight"][0]
    return norm(x, "embeddings.LayerNorm")


def vit_embed():
    size, patch = config["image_size"], config["patch_size"]
    pixels = (given["inputs"] / 255.0 - 0.5) / 0.5
    pixels = pixels.unflatten(1, (config["num_channels"], size, size))
    name = "embeddings.patch_embeddings.projection"
    x = F.conv2d(pixels, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=patch).flatten(2).transpose(1, 2)
    first = weights["embeddings.cls_token"].expand(x.shape[0], -1, -1)
    return torch.cat([first, x], 1) + weights["embeddings.position_embeddings"]


def plain(x):
    return F.layer_norm(x, (width,), eps=1e-5)


def encode(x, name):
    return (plain(x) - given[f"{name}.mean"]) @ given[f"{name}.down"]


def adapt(x, slot):
    """h + [sum_m g_m (gelu(z) B_m)] Up, with z = (LN(h) - mu) Down and g = softmax(z G)."""
    branches = given[f"branches.{slot}"]
    code = encode(x, f"slot.{slot}")
    gates = F.softmax(code @ given[f"gate.{slot}"], -1)
    mixed = (gates[..., None] * F.gelu(code)[..., None, :]).flatten(-2)
    return x + mixed @ branches.flatten(0, 1) @ given[f"slot.{slot}.up"]


def loss():
    x = {"decoder": decoder_embed, "encoder": encoder_embed, "vit": vit_embed}[shape]()
    block = {"decoder": decoder_block, "encoder": encoder_block, "vit": vit_block}[shape]
    for index in range(layers):
        x = block(x, index)
        for slot, position in enumerate(positions):
            if position == index + 1 and not full:
                x = adapt(x, slot)
    if shape == "decoder":
        x = x[:, :-1]
        logits = F.linear(rms(x, "norm"), weights["embed_tokens.weight"])
        if not full:
            logits = logits + encode(x, "readout") @ given["readout.weight"] + given["readout.bias"]
        return F.cross_entropy(logits.flatten(0, 1), given["inputs"][:, 1:].long().flatten())
    normal = plain(x)
    pooled = normal.mean(1) if shape == "encoder" else normal[:, 1:].mean(1)
    codes = (pooled - given["readout.mean"]) @ given["readout.down"]
    logits = codes @ given["readout.weight"] + given["readout.bias"]
    # Made-up labels are not all as frequent: the loss knows how frequent they are.
    labels = given["labels"].long()
    counts = torch.bincount(labels, minlength=logits.shape[1]) + 0.01
    return F.cross_entropy(logits + (counts / counts.sum()).log(), labels)


def check():
    value = loss()
    value.backward()
    differences = {"loss": abs(value.item() / given["loss"].item() - 1)}
    for name, gradient in gradients.items():
        differences[name] = ((trained[name].grad - gradient).norm() / gradient.norm()).item()
    print(json.dumps(differences))


def measure():
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)

    def step():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()

    step()
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    print(json.dumps({
        "seconds": (time.perf_counter() - start) / steps,
        "cpu_seconds": (time.process_time() - cpu) / steps,
    }))


check() if mode == "check" else measure()
