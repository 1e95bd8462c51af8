"""Reads a .wandb file with the protobuf classes of the official client and prints one JSON object a record.

Usage: scan.py FILE. The client up to 0.28 has a reader of the file in Python, which is used where it is; the newer ones
read it in Go, as `wandb sync` does.
"""

import json
import sys

from google.protobuf.json_format import MessageToDict
from wandb.proto import wandb_internal_pb2

try:
    from wandb.sdk.internal.datastore import DataStore
except ImportError:
    try:
        from datastore import DataStore
    except ImportError:
        print("no reader")
        sys.exit(0)

store = DataStore()
store.open_for_scan(sys.argv[1])
while True:
    data = store.scan_data()
    if data is None:
        break
    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    print(json.dumps(MessageToDict(record, preserving_proto_field_name=True)))
