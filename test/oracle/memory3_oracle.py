"""The model and the Memory3 mechanism in plain PyTorch, slow and obvious, for float64.

Written from "Memory3: Language Modeling with Explicit Memory" (arXiv 2407.01178) and the Llama block as Hugging Face
lays it out. The loops over sequences, chunks and heads are deliberate: each line should be checkable by eye.

Legend: B batch, T tokens, H query heads, K key-value heads, G = H/K, D head dimension, d hidden size, W MLP width,
V vocabulary, M memories of a step, S kept tokens per memory, C chunks, R memory slots per chunk, N references.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModelShape:
    """Shape of a model. The field names are those of the run configuration."""

    numLayers: int
    hiddenSize: int
    numHeads: int
    kvHeads: int
    headDim: int
    mlpWidth: int
    memoryLayers: int
    vocabSize: int
    ropeTheta: float = 10000.0
    normEpsilon: float = 1e-5
    tieEmbeddings: bool = False


@dataclass
class Memories:
    """Memories of one step, as attention takes them.

    keys, values: one [M, K, S, D] tensor per memory layer, keys after RoPE
    lengths: valid tokens of each memory, [M]
    index: memory read in slot r by chunk c of sequence b, [B][C][R], -1 for none
    start: first token that belongs to a chunk; tokens before it read no memory
    """

    keys: list
    values: list
    lengths: list
    index: list
    start: int
    chunkLength: int


def parameter_shapes(shape):
    """Parameter names (Hugging Face Llama) and shapes, in order."""
    query_width = shape.numHeads * shape.headDim
    kv_width = shape.kvHeads * shape.headDim
    shapes = {"model.embed_tokens.weight": [shape.vocabSize, shape.hiddenSize]}
    for layer in range(shape.numLayers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = [shape.hiddenSize]
        shapes[prefix + "self_attn.q_proj.weight"] = [query_width, shape.hiddenSize]
        shapes[prefix + "self_attn.k_proj.weight"] = [kv_width, shape.hiddenSize]
        shapes[prefix + "self_attn.v_proj.weight"] = [kv_width, shape.hiddenSize]
        shapes[prefix + "self_attn.o_proj.weight"] = [shape.hiddenSize, query_width]
        shapes[prefix + "post_attention_layernorm.weight"] = [shape.hiddenSize]
        shapes[prefix + "mlp.gate_proj.weight"] = [shape.mlpWidth, shape.hiddenSize]
        shapes[prefix + "mlp.up_proj.weight"] = [shape.mlpWidth, shape.hiddenSize]
        shapes[prefix + "mlp.down_proj.weight"] = [shape.hiddenSize, shape.mlpWidth]
    shapes["model.norm.weight"] = [shape.hiddenSize]
    if not shape.tieEmbeddings:
        shapes["lm_head.weight"] = [shape.vocabSize, shape.hiddenSize]
    return shapes


def rms_norm(x, weight, epsilon):
    """x [..., d] divided by its root mean square, times weight [d]."""
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)


def rope(x, positions, theta):
    """Rotary position embedding of x [B, T, heads, D] at positions [T]; half-split pairs (i, i + D/2)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-2.0 * torch.arange(half, dtype=x.dtype) / x.shape[-1])
    angles = positions.to(x.dtype)[:, None] * frequencies  # [T, D/2]
    cos, sin = angles.cos()[None, :, None, :], angles.sin()[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(q, k, v, memories=None, memory_layer=0, first_visible=None):
    """Causal grouped-query attention with memories per chunk. Paper 3.1, 3.2.

    q [B, T, H, D], k and v [B, T, K, D], q and k already rotated. With first_visible [B, T] a token sees no token of the
    context before this one: the begin of its document. Returns the output [B, T, H, D] and the softmax mass of each
    memory slot [B, T, H, R] (R = 0 without memories).
    """
    batch, tokens, heads, head_dim = q.shape
    group = heads // k.shape[2]
    slots = len(memories.index[0][0]) if memories else 0
    out, share = [], []
    for b in range(batch):
        for t in range(tokens):
            read = slots_of_token(memories, b, t)
            first = first_visible[b][t] if first_visible is not None else 0
            for h in range(heads):
                kv = h // group
                keys, values, owners = [k[b, first : t + 1, kv]], [v[b, first : t + 1, kv]], [-1] * (t + 1 - first)
                for slot, m in read:
                    length = memories.lengths[m]
                    keys.append(memories.keys[memory_layer][m, kv, :length])
                    values.append(memories.values[memory_layer][m, kv, :length])
                    owners += [slot] * length
                scores = torch.cat(keys) @ q[b, t, h] / math.sqrt(head_dim)
                weights = torch.softmax(scores, dim=0)
                out.append(weights @ torch.cat(values))
                owner = torch.tensor(owners)
                share.extend(weights.detach()[owner == slot].sum() for slot in range(slots))
    out = torch.stack(out).reshape(batch, tokens, heads, head_dim)
    share = torch.stack(share).reshape(batch, tokens, heads, slots) if slots else q.new_zeros(batch, tokens, heads, 0)
    return out, share


def slots_of_token(memories, b, t):
    """The (slot, memory) pairs that token t of sequence b reads."""
    if memories is None or t < memories.start:
        return []
    chunk = min((t - memories.start) // memories.chunkLength, len(memories.index[b]) - 1)
    return [(slot, m) for slot, m in enumerate(memories.index[b][chunk]) if m >= 0]


def project(parameters, layer, name, x, heads):
    """x [B, T, d] through the layer's q, k or v projection, split into heads [B, T, heads, D]."""
    y = x @ parameters[f"model.layers.{layer}.self_attn.{name}_proj.weight"].T
    return y.reshape(x.shape[0], x.shape[1], heads, -1)


def attention_block(parameters, shape, layer, x, positions, memories=None, first_visible=None):
    """x + o_proj(attention(norm(x))), and the memory shares."""
    normed = rms_norm(x, parameters[f"model.layers.{layer}.input_layernorm.weight"], shape.normEpsilon)
    q = rope(project(parameters, layer, "q", normed, shape.numHeads), positions, shape.ropeTheta)
    k = rope(project(parameters, layer, "k", normed, shape.kvHeads), positions, shape.ropeTheta)
    v = project(parameters, layer, "v", normed, shape.kvHeads)
    reads = memories if layer < shape.memoryLayers else None
    out, share = attention(q, k, v, reads, layer, first_visible)
    out = out.reshape(x.shape[0], x.shape[1], -1) @ parameters[f"model.layers.{layer}.self_attn.o_proj.weight"].T
    return x + out, share


def mlp_block(parameters, shape, layer, x):
    """x + down(silu(gate(norm(x))) * up(norm(x)))."""
    prefix = f"model.layers.{layer}."
    normed = rms_norm(x, parameters[prefix + "post_attention_layernorm.weight"], shape.normEpsilon)
    gate = normed @ parameters[prefix + "mlp.gate_proj.weight"].T
    up = normed @ parameters[prefix + "mlp.up_proj.weight"].T
    return x + (gate * torch.sigmoid(gate) * up) @ parameters[prefix + "mlp.down_proj.weight"].T


def forward(parameters, shape, ids, positions, memories=None, first_visible=None):
    """ids [B, T] at positions [T] -> hidden [B, T, d] after the final norm, shares per memory layer [B, T, H, R]."""
    x = parameters["model.embed_tokens.weight"][ids]
    shares = []
    for layer in range(shape.numLayers):
        x, share = attention_block(parameters, shape, layer, x, positions, memories, first_visible)
        x = mlp_block(parameters, shape, layer, x)
        if memories is not None and layer < shape.memoryLayers:
            shares.append(share)
    return rms_norm(x, parameters["model.norm.weight"], shape.normEpsilon), shares


def logits_of(parameters, shape, hidden):
    """hidden [..., d] -> logits [..., V]."""
    head = "model.embed_tokens.weight" if shape.tieEmbeddings else "lm_head.weight"
    return hidden @ parameters[head].T


def token_losses(logits, targets):
    """Negative log likelihood of targets [B, T] under logits [B, T, V]; 0 where the target is -1 (ignored)."""
    valid = targets >= 0
    chosen = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return torch.where(valid, torch.logsumexp(logits, dim=-1) - chosen, torch.zeros_like(chosen))


def mean_loss(losses, targets):
    """Mean of the token losses over the valid targets."""
    return losses.sum() / (targets >= 0).sum()


def token_scores(q, k, first, length, rule):
    """Attention that each token of one reference receives from all of its tokens. Paper 3.3.

    q [T, H, D], k [T, K, D] before RoPE; tokens first <= t < length take part, no mask. rule: 'softmax' or 'exp'.
    Returns [K, T], -1 for tokens that take no part.
    """
    group = q.shape[1] // k.shape[1]
    scores = q.new_full((k.shape[1], q.shape[0]), -1.0)
    for kv in range(k.shape[1]):
        received = q.new_zeros(length - first)
        for h in range(kv * group, (kv + 1) * group):
            products = q[first:length, h] @ k[first:length, kv].T / math.sqrt(q.shape[-1])  # [giver, receiver]
            attended = torch.softmax(products, dim=1) if rule == "softmax" else torch.exp(products)
            received = received + attended.sum(0)
        scores[kv, first:length] = received
    return scores


def encode_references(parameters, shape, ids, lengths, prefix_length, kept_tokens, rule):
    """Write memories. Paper 3.2, 3.3.

    ids [N, Lref] with the prefix, padded at the end; lengths include the prefix. Only the memory layers run and the
    last of them stops at its keys and values. Returns a dict of
    keys, values: one [N, K, S, D] per memory layer, keys after RoPE, zeros past keptLengths
    scores: one [N, K, Lref] per memory layer
    kept: [N][Lmem][K][S], counted inside the reference, -1 past keptLengths
    keptLengths: [N]
    """
    positions = torch.arange(ids.shape[1])
    kept_lengths = [min(kept_tokens, length - prefix_length) for length in lengths]
    kept = [[] for _ in lengths]
    keys, values, scores = [], [], []
    x = parameters["model.embed_tokens.weight"][ids]
    for layer in range(shape.memoryLayers):
        normed = rms_norm(x, parameters[f"model.layers.{layer}.input_layernorm.weight"], shape.normEpsilon)
        q = project(parameters, layer, "q", normed, shape.numHeads)
        k = project(parameters, layer, "k", normed, shape.kvHeads)
        v = project(parameters, layer, "v", normed, shape.kvHeads)
        rotated = rope(k, positions, shape.ropeTheta)
        layer_keys, layer_values, layer_scores = [], [], []
        for n, length in enumerate(lengths):
            score = token_scores(q[n].detach(), k[n].detach(), prefix_length, length, rule)
            layer_scores.append(score)
            kept[n].append([])
            for kv in range(shape.kvHeads):
                ranked = torch.sort(score[kv], descending=True, stable=True).indices  # ties: earlier first
                best = ranked[: kept_lengths[n]].sort().values
                missing = kept_tokens - kept_lengths[n]
                kept[n][layer].append((best - prefix_length).tolist() + [-1] * missing)
                padding = k.new_zeros(missing, shape.headDim)
                layer_keys.append(torch.cat([rotated[n, best, kv], padding]))
                layer_values.append(torch.cat([v[n, best, kv], padding]))
        sizes = (len(lengths), shape.kvHeads, kept_tokens, shape.headDim)
        keys.append(torch.stack(layer_keys).reshape(sizes))
        values.append(torch.stack(layer_values).reshape(sizes))
        scores.append(torch.stack(layer_scores))
        if layer < shape.memoryLayers - 1:
            x, _ = attention_block(parameters, shape, layer, x, positions)
            x = mlp_block(parameters, shape, layer, x)
    return {"keys": keys, "values": values, "scores": scores, "kept": kept, "keptLengths": kept_lengths}


def global_norm(gradients):
    """Square root of the sum of squares over all gradients (a dict)."""
    return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))


def clip_scale(norm, clip_norm):
    """Factor that brings a gradient of this global norm down to clip_norm."""
    return min(1.0, clip_norm / norm)


def adamw_step(parameters, gradients, m, v, step, lr, beta1, beta2, epsilon, weightDecay):
    """One decoupled-decay Adam update in place, step counted from 1; only weights of two or more dimensions decay."""
    for name, p in parameters.items():
        g = gradients[name]
        if p.dim() >= 2:
            p.mul_(1 - lr * weightDecay)
        m[name].mul_(beta1).add_(g, alpha=1 - beta1)
        v[name].mul_(beta2).add_(g * g, alpha=1 - beta2)
        m_hat = m[name] / (1 - beta1**step)
        v_hat = v[name] / (1 - beta2**step)
        p.sub_(lr * m_hat / (v_hat.sqrt() + epsilon))
