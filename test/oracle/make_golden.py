"""Checks the oracle against independent statements of the same things and writes the golden files.

    /usr/bin/python3 test/oracle/make_golden.py            self-checks, then writes golden/*.json
    /usr/bin/python3 test/oracle/make_golden.py --check    self-checks, then compares with the files that are there

The files are described in README.md beside this script.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.dont_write_bytecode = True  # no __pycache__ in the source tree

import memory3_oracle as oracle  # noqa: E402
from memory3_oracle import Memories, ModelShape  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
PRIME = 65521

H4K2 = dict(numLayers=3, hiddenSize=12, numHeads=4, kvHeads=2, headDim=4, mlpWidth=20, memoryLayers=2, vocabSize=23)
H3K1 = dict(numLayers=3, hiddenSize=10, numHeads=3, kvHeads=1, headDim=6, mlpWidth=14, memoryLayers=1, vocabSize=19,
            ropeTheta=500.0, normEpsilon=1e-3)  # fmt: skip


# Numbers that both sides can make


def generated(shape, number, scale, offset=0.0):
    """Description of a tensor whose values follow from integers; `number` makes it distinct."""
    a, b, c = 9973 + (16807 * (number + 1)) % 50000, (48271 * (number + 1)) % PRIME, (69621 * (number + 3)) % PRIME
    return {"shape": list(shape), "offset": offset, "scale": scale, "a": a, "b": b, "c": c}


def values_of(spec, dtype):
    """The tensor of a description, rounded to float32 whatever the dtype."""
    i = torch.arange(math.prod(spec["shape"]), dtype=torch.int64)
    u = (spec["a"] * i * i + spec["b"] * i + spec["c"]) % PRIME
    x = spec["offset"] + spec["scale"] * ((2 * u).double() / (PRIME - 1) - 1)
    return x.float().to(dtype).reshape(spec["shape"])


def parameter_specs(shape, number):
    """Descriptions of all parameters: norms around 1, matrices large enough that attention is far from uniform."""
    specs = {}
    for offset, (name, sizes) in enumerate(oracle.parameter_shapes(shape).items()):
        norm = len(sizes) == 1
        tensor_number = number + offset
        specs[name] = generated(sizes, tensor_number, 0.2 if norm else 0.7, 1.0 if norm else 0.0)
        while not norm and conditioning(specs[name]) < 0.02:  # a quadratic can be symmetric within a small matrix
            tensor_number += 10_000
            specs[name] = generated(sizes, tensor_number, 0.7)
    return specs


def conditioning(spec):
    """Smallest singular value of a generated matrix over the largest."""
    singular = torch.linalg.svdvals(values_of(spec, torch.float64))
    return (singular[-1] / singular[0]).item()


def integers(sizes, number, limit):
    """Token ids [sizes] below limit."""
    spec = generated(sizes, number, 1.0)
    i = torch.arange(math.prod(sizes), dtype=torch.int64)
    return ((spec["a"] * i * i + spec["b"] * i + spec["c"]) % PRIME % limit).reshape(sizes)


# Cases. Each returns the document without float32Error; `expected` holds tensors of the given dtype.


def text_inputs(shape, number, batch, tokens, prefix=0, first_position=0, interval=0):
    """ids, targets and positions; targets of the prefix and of a few other tokens are ignored."""
    ids = integers([batch, tokens], number, shape.vocabSize)
    ids[:, :prefix] = prefix_ids(prefix)
    targets = integers([batch, tokens], number + 1, shape.vocabSize)
    targets[:, :prefix] = -1
    targets[0, tokens - 2] = targets[-1, prefix + 1] = -1
    positions = torch.arange(tokens) + first_position
    positions[prefix:] += interval
    return {"ids": ids, "targets": targets, "positions": positions}


def prefix_ids(length):
    """The ids that stand for `<s>Reference:` in text and references."""
    return torch.arange(1, length + 1)


def leaf_parameters(specs, dtype):
    return {name: values_of(spec, dtype).requires_grad_() for name, spec in specs.items()}


def run_text(parameters, shape, inputs, memories=None):
    """Forward and backward; the expected values that all text cases share."""
    hidden, shares = oracle.forward(parameters, shape, inputs["ids"], inputs["positions"], memories,
                                    inputs.get("firstVisible"))  # fmt: skip
    logits = oracle.logits_of(parameters, shape, hidden)
    losses = oracle.token_losses(logits, inputs["targets"])
    loss = oracle.mean_loss(losses, inputs["targets"])
    loss.backward()
    valid = int((inputs["targets"] >= 0).sum())
    expected = {"loss": loss.item(), "lossSum": losses.sum().item(), "validTargets": valid,
                "tokenLosses": losses, "hidden": hidden, "logits": logits}  # fmt: skip
    if memories is not None:
        expected["shares"] = shares
        expected["memoryKeyGradients"] = [k.grad for k in memories.keys]
        expected["memoryValueGradients"] = [v.grad for v in memories.values]
    expected["gradients"] = {name: p.grad for name, p in parameters.items()}
    return expected


def document(case, description, shape, specs, inputs, expected):
    return {"case": case, "description": description, "model": asdict(shape), "parameters": specs, "inputs": inputs,
            "expected": expected}  # fmt: skip


def first_visible(begins, tokens):
    """For each token of each sequence the last begin of a document at or before it, [B, T]."""
    return torch.tensor([[max(begin for begin in row if begin <= t) for t in range(tokens)] for row in begins])


def forward_case(sizes, tied, number, tokens, dtype, begins=None):
    shape = ModelShape(**sizes, tieEmbeddings=tied)
    specs = parameter_specs(shape, number)
    inputs = text_inputs(shape, number + 100, 2, tokens)
    if begins:
        inputs["firstVisible"] = first_visible(begins, tokens)
    expected = run_text(leaf_parameters(specs, dtype), shape, inputs)
    return document("forward", "Plain causal language model, forward and backward.", shape, specs, inputs, expected)


def bank_case(shape, number, inputs, lengths, kept_tokens, index, start, chunk_length, dtype):
    specs = parameter_specs(shape, number)
    sizes = [len(lengths), shape.kvHeads, kept_tokens, shape.headDim]
    key_specs = [generated(sizes, number + 200 + layer, 1.5) for layer in range(shape.memoryLayers)]
    value_specs = [generated(sizes, number + 220 + layer, 1.5) for layer in range(shape.memoryLayers)]
    memories = Memories([values_of(spec, dtype).requires_grad_() for spec in key_specs],
                        [values_of(spec, dtype).requires_grad_() for spec in value_specs],
                        lengths, index, start, chunk_length)  # fmt: skip
    expected = run_text(leaf_parameters(specs, dtype), shape, inputs, memories)
    stored = {"keys": key_specs, "values": value_specs, "lengths": torch.tensor(lengths), "index": torch.tensor(index),
              "start": start, "chunkLength": chunk_length}  # fmt: skip
    description = "Given memories read by chunks; gradients of parameters and of the memory keys and values."
    return document("bank", description, shape, specs, {**inputs, "memories": stored}, expected)


def bank_h4k2(dtype):
    shape = ModelShape(**H4K2)
    inputs = text_inputs(shape, 1300, 2, 17, prefix=3, interval=7)
    index = [[[-1, -1, -1], [0, -1, 1], [1, 0, 2]], [[3, -1, -1], [5, 3, 0], [2, -1, -1]]]
    return bank_case(shape, 1000, inputs, [3, 2, 0, 1, 3, 3], 3, index, 3, 5, dtype)


def bank_h3k1(dtype):
    shape = ModelShape(**H3K1, tieEmbeddings=True)
    inputs = text_inputs(shape, 1700, 2, 11, first_position=4)
    return bank_case(shape, 1400, inputs, [5, 4, 1], 5, [[[1, -1], [1, 0]], [[2, 0], [-1, 2]]], 0, 3, dtype)


def bank_documents_h4k2(dtype):
    shape = ModelShape(**H4K2)
    inputs = text_inputs(shape, 5100, 2, 15, first_position=4)
    inputs["firstVisible"] = first_visible([[0, 6, 7, 12], [0, 9]], 15)
    return bank_case(shape, 4800, inputs, [3, 1, 0], 3, [[[0], [1], [-1]], [[2], [0], [1]]], 1, 5, dtype)


def reference_inputs(shape, number, lengths, prefix, kept_tokens):
    """References padded with token 0 to the longest; lengths include the prefix.

    No token occurs twice in a reference: in the first layer it would have the same score in both places.
    """
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    ids[:, :prefix] = prefix_ids(prefix)
    for n, length in enumerate(lengths):
        shuffled = integers([shape.vocabSize - prefix - 1], number + n, PRIME).argsort() + prefix + 1
        ids[n, prefix:length] = shuffled[: length - prefix]
    return {"ids": ids, "lengths": torch.tensor(lengths), "prefixLength": prefix, "keptTokens": kept_tokens}


def encode(parameters, shape, references, rule):
    return oracle.encode_references(parameters, shape, references["ids"], references["lengths"].tolist(),
                                    references["prefixLength"], references["keptTokens"], rule)  # fmt: skip


def online_case(shape, number, inputs, references, reading, dtype):
    specs = parameter_specs(shape, number)
    parameters = leaf_parameters(specs, dtype)
    encoded = encode(parameters, shape, references, references["tokenScores"])
    for tensor in encoded["keys"] + encoded["values"]:
        tensor.retain_grad()
    memories = Memories(encoded["keys"], encoded["values"], encoded["keptLengths"], **reading)
    expected = run_text(parameters, shape, inputs, memories)
    expected |= {name: encoded[name] for name in ("keys", "values")}
    expected |= {name: torch.tensor(encoded[name]) for name in ("kept", "keptLengths")}
    reading = {**reading, "index": torch.tensor(reading["index"])}
    description = "References encoded in the step; gradients flow through kept keys and values to all parameters."
    inputs = {**inputs, "references": references, "reading": reading}
    return document("online", description, shape, specs, inputs, expected)


def online_h4k2(dtype):
    shape = ModelShape(**H4K2)
    inputs = text_inputs(shape, 2300, 2, 13, prefix=2, interval=9)
    references = reference_inputs(shape, 2310, [11, 8, 4, 7], 2, 3) | {"tokenScores": "softmax"}
    index = [[[0, -1], [1, 0], [2, 1]], [[-1, -1], [3, -1], [0, 3]]]
    return online_case(shape, 2000, inputs, references, dict(index=index, start=2, chunkLength=4), dtype)


def online_h3k1(dtype):
    shape = ModelShape(**{**H3K1, "memoryLayers": 3}, tieEmbeddings=True)
    inputs = text_inputs(shape, 2700, 2, 9, prefix=1, interval=6)
    references = reference_inputs(shape, 2710, [7, 5, 6], 1, 4) | {"tokenScores": "exp"}
    index = [[[0, 1], [2, 0]], [[1, -1], [2, 1]]]
    return online_case(shape, 2400, inputs, references, dict(index=index, start=1, chunkLength=5), dtype)


def selection_margin(encoded, shape, references):
    """Smallest relative gap between a kept and a dropped score."""
    prefix, margin = references["prefixLength"], math.inf
    for n, length in enumerate(references["lengths"].tolist()):
        for layer in range(shape.memoryLayers):
            for kv in range(shape.kvHeads):
                scores = encoded["scores"][layer][n, kv, prefix:length]
                kept = [j for j in encoded["kept"][n][layer][kv] if j >= 0]
                dropped = [j for j in range(length - prefix) if j not in kept]
                if dropped:
                    lowest = scores[kept].min().item()
                    margin = min(margin, (lowest - scores[dropped].max().item()) / lowest)
    return margin


def selection_case(shape, number, lengths, prefix, kept_tokens, dtype):
    specs = parameter_specs(shape, number)
    parameters = {name: values_of(spec, dtype) for name, spec in specs.items()}
    references = reference_inputs(shape, number + 300, lengths, prefix, kept_tokens)
    expected = {}
    for rule in ("softmax", "exp"):
        encoded = encode(parameters, shape, references, rule)
        expected["keptLengths"] = torch.tensor(encoded["keptLengths"])
        expected[rule] = {"margin": selection_margin(encoded, shape, references), "kept": torch.tensor(encoded["kept"]),
                          **{name: encoded[name] for name in ("scores", "keys", "values")}}  # fmt: skip
    description = "Writing memories: token scores by both rules, kept tokens, keys and values."
    return document("selection", description, shape, specs, {"references": references}, expected)


def rope_case(dtype):
    cases = []
    layouts = [([2, 5, 3, 8], torch.arange(5), 10000.0),
               ([1, 7, 2, 6], torch.tensor([0, 1, 2, 131, 132, 133, 2047]), 10000.0),
               ([2, 3, 1, 2], torch.tensor([9, 10, 11]), 500.0)]  # fmt: skip
    for number, (sizes, positions, theta) in enumerate(layouts):
        x_spec, up_spec = generated(sizes, 3000 + number, 1.0), generated(sizes, 3010 + number, 1.0)
        x = values_of(x_spec, dtype).requires_grad_()
        out = oracle.rope(x, positions, theta)
        (out * values_of(up_spec, dtype)).sum().backward()
        cases.append({"x": x_spec, "upstream": up_spec, "positions": positions, "theta": theta, "out": out,
                      "gradient": x.grad})  # fmt: skip
    return {"case": "rope", "description": "Rotation and its gradient at given positions.", "cases": cases}


def training_case(shape, number, peak, clip_norm, dtype):
    specs = parameter_specs(shape, number)
    inputs = text_inputs(shape, number + 300, 2, 9)
    optimizer = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": clip_norm}
    learning_rates = [peak * share for share in (0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.5, 0.125)]  # warmup, stable, decay
    parameters = {name: values_of(spec, dtype) for name, spec in specs.items()}
    expected = {"losses": [], "gradientNorms": []}
    adam = {name: value for name, value in optimizer.items() if name != "clipNorm"}
    m = {name: torch.zeros_like(p) for name, p in parameters.items()}
    v = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for step, lr in enumerate(learning_rates, start=1):
        loss, gradients = loss_and_gradients(parameters, shape, inputs)
        norm = oracle.global_norm(gradients)
        expected["losses"].append(loss)
        expected["gradientNorms"].append(norm)
        scale = oracle.clip_scale(norm, clip_norm)
        oracle.adamw_step(parameters, {name: g * scale for name, g in gradients.items()}, m, v, step, lr, **adam)
        if step == 1:
            expected["parametersAfter1"] = {name: p.clone() for name, p in parameters.items()}
    expected["finalLoss"] = loss_and_gradients(parameters, shape, inputs)[0]
    expected |= {"parametersAfter10": parameters, "firstMomentsAfter10": m, "secondMomentsAfter10": v}
    inputs = {**inputs, "optimizer": optimizer, "learningRates": learning_rates}
    return document("training", "Ten AdamW steps on one batch with clipping.", shape, specs, inputs, expected)


def loss_and_gradients(parameters, shape, inputs):
    leaves = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    expected = run_text(leaves, shape, inputs)
    return expected["loss"], expected["gradients"]


CASES = {
    "forward_untied_h4k2": lambda dtype: forward_case(H4K2, False, 0, 13, dtype),
    "forward_tied_h4k2": lambda dtype: forward_case(H4K2, True, 150, 7, dtype),
    "forward_untied_h3k1": lambda dtype: forward_case(H3K1, False, 300, 9, dtype),
    "forward_tied_h3k1": lambda dtype: forward_case(H3K1, True, 450, 11, dtype),
    "bank_h4k2": bank_h4k2,
    "bank_h3k1": bank_h3k1,
    "forward_documents_h3k1": lambda dtype: forward_case(H3K1, False, 5200, 11, dtype, [[0, 3, 4, 10], range(11)]),
    "bank_documents_h4k2": bank_documents_h4k2,
    "online_h4k2_softmax": online_h4k2,
    "online_h3k1_exp": online_h3k1,
    "selection_h4k2": lambda dtype: selection_case(ModelShape(**H4K2), 3100, [15, 9, 5, 12, 3], 2, 4, dtype),
    "selection_h3k1": lambda dtype: selection_case(
        ModelShape(**{**H3K1, "memoryLayers": 3}, tieEmbeddings=True), 3500, [13, 8, 11], 1, 5, dtype
    ),
    "rope": rope_case,
    "training_untied": lambda dtype: training_case(ModelShape(**H4K2), 4000, 2**-6, 2.0, dtype),
    "training_tied": lambda dtype: training_case(ModelShape(**H3K1, tieEmbeddings=True), 4400, 2**-7, 3.0, dtype),
}


# Self-checks: the same things said another way


def close(actual, expected, tolerance=1e-11):
    """Raises unless all elements agree to the tolerance, relative to the largest element (1 at least)."""
    actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if actual.numel():
        error = (actual - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        assert error <= tolerance, f"off by {error}"


def check_generated_tensors(docs):
    """No two tensors of a file share their numbers, matrices have full rank, integers stay exact in float64."""
    for name, doc in docs.items():
        if "parameters" not in doc:
            continue
        seen = set()
        for spec in doc["parameters"].values():
            key = (spec["a"], spec["b"], spec["c"])
            assert key not in seen, name
            seen.add(key)
            assert (PRIME * math.prod(spec["shape"]) ** 2) * 2 < 2**53, name
            assert len(spec["shape"]) == 1 or conditioning(spec) >= 0.02, (name, spec)


def check_rope():
    """RoPE is a rotation of complex numbers; scores depend on the difference of positions only."""
    x = values_of(generated([1, 4, 2, 8], 5000, 1.0), torch.float64)
    positions = torch.tensor([3, 7, 8, 300])
    turned = torch.complex(x[..., :4], x[..., 4:])
    for t, position in enumerate(positions.tolist()):
        for i in range(4):
            angle = position * 10000 ** (-i / 4)
            turned[:, t, :, i] *= complex(math.cos(angle), math.sin(angle))
    close(oracle.rope(x, positions, 10000.0), torch.cat([turned.real, turned.imag], -1))
    near, far = (oracle.rope(x, positions + shift, 10000.0)[0, :, 0] for shift in (0, 55))
    close(near @ near.T, far @ far.T)


def check_attention():
    """Attention in scalar Python, without tensors in the loop and without autograd."""
    doc = bank_h4k2(torch.float64)
    memories = memories_of(doc, torch.float64)
    batch, tokens, heads, kv_heads, dim = 2, 17, 4, 2, 4
    q, k, v = (values_of(generated([batch, tokens, n, dim], 5100 + n + i, 1.5), torch.float64)
               for i, n in enumerate((heads, kv_heads, kv_heads)))  # fmt: skip
    out, share = oracle.attention(q, k, v, memories, 1)
    keys, values = memories.keys[1].tolist(), memories.values[1].tolist()
    for b in range(batch):
        for t in range(tokens):
            chunk = (t - memories.start) // memories.chunkLength  # C chunks suffice here: never clamped
            slots = memories.index[b][chunk] if t >= memories.start else []
            for h in range(heads):
                kv = h * kv_heads // heads
                pairs = [(k[b, j, kv].tolist(), v[b, j, kv].tolist(), None) for j in range(tokens) if j <= t]
                for r, memory in enumerate(slots):
                    for s in range(memories.lengths[memory] if memory != -1 else 0):
                        pairs.append((keys[memory][kv][s], values[memory][kv][s], r))
                query = q[b, t, h].tolist()
                powers = [math.exp(sum(x * y for x, y in zip(query, key)) * dim**-0.5) for key, _, _ in pairs]
                total = sum(powers)
                result = [sum(p * value[i] for p, (_, value, _) in zip(powers, pairs)) / total for i in range(dim)]
                close(out[b, t, h], torch.tensor(result, dtype=torch.float64))
                mass = [sum(p for p, (_, _, owner) in zip(powers, pairs) if owner == r) / total for r in range(3)]
                close(share[b, t, h], torch.tensor(mass, dtype=torch.float64))


def check_token_scores():
    """Token scores in scalar Python."""
    q = values_of(generated([7, 4, 4], 5200, 1.5), torch.float64)
    k = values_of(generated([7, 2, 4], 5201, 1.5), torch.float64)
    for rule in ("softmax", "exp"):
        scores = oracle.token_scores(q, k, 2, 6, rule)
        for kv in range(2):
            for j in range(7):
                expected = 0.0 if 2 <= j < 6 else -1.0
                for h in (2 * kv, 2 * kv + 1):
                    for i in range(2, 6):
                        power = [math.exp(float(q[i, h].dot(k[n, kv])) / 2) for n in range(7)]
                        divisor = sum(power[2:6]) if rule == "softmax" else 1
                        expected += power[j] / divisor if 2 <= j < 6 else 0
                close(scores[kv, j], torch.tensor(expected, dtype=torch.float64))


def check_loss_and_mlp(docs):
    """The loss against torch's, SwiGLU and RMSNorm against torch's silu and a scalar norm."""
    doc = docs["forward_untied_h4k2"]
    logits, targets = doc["expected"]["logits"], doc["inputs"]["targets"]
    theirs = torch.nn.functional.cross_entropy(logits.reshape(-1, 23), targets.reshape(-1), ignore_index=-1)
    close(doc["expected"]["loss"], theirs.item())
    x = values_of(generated([1, 1, 12], 5300, 2.0), torch.float64)
    weight = values_of(generated([12], 5301, 0.2, 1.0), torch.float64)
    root = math.sqrt(sum(float(e) ** 2 for e in x.flatten()) / 12 + 1e-5)
    normed = torch.tensor([float(w) * float(e) / root for w, e in zip(weight, x.flatten())], dtype=torch.float64)
    close(oracle.rms_norm(x, weight, 1e-5)[0, 0], normed)
    sizes = {"gate": [20, 12], "up": [20, 12], "down": [12, 20]}
    matrices = {name: values_of(generated(sizes[name], 5310 + i, 0.7), torch.float64) for i, name in enumerate(sizes)}
    parameters = {f"model.layers.0.mlp.{name}_proj.weight": matrix for name, matrix in matrices.items()}
    parameters["model.layers.0.post_attention_layernorm.weight"] = weight
    inner = torch.nn.functional.silu(matrices["gate"] @ normed) * (matrices["up"] @ normed)
    close(oracle.mlp_block(parameters, ModelShape(**H4K2), 0, x)[0, 0], x[0, 0] + matrices["down"] @ inner)


def check_memory_is_context():
    """A reference kept whole and read by every layer equals the same reference standing in the context.

    Text after the prefix sees prefix, memory and itself, and a reference written after the same prefix saw that prefix:
    with all layers as memory layers nothing differs, so the hidden states of the text must be the same.
    """
    shape = ModelShape(**{**H4K2, "memoryLayers": 3})
    parameters = {name: values_of(spec, torch.float64) for name, spec in parameter_specs(shape, 5400).items()}
    prefix, reference, text = prefix_ids(2), integers([6], 5450, 23), integers([9], 5451, 23)
    ids = torch.cat([prefix, reference, text])[None]
    positions = torch.cat([torch.arange(8), torch.arange(9) + 12])
    plain, _ = oracle.forward(parameters, shape, ids, positions)
    encoded = oracle.encode_references(parameters, shape, ids[:, :8], [8], 2, 6, "softmax")
    memories = Memories(encoded["keys"], encoded["values"], encoded["keptLengths"], [[[0]] * 3], 2, 4)
    ids, positions = torch.cat([prefix, text])[None], torch.cat([positions[:2], positions[8:]])
    read, _ = oracle.forward(parameters, shape, ids, positions, memories)
    close(read[:, 2:], plain[:, 8:])
    close(read[:, :2], plain[:, :2])


def check_what_must_not_matter():
    """Padding ids, memory tokens past their length, later tokens and other sequences leave the result alone."""
    doc = docs_case("selection_h4k2")
    shape, references = ModelShape(**doc["model"]), doc["inputs"]["references"]
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    changed = references["ids"].clone()
    for n, length in enumerate(references["lengths"].tolist()):
        changed[n, length:] = 17
    other = encode(parameters, shape, {**references, "ids": changed}, "softmax")
    for name in ("keys", "values", "scores"):
        for mine, theirs in zip(doc["expected"]["softmax"][name], other[name]):
            close(theirs, mine)
    assert other["kept"] == doc["expected"]["softmax"]["kept"].tolist()

    doc = docs_case("bank_h4k2")
    memories = memories_of(doc, torch.float64)
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    for tensor in memories.keys + memories.values:
        for m, length in enumerate(memories.lengths):
            tensor[m, :, length:] = 1e6
    ids = doc["inputs"]["ids"].clone()
    ids[0, 12:] = 5  # later tokens of sequence 0
    hidden, _ = oracle.forward(parameters, ModelShape(**doc["model"]), ids, doc["inputs"]["positions"], memories)
    close(hidden[1], doc["expected"]["hidden"][1])
    close(hidden[0, :12], doc["expected"]["hidden"][0, :12])
    for gradients in (doc["expected"]["memoryKeyGradients"], doc["expected"]["memoryValueGradients"]):
        for gradient in gradients:
            assert (gradient[4] == 0).all() and (gradient[2] == 0).all(), "unread and empty memories"
            assert (gradient[1, :, 2:] == 0).all() and (gradient[0] != 0).all()


def check_last_chunk():
    """Tokens past the last chunk read what the last chunk reads."""
    doc = docs_case("bank_h3k1")
    memories = memories_of(doc, torch.float64)
    memories.index = [chunks + [chunks[-1]] * 2 for chunks in memories.index]  # as many chunks as the text needs
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    ids, positions = doc["inputs"]["ids"], doc["inputs"]["positions"]
    hidden, shares = oracle.forward(parameters, ModelShape(**doc["model"]), ids, positions, memories)
    close(hidden, doc["expected"]["hidden"])
    close(shares[0], doc["expected"]["shares"][0])


def check_documents():
    """A document of a sequence of several comes out as it does alone, at the same positions or at others."""
    doc = docs_case("forward_documents_h3k1")
    shape, inputs = ModelShape(**doc["model"]), doc["inputs"]
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    for begin, end in ((0, 3), (3, 4), (4, 10), (10, 11)):
        for positions in (inputs["positions"][begin:end], torch.arange(end - begin) + 40):
            alone, _ = oracle.forward(parameters, shape, inputs["ids"][:1, begin:end], positions)
            close(alone[0], doc["expected"]["hidden"][0, begin:end])

    doc = docs_case("bank_documents_h4k2")  # the document from token 9 on begins inside the second chunk
    shape, inputs, memories = ModelShape(**doc["model"]), doc["inputs"], memories_of(doc, torch.float64)
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    memories.index, memories.start = [memories.index[1][1:]], -3
    alone, shares = oracle.forward(parameters, shape, inputs["ids"][1:, 9:], inputs["positions"][9:], memories)
    close(alone[0], doc["expected"]["hidden"][1, 9:])
    for mine, theirs in zip(shares, doc["expected"]["shares"]):
        close(mine[0], theirs[1, 9:])


def check_scores_know_no_order():
    """In the first layer, shuffling a reference shuffles its scores: no mask, no positions. Later layers see order."""
    doc = docs_case("selection_h4k2")
    shape, references = ModelShape(**doc["model"]), doc["inputs"]["references"]
    parameters = {name: values_of(spec, torch.float64) for name, spec in doc["parameters"].items()}
    order = torch.cat([torch.arange(2), integers([13], 6500, PRIME).argsort() + 2])
    ids = references["ids"].clone()
    ids[0] = ids[0, order]  # reference 0 has no padding
    shuffled = encode(parameters, shape, {**references, "ids": ids}, "softmax")["scores"]
    scores = doc["expected"]["softmax"]["scores"]
    close(shuffled[0][0], scores[0][0][:, order])
    assert (shuffled[1][0] - scores[1][0][:, order]).abs().max() > 0.01


def check_optimizer(docs):
    """Ten steps by torch.optim.AdamW and torch's gradient clipping land on the same parameters."""
    for name in ("training_untied", "training_tied"):
        doc = docs[name]
        shape, inputs, settings = ModelShape(**doc["model"]), doc["inputs"], doc["inputs"]["optimizer"]
        parameters = leaf_parameters(doc["parameters"], torch.float64)
        decayed = [p for p in parameters.values() if p.dim() >= 2]
        others = [p for p in parameters.values() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": settings["weightDecay"]}, {"params": others, "weight_decay": 0.0}]
        adam = torch.optim.AdamW(groups, lr=1.0, betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"])
        for lr in inputs["learningRates"]:
            adam.zero_grad()
            run_text(parameters, shape, inputs)
            torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clipNorm"])
            for group in adam.param_groups:
                group["lr"] = lr
            adam.step()
        for key, p in parameters.items():
            # torch clips by clipNorm / (norm + 1e-6)
            close(p.detach(), doc["expected"]["parametersAfter10"][key], 1e-6)
        clipped = sum(norm > settings["clipNorm"] for norm in doc["expected"]["gradientNorms"])
        assert 2 <= clipped <= 8, f"{name}: {clipped} of 10 steps clipped"


def check_finite_differences(name, doc):
    """Central differences of the loss at a few entries of every parameter and of the memory keys and values."""
    shape, inputs = ModelShape(**doc["model"]), doc["inputs"]
    parameters = {key: values_of(spec, torch.float64) for key, spec in doc["parameters"].items()}
    given = memories_of(doc, torch.float64) if "memories" in inputs else None

    def loss():
        memories = given
        if "references" in inputs:
            references, reading = inputs["references"], inputs["reading"]
            encoded = encode(parameters, shape, references, references["tokenScores"])
            assert encoded["kept"] == doc["expected"]["kept"].tolist()
            memories = Memories(encoded["keys"], encoded["values"], encoded["keptLengths"],
                                reading["index"].tolist(), reading["start"], reading["chunkLength"])  # fmt: skip
        hidden, _ = oracle.forward(parameters, shape, inputs["ids"], inputs["positions"], memories,
                                   inputs.get("firstVisible"))  # fmt: skip
        losses = oracle.token_losses(oracle.logits_of(parameters, shape, hidden), inputs["targets"])
        return oracle.mean_loss(losses, inputs["targets"]).item()

    tensors = [(key, p, doc["expected"]["gradients"][key]) for key, p in parameters.items()]
    if given:
        for kind, stored in (("Key", given.keys), ("Value", given.values)):
            gradients = doc["expected"][f"memory{kind}Gradients"]
            tensors += [(f"memory {kind} {layer}", stored[layer], gradients[layer]) for layer in range(len(stored))]
    worst = 0.0
    for tensor_number, (key, tensor, gradient) in enumerate(tensors):
        flat, step = tensor.view(-1), 1e-5
        largest = gradient.abs().argmax().item()
        for entry in (largest, integers([1], 6000 + tensor_number, flat.numel()).item()):
            kept = flat[entry].item()
            flat[entry] = kept + step
            up = loss()
            flat[entry] = kept - step
            down = loss()
            flat[entry] = kept
            error = abs((up - down) / (2 * step) - gradient.reshape(-1)[entry].item())
            worst = max(worst, error / max(gradient.abs().max().item(), 1e-3))
            assert worst < 1e-6, (name, key, entry, error)
    return worst


def check_selection_margins(docs):
    """Kept tokens must not hang on rounding, the prefix never wins, and the rules must not all choose alike."""
    for name in ("selection_h4k2", "selection_h3k1"):
        expected = docs[name]["expected"]
        for rule in ("softmax", "exp"):
            assert expected[rule]["margin"] > 1e-3, (name, rule, expected[rule]["margin"])
        assert (expected["softmax"]["kept"] != expected["exp"]["kept"]).any(), f"{name}: the rules keep the same"
    for name in ("online_h4k2_softmax", "online_h3k1_exp"):
        doc = docs[name]
        shape, references = ModelShape(**doc["model"]), doc["inputs"]["references"]
        parameters = {key: values_of(spec, torch.float64) for key, spec in doc["parameters"].items()}
        margin = selection_margin(encode(parameters, shape, references, references["tokenScores"]), shape, references)
        assert margin > 1e-3, (name, margin)


def memories_of(doc, dtype):
    """The memories of a bank case, made anew."""
    stored = doc["inputs"]["memories"]
    keys, values = ([values_of(spec, dtype) for spec in stored[kind]] for kind in ("keys", "values"))
    lengths, index = stored["lengths"].tolist(), stored["index"].tolist()
    return Memories(keys, values, lengths, index, stored["start"], stored["chunkLength"])


def docs_case(name):
    return CASES[name](torch.float64)


def self_check(docs):
    check_generated_tensors(docs)
    check_rope()
    check_attention()
    check_token_scores()
    check_loss_and_mlp(docs)
    check_memory_is_context()
    check_what_must_not_matter()
    check_last_chunk()
    check_documents()
    check_scores_know_no_order()
    check_optimizer(docs)
    check_selection_margins(docs)
    for name, doc in docs.items():
        if "gradients" in doc.get("expected", {}):
            print(f"  {name}: finite differences agree to {check_finite_differences(name, doc):.1e}")


# Files


def float32_error(exact, single):
    """Largest difference of an entry relative to the largest element of its array."""
    if isinstance(exact, dict):
        return max(float32_error(exact[key], single[key]) for key in exact if key != "margin")
    if isinstance(exact, list) and not isinstance(exact[0], float):
        return max(float32_error(e, s) for e, s in zip(exact, single))
    exact, single = torch.as_tensor(exact).detach().double(), torch.as_tensor(single).detach().double()
    assert exact.shape == single.shape
    return ((exact - single).abs().max() / max(exact.abs().max().item(), 1e-30)).item()


def with_float32_error(doc, single):
    """The document with the errors of the same case made in float32."""
    if "cases" in doc:
        entries = {name: [case[name] for case in doc["cases"]] for name in ("out", "gradient")}
        others = {name: [case[name] for case in single["cases"]] for name in entries}
    else:
        entries, others = doc["expected"], single["expected"]
    errors = {name: float(f"{float32_error(entry, others[name]):.2g}") for name, entry in entries.items()}
    return {**doc, "float32Error": errors}


def checksums(tensors):
    return {name: {"sum": t.sum().item(), "sumOfSquares": (t * t).sum().item(), "first": t.flatten()[:8].tolist()}
            for name, t in tensors.items()}  # fmt: skip


def plain(value):
    """Tensors to {shape, data}, numbers to 9 significant digits."""
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "data": plain(value.detach().flatten().tolist())}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        rounded = float(f"{value:.9g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e9 else rounded
    return value


def to_json(value, indent=""):
    """JSON with one line for each tensor, so that a changed file can be read as a difference."""
    if isinstance(value, dict) and "shape" not in value and value:
        inner = indent + "  "
        lines = [f"{inner}{json.dumps(key)}: {to_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + to_json(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, separators=(",", ":"))


def finished(name):
    """The document of a case as it is stored."""
    doc = with_float32_error(CASES[name](torch.float64), CASES[name](torch.float32))
    if doc["case"] == "training":
        sums = {key: checksums(value) for key, value in doc["expected"].items() if isinstance(value, dict)}
        doc["expected"] = {**doc["expected"], **sums}
    return plain(doc)


def same(made, stored):
    """Whether two plain documents agree to 1e-7, float32Error left out."""
    if isinstance(made, dict):
        return isinstance(stored, dict) and made.keys() == stored.keys() and all(
            key == "float32Error" or same(made[key], stored[key]) for key in made)  # fmt: skip
    if isinstance(made, list):
        return isinstance(stored, list) and len(made) == len(stored) and all(map(same, made, stored))
    if isinstance(made, (int, float)) and not isinstance(made, bool):
        return isinstance(stored, (int, float)) and abs(made - stored) <= 1e-7 * max(1.0, abs(made))
    return made == stored


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="compare with the stored files instead of writing them")
    check_only = arguments.parse_args().check
    torch.set_num_threads(1)
    docs = {name: docs_case(name) for name in CASES}
    print("self-checks")
    self_check(docs)
    GOLDEN.mkdir(exist_ok=True)
    for name in CASES:
        doc, path = finished(name), GOLDEN / f"{name}.json"
        if check_only:
            if not same(doc, json.loads(path.read_text())):
                raise SystemExit(f"{path} differs from what the oracle says now")
        else:
            text = to_json(doc) + "\n"
            assert len(text) < 300_000, (name, len(text))
            path.write_text(text)
            print(f"  {path.name}: {len(text)} bytes, float32 off by at most {max(doc['float32Error'].values()):.1e}")
    print("golden files agree" if check_only else f"wrote {len(CASES)} files to {GOLDEN}")


if __name__ == "__main__":
    main()
