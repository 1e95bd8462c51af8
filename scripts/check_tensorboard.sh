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
kinds = {}
for step, time, row in rows():
    for name, value in row.items():
        kind = value["type"] if isinstance(value, dict) else "text" if isinstance(value, str) else "number"
        kinds[name] = {"number": "scalars", "retrievals": "text", "image": "images", "histogram": "histograms"}.get(kind, "text")
        expected[name].append((step, time, value))

[path] = (run / "tensorboard").glob("events.out.tfevents.*")
events = list(EventFileLoader(str(path)).Load())
steps = [event.step for event in events if any(not v.tag.startswith("run/") for v in event.summary.value)]
assert steps == [step for step, _, _ in rows()], "steps differ"

board = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0, "images": 0, "histograms": 0})
board.Reload()
found = Counter()
for name, values in expected.items():
    plugin = board.SummaryMetadata(name).plugin_data.plugin_name
    assert plugin == kinds[name], f"{name}: {plugin}, not {kinds[name]}"
    shown = board.Tensors(name)
    if name == "train/stage":
        changes = [v for i, v in enumerate(values) if i == 0 or values[i - 1][2] != v[2]]
        # A resume writes it once more.
        assert set(step for step, _, _ in changes) <= set(event.step for event in shown)
        found[plugin] += len(shown)
        continue
    assert [(e.step, e.wall_time) for e in shown] == [(s, t) for s, t, _ in values], f"{name}: steps or times differ"
    for event, (step, _, value) in zip(shown, values):
        content = event.tensor_proto
        if plugin == "scalars":
            number = float("nan") if value is None else single(value)
            assert same(content.float_val[0], number), f"{name} at {step}: {content.float_val[0]}, not {number}"
        elif plugin == "histograms":
            cells = struct.unpack(f"<{len(content.tensor_content) // 4}f", content.tensor_content)
            counts = value["counts"]
            assert sum(cells[2::3]) == sum(counts), f"{name} at {step}: counts differ"
        elif plugin == "images":
            assert content.string_val[2].startswith(b"\x89PNG"), f"{name} at {step}: not a PNG"
        elif value["type"] == "text":
            plain = "\n".join(line[4:] for line in content.string_val[0].decode().split("\n"))
            assert plain == value["text"], f"{name} at {step}: the text differs"
        found[plugin] += 1

load = EventAccumulator(str(run / "tensorboard" / "hardware"), size_guidance={"tensors": 0}).Reload()
samples = len(load.Tensors("hardware/cpu_percent")) if "hardware/cpu_percent" in load.Tags()["tensors"] else 0
values = ", ".join(f"{count} {plugin}" for plugin, count in sorted(found.items()))
print(f"TensorBoard {version.VERSION} reads {len(steps)} steps with {values}; {samples} samples of load: all as in the run's files")
PYTHON
