#!/usr/bin/env bash
# Reads the event files of a run with TensorBoard's own readers and compares numbers, histograms, pictures, texts and load
# with the run's files. A picture is compared square by square: alike values have one colour, greater ones a lighter one.
# Usage: scripts/check_tensorboard.sh RUN_FOLDER [PYTHON]
# Needs Python with the package `tensorboard` (python3 -m venv V && V/bin/pip install tensorboard); says so and ends with
# status 0 where it is not.
set -euo pipefail
run=${1:?usage: scripts/check_tensorboard.sh RUN_FOLDER [PYTHON]}
python=${2:-python3}
if ! "$python" -c 'import tensorboard' 2>/dev/null; then
  echo "not checked: $python has no package tensorboard"
  exit 0
fi
exec "$python" - "$run" <<'PYTHON'
import io, json, math, re, struct, sys
from collections import Counter, defaultdict
from pathlib import Path

from PIL import Image
from tensorboard import version
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

run = Path(sys.argv[1])
single = lambda number: struct.unpack("<f", struct.pack("<f", number))[0]
same = lambda a, b: a == b or (a != a and b != b)


def rows():
    """The run's rows, with steps of the whole run."""
    before = 0
    for stage in ("warmup", "continual"):
        path = run / "metrics" / f"{stage}.jsonl"
        step = 0
        for line in path.open() if path.exists() else ():
            row = json.loads(line)
            step = row.pop("step")
            time = row.pop("time/unix_s")
            yield before + step, time, {"train/stage": stage, "train/step": step, **row}
        before += step


expected = defaultdict(list)
for step, time, row in rows():
    for name, value in row.items():
        expected[name].append((step, time, value))

[path] = (run / "tensorboard").glob("events.out.tfevents.*")
events = list(EventFileLoader(str(path)).Load())
steps = [event.step for event in events if any(not v.tag.startswith("run/") for v in event.summary.value)]
assert steps == [step for step, _, _ in rows()], "steps differ"

everything = {"tensors": 0, "scalars": 0, "images": 0, "histograms": 0}
board = EventAccumulator(str(run / "tensorboard"), size_guidance=everything).Reload()
found = Counter()


def check_number(shown, value):
    number = float("nan") if value is None else single(value)
    assert same(shown.value, number), (shown.value, number)


def check_histogram(shown, value):
    histogram, counts, edges = shown.histogram_value, value["counts"], value["edges"]
    filled = [i for i, count in enumerate(counts) if count] or [0]
    middles = [(a + b) / 2 for a, b in zip(edges, edges[1:])]
    moment = lambda power: sum(count * middle**power for count, middle in zip(counts, middles))
    assert list(histogram.bucket) == counts
    assert list(histogram.bucket_limit) == edges[1:]
    assert (histogram.min, histogram.max) == (edges[filled[0]], edges[filled[-1] + 1])
    assert histogram.num == sum(counts)
    for found, wanted in ((histogram.sum, moment(1)), (histogram.sum_squares, moment(2))):
        assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12), (found, wanted)


def lightness(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear))


def check_image(shown, value):
    picture = Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")
    assert picture.size == (shown.width, shown.height)
    side = shown.width // value["width"]
    assert picture.size == (side * value["width"], side * value["height"])
    colours = []
    for i in range(len(value["values"])):
        x, y = i % value["width"] * side, i // value["width"] * side
        [(_, colour)] = picture.crop((x, y, x + side, y + side)).getcolors()
        colours.append(colour)
    low, high = value["range"]
    # The colours are 256.
    steps = [math.floor(255 * min(1, max(0, (number - low) / (high - low))) + 0.5) for number in value["values"]]
    ordered = sorted(zip(steps, colours))
    for (a, colour), (b, lighter) in zip(ordered, ordered[1:]):
        # Neighbours among them may be one colour in 8 bits.
        gap = lightness(lighter) - lightness(colour)
        assert gap > 0 if b > a + 1 else gap >= 0 if b > a else colour == lighter, (colour, lighter)


def check_text(shown, value):
    text = "\n".join(line[4:] for line in shown.tensor_proto.string_val[0].decode().split("\n"))
    if isinstance(value, str):
        wanted = value
    elif value["type"] == "text":
        wanted = value["text"]
    else:
        score = lambda memory: f"  {memory['score']:.4f}" if "score" in memory else ""
        memories = lambda chunk: [f"← {memory['id']}{score(memory)}" for memory in chunk["memories"]]
        wanted = "\n\n".join("\n".join([chunk["text"], *memories(chunk)]) for chunk in value["chunks"])
    assert text == re.sub(r"\r\n|\r", "\n", wanted), text


for name, values in expected.items():
    first = values[0][2]
    if isinstance(first, str):
        # Written when it changes, and once more by each command.
        changes = [step for i, (step, _, value) in enumerate(values) if i == 0 or values[i - 1][2] != value]
        assert set(changes) <= set(event.step for event in board.Tensors(name)), name
        by_step = {step: value for step, _, value in values}
        for event in board.Tensors(name):
            check_text(event, by_step[event.step])
        continue
    kind = first["type"] if isinstance(first, dict) else "number"
    read, check = {
        "number": (board.Scalars, check_number),
        "histogram": (board.Histograms, check_histogram),
        "image": (board.Images, check_image),
    }.get(kind, (board.Tensors, check_text))
    shown = read(name)
    assert [(e.step, e.wall_time) for e in shown] == [(s, t) for s, t, _ in values], f"{name}: steps or times differ"
    for event, (step, _, value) in zip(shown, values):
        try:
            check(event, value)
        except AssertionError as error:
            raise AssertionError(f"{name} at step {step}: {error}")
        found[kind] += 1

load = EventAccumulator(str(run / "tensorboard" / "hardware"), size_guidance=everything).Reload()
samples = defaultdict(dict)
for line in (run / "metrics" / "hardware.jsonl").open():
    row = json.loads(line)
    samples[row["time"]] = row
shown_samples = set()
for name in load.Tags()["scalars"]:
    for event in load.Scalars(name):
        check_number(event, samples[event.wall_time][name])
        shown_samples.add(event.wall_time)
values = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
print(f"TensorBoard {version.VERSION} reads {len(steps)} steps ({values}) and {len(shown_samples)} of {len(samples)} samples of load, as the run's files have them")
PYTHON
