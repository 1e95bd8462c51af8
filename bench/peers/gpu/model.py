"""The same model in PyTorch, as one would write it for speed on a GPU: the peer of the GPU benchmark.

Products run in the dtype of the model, bfloat16 as a rule. As in memory3 the optimiser works on float32 masters: each
weight has a bfloat16 copy that products read, written anew after each update by one foreach copy; the gradient of a copy
goes to its master in float32 (`Copy`). Query, key and value are one product, gate and up another. What stands before and
after attention in a block are two functions, so that `compiled=True` compiles each once for all blocks.

Runs on the CPU with PyTorch 1.13, for tests: without scaled_dot_product_attention its own formula is used.

Legend: B batch, T tokens, N = B*T, d hidden size, H heads, K key-value heads, D head dimension, W MLP width,
V vocabulary, M memories, S kept tokens, C chunks, c chunk length, R memories per chunk, L tokens of a reference.
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")


def same(function):
    return function


def compiler(compiled):
    """Compiles for the shapes that come, each anew, or not at all."""
    return (lambda function: torch.compile(function, dynamic=False)) if compiled else same


class Copy(torch.autograd.Function):
    """The copy of a float32 master in the dtype of the products."""

    @staticmethod
    def forward(ctx, master, copy):
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.float(), None


def norm(x, weight, epsilon):
    if hasattr(F, "rms_norm"):
        return F.rms_norm(x, weight.shape, weight, epsilon)
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


def rope(x, cos, sin):
    """x [B, T, heads, D]; cos and sin [T, 1, D]"""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def before(x, input_norm, qkv, cos, sin, batch, heads, kv_heads, epsilon):
    """From the residual stream to q [B, H, T, D], k and v [B, K, T, D], after RoPE."""
    rows = F.linear(norm(x, input_norm, epsilon), qkv).view(batch, -1, heads + 2 * kv_heads, cos.shape[-1])
    q, k, v = rows.split([heads, kv_heads, kv_heads], 2)
    return rope(q, cos, sin).transpose(1, 2), rope(k, cos, sin).transpose(1, 2), v.transpose(1, 2)


def after(x, attended, output, mlp_norm, gate_up, down, epsilon):
    """attended [B, H, T, D]; gives the new residual stream."""
    x = x + F.linear(attended.transpose(1, 2).reshape(x.shape[0], -1), output)
    gate, up = F.linear(norm(x, mlp_norm, epsilon), gate_up).chunk(2, -1)
    return x + F.linear(F.silu(gate) * up, down)


def loss_of_piece(logits, targets, scale):
    """Summed loss of some rows and the gradient of their logits by the mean."""
    logs = torch.log_softmax(logits, -1, dtype=torch.float32)
    rows = targets[:, None]
    loss = -logs.gather(1, rows).sum()
    d_logits = logs.exp_().scatter_add_(1, rows, logs.new_full(rows.shape, -1.0))
    return loss, d_logits.mul_(scale).to(logits.dtype)


class HeadLoss(torch.autograd.Function):
    """Mean loss fused with the output product: the logits of `rows` tokens at a time, whose gradients are made at once."""

    @staticmethod
    def forward(ctx, hidden, master, copy, targets, rows, of_piece):
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(master)
        for start in range(0, hidden.shape[0], rows):
            piece = slice(start, start + rows)
            loss, d_logits = of_piece(F.linear(hidden[piece], copy), targets[piece], 1 / hidden.shape[0])
            total += loss
            torch.mm(d_logits, copy, out=d_hidden[piece])
            d_weight += d_logits.t() @ hidden[piece]
        ctx.save_for_backward(d_hidden, d_weight)
        return total / hidden.shape[0]

    @staticmethod
    def backward(ctx, dy):
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * dy, d_weight.mul_(dy), None, None, None, None


# ---- attention: q [B, H, T, D], k and v [B, K, T, D] ----


def expanded(x, heads):
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def by_formula(q, k, v, visible):
    """visible [T, Tk], bool"""
    k, v = expanded(k, q.shape[1]), expanded(v, q.shape[1])
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~visible, -math.inf).softmax(-1) @ v


def lower_triangle(tokens, keys, device):
    return torch.ones(tokens, keys, dtype=torch.bool, device=device).tril(keys - tokens)


def causal(q, k, v):
    """Each query sees the keys up to its own; with more keys than queries the queries are the last tokens."""
    tokens, keys = q.shape[2], k.shape[2]
    if not HAS_SDPA:
        return by_formula(q, k, v, lower_triangle(tokens, keys, q.device))
    if tokens == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(tokens, keys)
    return F.scaled_dot_product_attention(q, expanded(k, q.shape[1]), expanded(v, q.shape[1]), attn_mask=mask)


class Memory:
    """The memories of one layer and who reads them: keys and values [M, K, S, D], index [B, C, R]."""

    def __init__(self, keys, values, index, chunk):
        self.keys, self.values, self.index, self.chunk = keys, values, index, chunk

    def of_sequences(self):
        """Keys and values that the chunks of each sequence read, [B, K, C*R*S, D]."""
        batch = self.index.shape[0]
        return [x[self.index.reshape(batch, -1)].transpose(1, 2).flatten(2, 3) for x in (self.keys, self.values)]

    def per_chunk(self):
        return self.index.shape[2] * self.keys.shape[2]


def is_seen(query, key, read, per_chunk, chunk):
    """Among the memories of all chunks, `read` tokens, followed by the context."""
    own = (key < read) & (key // per_chunk == query // chunk)
    return own | ((key >= read) & (key - read <= query))


class Concatenated:
    """Memories in front of the context, one attention with a mask over both."""

    def __init__(self):
        self.mask = None

    def __call__(self, q, k, v, memory):
        keys, values = memory.of_sequences()
        read, tokens = keys.shape[2], q.shape[2]
        if self.mask is None or self.mask.shape != (tokens, read + tokens):
            query = torch.arange(tokens, device=q.device)[:, None]
            key = torch.arange(read + tokens, device=q.device)
            self.mask = is_seen(query, key, read, memory.per_chunk(), memory.chunk)
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        if not HAS_SDPA:
            return by_formula(q, k, v, self.mask)
        k, v = expanded(k, q.shape[1]), expanded(v, q.shape[1])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


class Flex:
    """The same with FlexAttention and a block mask, which skips what no query of a block sees."""

    def __init__(self):
        from torch.nn.attention.flex_attention import flex_attention

        self.attention = torch.compile(flex_attention, dynamic=False)
        self.mask = self.made_for = None

    def __call__(self, q, k, v, memory):
        from torch.nn.attention.flex_attention import create_block_mask

        keys, values = memory.of_sequences()
        read, tokens, per_chunk, chunk = keys.shape[2], q.shape[2], memory.per_chunk(), memory.chunk
        if self.made_for != (read, tokens):
            seen = lambda b, h, query, key: is_seen(query, key, read, per_chunk, chunk)
            self.mask = create_block_mask(seen, None, None, tokens, read + tokens, device=q.device)
            self.made_for = (read, tokens)
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        return self.attention(q, k, v, block_mask=self.mask, enable_gqa=True)


def looped(q, k, v, memory):
    """The paper's way: chunk by chunk, each with its memories in front of the context up to its end."""
    keys, values = memory.of_sequences()
    width, parts = memory.per_chunk(), []
    for chunk, start in enumerate(range(0, q.shape[2], memory.chunk)):
        own, end = slice(chunk * width, (chunk + 1) * width), start + memory.chunk
        of_chunk = [torch.cat([x[:, :, own], y[:, :, :end]], 2) for x, y in ((keys, k), (values, v))]
        parts.append(causal(q[:, :, start:end], *of_chunk))
    return torch.cat(parts, 2)


def memory_attention(name):
    return {"mask": Concatenated, "flex": Flex, "loop": lambda: looped}[name]()


# ---- the model ----


class Model:
    """Masters and copies of all parameters by name, those of a block in fused form."""

    def __init__(self, shape, weights, dtype, compiled=False, attend_memory=None, recomputed=0, loss_rows=2048):
        self.shape, self.dtype = shape, dtype
        self.masters = {name: value.float().requires_grad_() for name, value in fused(shape, weights).items()}
        self.copies = {
            name: master.detach() if dtype == torch.float32 else master.detach().to(dtype)
            for name, master in self.masters.items()
        }
        self.attend_memory, self.recomputed, self.loss_rows = attend_memory, recomputed, loss_rows
        compile_ = compiler(compiled)
        self.before, self.after, self.of_piece = compile_(before), compile_(after), compile_(loss_of_piece)
        self.norm = compile_(norm)
        self.tables = {}

    def parameters(self):
        return list(self.masters.values())

    def refresh(self):
        """Writes the masters into their copies."""
        if self.dtype != torch.float32:
            with torch.no_grad():
                torch._foreach_copy_(list(self.copies.values()), [master.detach() for master in self.masters.values()])

    def weight(self, name):
        master = self.masters[name]
        return master if self.dtype == torch.float32 else Copy.apply(master, self.copies[name])

    def of_block(self, layer):
        return [self.weight(f"{layer}.{part}") for part in PARTS]

    def rotation(self, start, tokens, device):
        if (start, tokens) not in self.tables:
            half = self.shape["headDim"] // 2
            frequencies = self.shape.get("ropeTheta", 10_000) ** (-torch.arange(half, dtype=torch.float64) / half)
            angles = (torch.arange(tokens, dtype=torch.float64) + start)[:, None] * frequencies
            angles = torch.cat([angles, angles], -1)[:, None]
            self.tables[start, tokens] = [x.to(device, self.dtype) for x in (angles.cos(), angles.sin())]
        return self.tables[start, tokens]

    def block(self, layer, x, rotation, batch, memory):
        input_norm, qkv, output, mlp_norm, gate_up, down = self.of_block(layer)
        s, epsilon = self.shape, self.shape.get("normEpsilon", 1e-5)
        q, k, v = self.before(x, input_norm, qkv, *rotation, batch, s["numHeads"], s["kvHeads"], epsilon)
        attended = causal(q, k, v) if memory is None else self.attend_memory(q, k, v, memory)
        return self.after(x, attended, output, mlp_norm, gate_up, down, epsilon)

    def loss(self, ids, targets, memories=None, start=0):
        """Mean loss; `memories(layer)` gives a Memory; `start` is the position of the first token."""
        batch, tokens = ids.shape
        rotation = self.rotation(start, tokens, ids.device)
        x = F.embedding(ids.reshape(-1), self.weight("embedding"))
        for layer in range(self.shape["numLayers"]):
            memory = memories(layer) if memories and layer < self.shape["memoryLayers"] else None
            if layer < self.recomputed:
                x = checkpoint(self.block, layer, x, rotation, batch, memory, use_reentrant=False)
            else:
                x = self.block(layer, x, rotation, batch, memory)
        hidden = self.norm(x, self.weight("norm"), self.shape.get("normEpsilon", 1e-5))
        head, copy = self.masters["head"], self.copies["head"]
        return HeadLoss.apply(hidden, head, copy, targets.reshape(-1), self.loss_rows, self.of_piece)

    def encode(self, ids, prefix, kept):
        """Keys and values of the tokens of references that receive most attention, [M, K, S, D], of each memory layer."""
        batch, tokens = ids.shape
        rotation = self.rotation(0, tokens, ids.device)
        x = F.embedding(ids.reshape(-1), self.weight("embedding"))
        memories, last = [], self.shape["memoryLayers"] - 1
        for layer in range(last + 1):
            encode = lambda layer, x: self.encode_block(layer, x, rotation, batch, prefix, kept, layer == last)
            recompute = layer < self.recomputed
            x, keys, values = checkpoint(encode, layer, x, use_reentrant=False) if recompute else encode(layer, x)
            memories.append((keys, values))
        return memories

    def encode_block(self, layer, x, rotation, batch, prefix, kept, is_last):
        input_norm, qkv, output, mlp_norm, gate_up, down = self.of_block(layer)
        s, epsilon = self.shape, self.shape.get("normEpsilon", 1e-5)
        q, k, v = self.before(x, input_norm, qkv, *rotation, batch, s["numHeads"], s["kvHeads"], epsilon)
        with torch.no_grad():
            cos, sin = rotation
            plain = [rope(y.transpose(1, 2), cos, -sin)[:, prefix:] for y in (q, k)]
            chosen = choose(*plain, kept) + prefix
        index = chosen[..., None].expand(-1, -1, -1, s["headDim"])
        keys, values = k.gather(2, index), v.gather(2, index)
        if is_last:
            return x, keys, values
        return self.after(x, causal(q, k, v), output, mlp_norm, gate_up, down, epsilon), keys, values


def choose(q, k, kept):
    """Tokens that receive most attention, scored without positions and mask, in text order, [M, K, S]."""
    batch, tokens, kv_heads, dim = k.shape
    q = q.view(batch, tokens, kv_heads, -1, dim).permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, dim)
    scores = q @ k.permute(0, 2, 3, 1) / math.sqrt(dim)
    return scores.float().softmax(-1).sum(2).topk(kept, -1).indices.sort(-1).values


PARTS = ["input_norm", "qkv", "output", "mlp_norm", "gate_up", "down"]


def fused(shape, weights):
    """Hugging Face names to those of this model."""
    result = {
        "embedding": weights["model.embed_tokens.weight"],
        "norm": weights["model.norm.weight"],
        "head": weights["lm_head.weight"],
    }
    for layer in range(shape["numLayers"]):
        of = lambda name: weights[f"model.layers.{layer}.{name}.weight"]
        result[f"{layer}.input_norm"] = of("input_layernorm")
        result[f"{layer}.qkv"] = torch.cat([of(f"self_attn.{x}_proj") for x in "qkv"])
        result[f"{layer}.output"] = of("self_attn.o_proj")
        result[f"{layer}.mlp_norm"] = of("post_attention_layernorm")
        result[f"{layer}.gate_up"] = torch.cat([of("mlp.gate_proj"), of("mlp.up_proj")])
        result[f"{layer}.down"] = of("mlp.down_proj")
    return result


def parameter_sizes(shape):
    """Names and sizes of the parameters, in the order of memory3."""
    d, wide = shape["hiddenSize"], shape["mlpWidth"]
    query, key = shape["numHeads"] * shape["headDim"], shape["kvHeads"] * shape["headDim"]
    sizes = {"model.embed_tokens.weight": (shape["vocabSize"], d)}
    for layer in range(shape["numLayers"]):
        of_layer = {
            "input_layernorm": (d,),
            "self_attn.q_proj": (query, d),
            "self_attn.k_proj": (key, d),
            "self_attn.v_proj": (key, d),
            "self_attn.o_proj": (d, query),
            "post_attention_layernorm": (d,),
            "mlp.gate_proj": (wide, d),
            "mlp.up_proj": (wide, d),
            "mlp.down_proj": (d, wide),
        }
        sizes.update({f"model.layers.{layer}.{name}.weight": size for name, size in of_layer.items()})
    sizes["model.norm.weight"] = (d,)
    sizes["lm_head.weight"] = (shape["vocabSize"], d)
    return sizes


@contextlib.contextmanager
def backend(name):
    """Only this implementation of scaled_dot_product_attention: flash, cudnn or efficient; with None any."""
    if name is None or not HAS_SDPA:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}[name]
    with sdpa_kernel([getattr(SDPBackend, chosen)]):
        yield
