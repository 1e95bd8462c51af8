"""Searches a Faiss index from Python: the peer of `npm run bench -- faiss`.

usage: faiss_search.py INDEX QUERIES DIMENSIONS K THREADS [NAME=VALUE ...]

QUERIES holds float32 numbers [n, d]. Speaks lines: "together" asks all queries in one call, "alone" one after the other;
the answer is {"seconds": s, "ids": [...]}, seconds of all queries together. Needs Faiss 1.7.3 (Debian: python3-faiss).
"""

import json
import sys
import time

import faiss
import numpy

path, queries, dimensions, k, threads = sys.argv[1:6]
faiss.omp_set_num_threads(int(threads))
index = faiss.read_index(path)
for setting in sys.argv[6:]:
    name, value = setting.split("=")
    # Parameters lie below the map of ids, which Faiss's own ParameterSpace passes through.
    faiss.ParameterSpace().set_index_parameter(index, name, float(value))
x = numpy.fromfile(queries, dtype="float32").reshape(-1, int(dimensions))
print(json.dumps({"version": faiss.__version__}), flush=True)

for line in sys.stdin:
    index.search(x, int(k))
    start = time.perf_counter()
    if line.strip() == "together":
        _, ids = index.search(x, int(k))
    else:
        ids = numpy.concatenate([index.search(x[i : i + 1], int(k))[1] for i in range(len(x))])
    print(json.dumps({"seconds": time.perf_counter() - start, "ids": ids.ravel().tolist()}), flush=True)
