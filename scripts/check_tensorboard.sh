#!/usr/bin/env bash
# Reads the event files of a run with TensorBoard's own readers and compares every number with the run's files.
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
import json, struct, sys
from collections import Counter, defaultdict
from pathlib import Path

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
    histogram = shown.histogram_value
    assert list(histogram.bucket) == value["counts"]
    assert list(histogram.bucket_limit) == value["edges"][1:]


def check_image(shown, value):
    assert shown.encoded_image_string.startswith(b"\x89PNG")
    assert shown.width * value["height"] == shown.height * value["width"]


def check_text(shown, value):
    text = "\n".join(line[4:] for line in shown.tensor_proto.string_val[0].decode().split("\n"))
    if value["type"] == "text":
        assert text == "\n".join(value["text"].splitlines()), text
    else:
        assert all(memory["id"] in text for chunk in value["chunks"] for memory in chunk["memories"]), text


for name, values in expected.items():
    first = values[0][2]
    if isinstance(first, str):
        # Written when it changes, and once more by each command.
        changes = [step for i, (step, _, value) in enumerate(values) if i == 0 or values[i - 1][2] != value]
        assert set(changes) <= set(event.step for event in board.Tensors(name)), name
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
samples = len(load.Scalars("hardware/cpu_percent")) if "hardware/cpu_percent" in load.Tags()["scalars"] else 0
values = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
print(f"TensorBoard {version.VERSION} reads {len(steps)} steps ({values}) and {samples} samples of load, as the run's files have them")
PYTHON
