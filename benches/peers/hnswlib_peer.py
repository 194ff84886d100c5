"""hnswlib on the gallery and probes of `peers`, in the same way as `src/measure.rs`.

Prints a line of JSON for each search breadth; `src/measure.rs` (`Measured`) says what is in it.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time

import hnswlib
import numpy as np

WARM_UP = 50


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gallery")
    parser.add_argument("probes")
    for name in ["width", "mates", "m", "ef-construction", "threads", "seconds"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--ef", type=int, nargs="+", required=True)
    return parser.parse_args()


def resident_bytes():
    """Memory of the process's own; pages of the mapped gallery do not count."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = (line.split() for line in status)
        return 1024 * sum(int(f[1]) for f in fields if f[0] in ("RssAnon:", "RssShmem:"))


def confine(cpus):
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)


def timed(index, probes):
    """The template found and the milliseconds taken, probe by probe."""
    found, milliseconds = [], []
    for probe in probes:
        start = time.perf_counter_ns()
        labels, _ = index.knn_query(probe, k=1, num_threads=1)
        milliseconds.append((time.perf_counter_ns() - start) / 1e6)
        found.append(int(labels[0][0]))
    return found, milliseconds


def per_second(index, probes, threads, seconds):
    """Probes a second when they come in one call, so that Python takes no part."""
    start = time.perf_counter()
    answered = 0
    while time.perf_counter() - start < seconds:
        index.knn_query(probes, k=1, num_threads=threads)
        answered += len(probes)
    return answered / (time.perf_counter() - start)


def main():
    args = arguments()
    gallery = np.memmap(args.gallery, dtype="<f4", mode="r").reshape(-1, args.width)
    probes = np.fromfile(args.probes, dtype="<f4").reshape(-1, args.width)
    mates, strangers = probes[: args.mates], probes[args.mates :]

    resident = resident_bytes()
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=args.width)
    index.init_index(len(gallery), M=args.m, ef_construction=args.ef_construction)
    for first in range(0, len(gallery), 10_000):
        rows = gallery[first : first + 10_000]
        index.add_items(rows, np.arange(first, first + len(rows)), num_threads=args.threads)
    build_s = time.perf_counter() - start
    taken = resident_bytes() - resident

    cpus = os.sched_getaffinity(0)
    for ef in args.ef:
        print(f"  hnswlib {ef}", file=sys.stderr)
        index.set_ef(ef)
        confine({max(cpus)})
        timed(index, mates[:WARM_UP])
        found, mate_ms = timed(index, mates)
        _, stranger_ms = timed(index, strangers)
        one_core = per_second(index, mates, 1, args.seconds)
        confine(cpus)
        measured = {
            "engine": "hnswlib",
            "version": importlib.metadata.version("hnswlib"),
            "ef": ef,
            "build_s": build_s,
            "bytes": max(taken, 0),
            "found": found,
            "found_low": found,
            "mate_ms": mate_ms,
            "stranger_ms": stranger_ms,
            "per_second_one_core": one_core,
            "callers": args.threads,
            "per_second_in_flight": per_second(index, mates, args.threads, args.seconds),
        }
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
