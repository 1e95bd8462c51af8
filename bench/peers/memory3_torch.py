"""The same model in PyTorch, as one would write it for speed on a CPU: the peer of the benchmark.

Speaks JSON lines. {"prepare": case} makes a case ready; {"steps": n} runs it n times and answers {"seconds": [...]} and
what the case counts; {"memory": true} answers {"peakBytes": n}. Sleeps while it waits. The cases are described in
bench/cpu/cases.ts. Needs PyTorch 1.13 or newer.

Legend: B batch, T tokens, N = B*T, d hidden size, H heads, K key-value heads, G = H/K, D head dimension, W MLP width,
V vocabulary, M memories, S kept tokens, C chunks, c chunk length, R memories per chunk, L tokens of a reference.
"""

import json
import math
import sys
import time

import numpy
import torch
import torch.nn.functional as F


class Block:
    def __init__(self, weights):
        self.input_norm = weights["input_layernorm.weight"]
        self.mlp_norm = weights["post_attention_layernorm.weight"]
        # One product for query, key and value, one for gate and up.
        self.qkv = torch.cat([weights[f"self_attn.{x}_proj.weight"] for x in "qkv"])
        self.output = weights["self_attn.o_proj.weight"]
        self.gate_up = torch.cat([weights["mlp.gate_proj.weight"], weights["mlp.up_proj.weight"]])
        self.down = weights["mlp.down_proj.weight"]

    def parameters(self):
        return [self.input_norm, self.mlp_norm, self.qkv, self.output, self.gate_up, self.down]


class Model:
    def __init__(self, shape, weights):
        self.__dict__.update(shape)
        own = {}
        for name, value in weights.items():
            own.setdefault(name.split(".")[2] if ".layers." in name else name, {})[name.split(".", 3)[-1]] = value
        self.embedding = weights["model.embed_tokens.weight"]
        self.head = weights["lm_head.weight"]
        self.final_norm = weights["model.norm.weight"]
        self.blocks = [Block(own[str(i)]) for i in range(self.numLayers)]
        for parameter in self.parameters():
            parameter.requires_grad_()
        self.group = self.numHeads // self.kvHeads

    def parameters(self):
        blocks = [parameter for block in self.blocks for parameter in block.parameters()]
        return [self.embedding, self.head, self.final_norm, *blocks]

    def norm(self, x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.normEpsilon) * weight

    def tables(self, positions):
        half = self.headDim // 2
        frequencies = self.ropeTheta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = positions.double()[:, None] * frequencies
        angles = torch.cat([angles, angles], -1)
        return angles.cos().float()[:, None, :], angles.sin().float()[:, None, :]

    def rope(self, x, tables):
        """x [B, T, heads, D]"""
        cos, sin = tables
        half = self.headDim // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def project(self, block, x, batch):
        """q [B, T, H, D], k and v [B, T, K, D]"""
        sizes = [self.numHeads, self.kvHeads, self.kvHeads]
        heads = F.linear(self.norm(x, block.input_norm), block.qkv).view(batch, -1, sum(sizes), self.headDim)
        return heads.split(sizes, 2)

    def finish(self, block, x, attended):
        x = torch.addmm(x, attended.reshape(x.shape[0], -1), block.output.t())
        gate, up = F.linear(self.norm(x, block.mlp_norm), block.gate_up).chunk(2, -1)
        return torch.addmm(x, F.silu(gate) * up, block.down.t())

    def by_head(self, x, group=1):
        """[B, T, heads, D] to [B * K, G * T, D]"""
        batch, tokens = x.shape[:2]
        x = x.view(batch, tokens, self.kvHeads, group, self.headDim).permute(0, 2, 3, 1, 4)
        return x.reshape(batch * self.kvHeads, group * tokens, self.headDim)

    def attend(self, q, k, v, mask, memory=None):
        """mask [G * T, Tk] or None; memory (keys, values, index [B, C, R], c)"""
        batch, tokens = q.shape[:2]
        q, k, v = self.by_head(q, self.group), self.by_head(k), self.by_head(v)
        scale = 1 / math.sqrt(self.headDim)
        scores = (torch.bmm(q, k.transpose(1, 2)) * scale if mask is None
                  else torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale))
        if memory is None:
            out = torch.bmm(scores.softmax(-1), v)
        else:
            out = self.attend_memories(q, v, scores, scale, batch, tokens, *memory)
        out = out.view(batch, self.kvHeads, self.group, tokens, self.headDim).permute(0, 3, 1, 2, 4)
        return out.reshape(batch * tokens, -1)

    def attend_memories(self, q, v, scores, scale, batch, tokens, keys, values, index, chunk):
        """One softmax over context and memories; the memories of a chunk are one product for all of its queries."""
        chunks, slots = index.shape[1:]
        length = min(chunk, tokens)
        kept = keys.shape[2]

        def of_chunks(memories):
            """[M, K, S, D] to [B * K * C, R * S, D]"""
            found = memories[index.reshape(-1)].view(batch, chunks, slots, self.kvHeads, kept, self.headDim)
            return found.permute(0, 3, 1, 2, 4, 5).reshape(-1, slots * kept, self.headDim)

        def cut(x):
            """[B * K, G * T, X] to [B * K * C, G * c, X]"""
            x = x.view(batch * self.kvHeads, self.group, chunks, length, -1).transpose(1, 2)
            return x.reshape(batch * self.kvHeads * chunks, self.group * length, -1)

        def join(x):
            x = x.view(batch * self.kvHeads, chunks, self.group, length, -1).transpose(1, 2)
            return x.reshape(batch * self.kvHeads, self.group * tokens, -1)

        to_memories = join(torch.bmm(cut(q), of_chunks(keys).transpose(1, 2)) * scale)
        weights = torch.cat([to_memories, scores], -1).softmax(-1)
        width = slots * kept
        read = join(torch.bmm(cut(weights[..., :width]), of_chunks(values)))
        return torch.bmm(weights[..., width:], v) + read

    def mask(self, tokens):
        causal = torch.full((tokens, tokens), -math.inf).triu(1)
        return causal.repeat(self.group, 1)

    def loss(self, ids, targets, memories=None, start=0):
        batch, tokens = ids.shape
        tables = self.tables(torch.arange(tokens) + start)
        mask = self.mask(tokens)
        x = F.embedding(ids.reshape(-1), self.embedding)
        for i, block in enumerate(self.blocks):
            q, k, v = self.project(block, x, batch)
            memory = memories(i) if memories and i < self.memoryLayers else None
            x = self.finish(block, x, self.attend(self.rope(q, tables), self.rope(k, tables), v, mask, memory))
        logits = F.linear(self.norm(x, self.final_norm), self.head)
        return F.cross_entropy(logits, targets.reshape(-1))

    def encode(self, ids, prefix, kept):
        """Sparse keys and values of references, [N, K, S, D] each, for all memory layers."""
        batch, tokens = ids.shape
        tables, mask = self.tables(torch.arange(tokens)), self.mask(tokens)
        x = F.embedding(ids.reshape(-1), self.embedding)
        memories = []
        for i, block in enumerate(self.blocks[: self.memoryLayers]):
            q, k, v = self.project(block, x, batch)
            with torch.no_grad():
                chosen = self.choose(q[:, prefix:], k[:, prefix:], kept) + prefix
            rotated = self.rope(k, tables)
            index = chosen[..., None].expand(-1, -1, -1, self.headDim)
            memories.append([y.transpose(1, 2).gather(2, index) for y in (rotated, v)])
            if i < self.memoryLayers - 1:
                x = self.finish(block, x, self.attend(self.rope(q, tables), rotated, v, mask))
        return memories

    def choose(self, q, k, kept):
        """Tokens that receive most attention, scored without positions and mask, in text order, [N, K, S]."""
        batch, tokens = q.shape[:2]
        scores = torch.bmm(self.by_head(q, self.group), self.by_head(k).transpose(1, 2)) / math.sqrt(self.headDim)
        received = scores.softmax(-1).view(batch, self.kvHeads, -1, tokens).sum(2)
        return received.topk(kept, -1).indices.sort(-1).values


def random_weights(case):
    generator = torch.Generator().manual_seed(1)
    make = lambda size: torch.ones(size) if len(size) == 1 else torch.randn(size, generator=generator) * 0.05
    return {name: make(size) for name, size in case["parameters"].items()}


def weights_of(case):
    """From a file of float32 values in the order of the parameters, or random."""
    if "weights" not in case:
        return random_weights(case)
    values, at, weights = numpy.fromfile(case["weights"], dtype=numpy.float32), 0, {}
    for name, size in case["parameters"].items():
        weights[name] = torch.from_numpy(values[at : at + math.prod(size)].copy()).view(size)
        at += math.prod(size)
    return weights


def tokens_of(count, vocabulary):
    """The same numbers as on the other side: a linear congruence."""
    return (torch.arange(count) * 7919 + 13) % vocabulary


class Training:
    def __init__(self, case):
        self.model = Model(case["shape"], weights_of(case))
        self.parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
        batch, tokens = case["batch"], case["tokens"]
        ids = tokens_of(batch * tokens + 1, self.model.vocabSize)
        self.ids, self.targets = ids[:-1].view(batch, tokens), ids[1:].view(batch, tokens)
        self.reading = case.get("memories")
        if self.reading:
            self.prepare_memories()

    def prepare_memories(self):
        r, m = self.reading, self.model
        chunks = self.ids.shape[1] // r["chunkLength"]
        self.index = (torch.arange(self.ids.shape[0] * chunks * r["perChunk"]) % r["count"]).view(-1, chunks, r["perChunk"])
        if r["online"]:
            self.references = tokens_of(r["count"] * r["referenceTokens"], m.vocabSize).view(r["count"], -1)
        else:
            size = (2 * m.memoryLayers, r["count"], m.kvHeads, r["keptTokens"], m.headDim)
            self.stored = torch.randn(size, generator=torch.Generator().manual_seed(2)).numpy()

    def memories(self):
        r = self.reading
        if not r:
            return None, 0
        if r["online"]:
            encoded = self.model.encode(self.references, r["prefix"], r["keptTokens"])
        else:
            # A step's memories come from outside, so they are copied in.
            layers = torch.from_numpy(self.stored.copy())
            encoded = [layers[2 * i : 2 * i + 2] for i in range(self.model.memoryLayers)]
        return lambda i: (*encoded[i], self.index, r["chunkLength"]), r["referenceTokens"]

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.value = self.model.loss(self.ids, self.targets, *self.memories())
        self.value.backward()
        self.norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return self.value.item()

    def result(self):
        return {"loss": self.value.item(), "gradientNorm": self.norm.item()}


class Compile:
    def __init__(self, case):
        self.model = Model(case["shape"], weights_of(case))
        self.ids = tokens_of(case["batch"] * case["tokens"], self.model.vocabSize).view(case["batch"], -1)
        self.prefix, self.kept = case["prefix"], case["keptTokens"]

    def step(self):
        with torch.inference_mode():
            memories = self.model.encode(self.ids, self.prefix, self.kept)
            return [[x.numpy() for x in layer] for layer in memories]

    def result(self):
        return {}


class Decode:
    def __init__(self, case):
        self.model, self.case = Model(case["shape"], weights_of(case)), case
        m, batch = self.model, case["batch"]
        size = (case["perChunk"] * batch, m.kvHeads, case["keptTokens"], m.headDim)
        self.stored = [(torch.randn(size), torch.randn(size)) for _ in range(m.memoryLayers)]
        self.index = torch.arange(size[0]).view(batch, 1, -1)
        self.restart()

    def restart(self):
        m, case = self.model, self.case
        size = (case["batch"], case["context"] + case["room"], m.kvHeads, m.headDim)
        self.cache = [(torch.zeros(size), torch.zeros(size)) for _ in m.blocks]
        self.length = case["context"]
        for keys, values in self.cache:
            keys[:, : self.length].normal_()
            values[:, : self.length].normal_()
        self.ids = tokens_of(case["batch"], m.vocabSize)

    def step(self):
        m = self.model
        if self.length == self.cache[0][0].shape[1]:
            self.restart()
        with torch.inference_mode():
            tables = m.tables(torch.tensor([self.length]))
            x = F.embedding(self.ids, m.embedding)
            for i, block in enumerate(m.blocks):
                q, k, v = m.project(block, x, len(self.ids))
                keys, values = self.cache[i]
                keys[:, self.length], values[:, self.length] = m.rope(k, tables)[:, 0], v[:, 0]
                seen = slice(0, self.length + 1)
                memory = (*self.stored[i], self.index, 1) if self.case["memory"] and i < m.memoryLayers else None
                x = m.finish(block, x, m.attend(m.rope(q, tables), keys[:, seen], values[:, seen], None, memory))
            logits = F.linear(m.norm(x, m.final_norm), m.head)
            self.ids = logits.argmax(-1)
            self.length += 1
            return self.ids.tolist()

    def result(self):
        return {}


class Product:
    def __init__(self, case):
        self.a, self.b = torch.randn(case["size"], case["size"]), torch.randn(case["size"], case["size"])

    def step(self):
        return torch.mm(self.a, self.b)[0, 0].item()

    def result(self):
        return {}


CASES = {"training": Training, "compile": Compile, "decode": Decode, "product": Product}


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def run(case, steps):
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        case.step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, **case.result()}


def main():
    torch.set_num_threads(int(sys.argv[1]))
    case = None
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            case = None  # its memory goes before the next case takes some
            case = CASES[request["prepare"]["kind"]](request["prepare"])
            answer = {"torch": torch.__version__}
        elif "steps" in request:
            answer = run(case, request["steps"])
        else:
            answer = {"peakBytes": peak_bytes()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
