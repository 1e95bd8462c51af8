#!/usr/bin/env python3
"""Measures the peer in PyTorch; prints a line of JSON for each figure. Run it once per part, so that none harms another.

examples:
  measure.py gemm
  measure.py attention --shape paper
  measure.py warmup --variant compiled
  measure.py bank --variant flex,loop
  measure.py warmup --device cpu --dtype float32 --shape tiny      (a test of the program itself)

Times of CUDA events, after a warm-up; median and quartiles over the steps. `recomputed` counts the blocks that run again
in the backward pass: the fewest with which the step fits into memory.
"""

import argparse
import gc
import json
import math
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy  # noqa: E402
import torch  # noqa: E402

import model as peer  # noqa: E402

SHAPES = pathlib.Path(__file__).parents[2] / "gpu" / "shapes.json"


def tokens_of(count, vocabulary, device):
    """The same numbers as on the other side: a linear congruence."""
    return ((torch.arange(count) * 7919 + 13) % vocabulary).to(device)


class Clock:
    """Seconds of each run of a function, on the device where there is one."""

    def __init__(self, device):
        self.device = device

    def measure(self, function, warmups, runs):
        for _ in range(warmups):
            function()
        return self.of_cuda(function, runs) if self.device.type == "cuda" else self.of_cpu(function, runs)

    def of_cuda(self, function, runs):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
        marks[0].record()
        for mark in marks[1:]:
            function()
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(marks, marks[1:])]

    def of_cpu(self, function, runs):
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return seconds


def spread(seconds):
    ordered = sorted(seconds)
    quartile = lambda share: ordered[round(share * (len(ordered) - 1))]
    return {"median": statistics.median(ordered), "quartiles": [quartile(0.25), quartile(0.75)], "runs": len(ordered)}


class Figures:
    def __init__(self, device):
        self.device = device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.common = {"side": "torch", "torch": torch.__version__, "device": name}

    def add(self, case, variant, **figures):
        print(json.dumps({**self.common, "case": case, "variant": variant, **figures}), flush=True)

    def fail(self, case, variant, error):
        print(f"{case} {variant}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        self.add(case, variant, error=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")


# ---- the peak of the card ----

PRODUCTS = [(8192, 8192, 8192), (16384, 8192, 8192), (8192, 16384, 4096), (4096, 4096, 4096), (8192, 3200, 6400)]


def gemm(options, shape, figures):
    """The best of several large products is the peak that MFU refers to."""
    clock, sizes = Clock(options.device), PRODUCTS if options.shape != "tiny" else [(64, 64, 64)]
    for m, n, k in sizes:
        a = torch.randn(m, k, device=options.device, dtype=options.dtype)
        b = torch.randn(n, k, device=options.device, dtype=options.dtype)
        out = torch.empty(m, n, device=options.device, dtype=options.dtype)
        seconds = clock.measure(lambda: torch.mm(a, b.t(), out=out), 5, 20)
        measured = spread(seconds)
        figures.add("gemm", f"{m}x{n}x{k}", flopsPerSecond=2 * m * n * k / measured["median"], **measured)


# ---- attention alone ----


def attention_operands(options, shape):
    b, t, dim = shape["batch"], shape["tokens"], shape["headDim"]
    make = lambda heads: torch.randn(b, heads, t, dim, device=options.device, dtype=options.dtype, requires_grad=True)
    return make(shape["numHeads"]), make(shape["kvHeads"]), make(shape["kvHeads"])


def bank_memory(options, shape):
    """A memory of its own in each slot."""
    chunks = shape["tokens"] // shape["chunkLength"]
    count = shape["batch"] * chunks * shape["perChunk"]
    size = (count, shape["kvHeads"], shape["keptTokens"], shape["headDim"])
    keys, values = (torch.randn(size, device=options.device, dtype=options.dtype) for _ in range(2))
    index = torch.arange(count, device=options.device).view(shape["batch"], chunks, shape["perChunk"])
    return peer.Memory(keys, values, index, shape["chunkLength"])


def attention(options, shape, figures):
    """Forward and backward of one layer: without memories by each implementation, with memories by mask, FlexAttention, loop."""
    q, k, v = attention_operands(options, shape)
    memory = bank_memory(options, shape)
    plain = ["flash", "cudnn", "efficient"] if options.device.type == "cuda" else ["any"]
    with_memories = {"mask": "efficient", "flex": None, "loop": "flash"}
    runs = [(name, name, lambda: peer.causal(q, k, v)) for name in plain]
    for name, implementation in with_memories.items():
        runs.append((f"memory-{name}", implementation, lambda name=name: prepared(name)(q, k, v, memory)))
    made = {}

    def prepared(name):
        if name not in made:
            made[name] = peer.memory_attention(name)
        return made[name]

    for variant, implementation, forward in runs:
        if options.variants and variant not in options.variants:
            continue
        try:
            with peer.backend(None if implementation == "any" else implementation):
                figures.add("attention", variant, **time_attention(options, forward, (q, k, v)))
        except Exception as error:
            figures.fail("attention", variant, error)


def time_attention(options, forward, inputs):
    dy = torch.randn_like(forward())

    def both():
        for x in inputs:
            x.grad = None
        forward().backward(dy)

    slow = options.device.type == "cpu"
    return spread(Clock(options.device).measure(both, 1 if slow else 5, 2 if slow else 30))


# ---- training steps ----


def weights_of(options, shape):
    """From a file of float32 values in the order of the parameters, or random."""
    sizes = peer.parameter_sizes(shape)
    if options.weights:
        values, at, weights = numpy.fromfile(options.weights, dtype=numpy.float32), 0, {}
        for name, size in sizes.items():
            part = values[at : at + math.prod(size)].copy()
            weights[name] = torch.from_numpy(part).view(size).to(options.device)
            at += math.prod(size)
        return weights
    torch.manual_seed(1)
    make = lambda size: torch.ones(size, device=options.device) if len(size) == 1 else torch.randn(size, device=options.device) * 0.01
    return {name: make(size) for name, size in sizes.items()}


class Training:
    """A step: memories, forward, backward, clipping, fused AdamW on the masters, new copies."""

    def __init__(self, options, shape, kind, compiled, attend_memory, recomputed):
        self.options, self.shape, self.kind = options, shape, kind
        weights = weights_of(options, shape)
        self.model = peer.Model(shape, weights, options.dtype, compiled, attend_memory, recomputed)
        del weights
        parameters = self.model.parameters()
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        how = {"fused": True} if options.device.type == "cuda" else {}
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, **how)
        batch, tokens = shape["batch"], shape["tokens"]
        ids = tokens_of(batch * tokens + 1, shape["vocabSize"], options.device)
        self.ids, self.targets = ids[:-1].view(batch, tokens), ids[1:].view(batch, tokens)
        if kind != "warmup":
            self.prepare_memories()

    def prepare_memories(self):
        s, device = self.shape, self.options.device
        batch, chunks = s["batch"], s["tokens"] // s["chunkLength"]
        slots = batch * chunks * s["perChunk"]
        count = slots if self.kind == "bank" else batch * s["tokens"] // s["referenceTokens"]
        self.index = (torch.arange(slots, device=device) % count).view(batch, chunks, -1)
        if self.kind == "online":
            self.references = tokens_of(count * s["referenceTokens"], s["vocabSize"], device).view(count, -1)
            return
        size = (2 * s["memoryLayers"], count, s["kvHeads"], s["keptTokens"], s["headDim"])
        self.stored = torch.full(size, 0.1, dtype=torch.bfloat16).to(self.options.dtype)
        if device.type == "cuda":
            self.stored, self.copies = self.stored.pin_memory(), torch.cuda.Stream()
        self.coming = None
        self.send()

    def send(self):
        """The memories of the next step go to the device while this one runs."""
        if self.options.device.type != "cuda":
            self.coming = self.stored.clone()
            return
        self.copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.copies):
            self.coming = self.stored.to(self.options.device, non_blocking=True)

    def memories(self):
        if self.kind == "warmup":
            return None, 0
        s = self.shape
        if self.kind == "online":
            layers = self.model.encode(self.references, s["prefix"], s["keptTokens"])
        else:
            if self.options.device.type == "cuda":
                torch.cuda.current_stream().wait_stream(self.copies)
                self.coming.record_stream(torch.cuda.current_stream())
            layers = self.coming.view(s["memoryLayers"], 2, *self.coming.shape[1:])
            self.send()
        read = lambda layer: peer.Memory(layers[layer][0], layers[layer][1], self.index, s["chunkLength"])
        return read, s["referenceTokens"]

    def step(self):
        self.loss = self.model.loss(self.ids, self.targets, *self.memories())
        self.loss.backward()
        self.norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.refresh()

    def result(self):
        return {"loss": self.loss.item(), "gradientNorm": self.norm.item()}


OutOfMemory = getattr(torch.cuda, "OutOfMemoryError", ())


def measure_steps(options, shape, kind, variant):
    """With as few blocks run again as fit."""
    compiled = variant != "eager"
    layers, tries = shape["numLayers"], [0, 0.25, 0.5, 1]
    for share in tries:
        recomputed = math.ceil(share * layers)
        try:
            return {"recomputed": recomputed, **run_steps(options, shape, kind, variant, compiled, recomputed)}
        except OutOfMemory as error:
            if share == tries[-1]:
                raise
            print(f"{kind} {variant}: out of memory with {recomputed} blocks run again: {error}", file=sys.stderr)
        gc.collect()
        torch.cuda.empty_cache()


def run_steps(options, shape, kind, variant, compiled, recomputed):
    attend = None if kind == "warmup" else peer.memory_attention(variant)
    compiled = compiled and options.device.type == "cuda"
    training = Training(options, shape, kind, compiled, attend, recomputed)
    cuda = options.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    training.step()
    first = training.result()
    seconds = Clock(options.device).measure(training.step, options.warmups, options.runs)
    tokens = shape["batch"] * shape["tokens"]
    memory = {"peakBytes": torch.cuda.max_memory_allocated(), "reservedBytes": torch.cuda.max_memory_reserved()} if cuda else {}
    measured = spread(seconds)
    return {**measured, "tokensPerSecond": tokens / measured["median"], **memory, **first, "lastLoss": training.loss.item()}


VARIANTS = {"warmup": ["eager", "compiled"], "bank": ["flex", "mask", "loop"], "online": ["flex", "loop"]}


def steps(options, shape, figures):
    implementation = None if options.device.type == "cpu" else options.implementation
    for variant in options.variants or VARIANTS[options.part]:
        try:
            # Masks are not for the flash implementation.
            with peer.backend(None if variant == "mask" else implementation):
                figures.add(options.part, variant, **measure_steps(options, shape, options.part, variant))
        except Exception as error:
            figures.fail(options.part, variant, error)
        gc.collect()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()


PARTS = {"gemm": gemm, "attention": attention, "warmup": steps, "bank": steps, "online": steps}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--shape", default="paper", help="of bench/gpu/shapes.json (default: paper)")
    parser.add_argument("--variant", help="eager, compiled; flex, mask, loop; several with commas (default: all of the part)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--implementation", default="flash", choices=["flash", "cudnn", "efficient"], help="of attention")
    parser.add_argument("--weights", help="a file of float32 values in the order of the parameters; random ones without")
    parser.add_argument("--warmups", type=int, default=2, help="steps that are not measured, after the first")
    parser.add_argument("--runs", type=int, default=5, help="steps that are measured")
    options = parser.parse_args()
    options.device, options.dtype = torch.device(options.device), getattr(torch, options.dtype)
    options.variants = options.variant.split(",") if options.variant else None
    return options


def main():
    options = parse()
    failed = []
    figures = Figures(options.device)
    fail = figures.fail
    figures.fail = lambda *what: (failed.append(what), fail(*what))
    PARTS[options.part](options, json.loads(SHAPES.read_text())[options.shape], figures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
