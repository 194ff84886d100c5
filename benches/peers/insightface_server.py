"""Assent beside InsightFace Server: the same photos, the same machine, in turns.

Enrols the first photo of each person of FACES (person/photo.jpg) at the InsightFace Server over REST
and searches with the second photo of each in a closed loop of 1, 4 and 16 callers; after each turn
the Assent of `benches/service.sh up DIR FACES` gets the same load from `assent bench`. Then it
deletes what it enrolled at the server and prints the medians of the turns as a Markdown table.

Needs Python 3.11 and nothing else. Without --assent only the server is measured. The server must
run with authentication off, or with its key in INSIGHTFACE_API_KEY.
"""

import argparse
import http.client
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

COLLECTION = "assent-bench"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=pathlib.Path, help="person/photo.jpg")
    parser.add_argument("--server", default="http://127.0.0.1:18097")
    parser.add_argument("--assent", type=pathlib.Path, metavar="DIR", help="of `benches/service.sh up DIR`")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--turns", type=int, default=3, help="of each, for each number of callers")
    parser.add_argument("--seconds", type=int, default=10, help="of a turn")
    parser.add_argument("--detector", type=int, default=320, help="side of the detector's input in pixels")
    return parser.parse_args()


class Server:
    """One connection, kept open."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
        key = os.environ.get("INSIGHTFACE_API_KEY")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, method, path, body=None, content_type="application/json"):
        headers = {**self.headers, "Content-Type": content_type}
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def must(self, *request):
        status, text = self.ask(*request)
        if status >= 300:
            raise SystemExit(f"{request[0]} {request[1]}: {status} {text.decode(errors='replace')}")
        return text


def form(photo, field, **fields):
    """A multipart body with one photo, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
    parts += [head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def enrol(server, people):
    """How many of `people` (name, photo) the server took."""
    taken = 0
    for name, photo in people:
        body, kind = form(photo, "images", id=name, name=name, review_mode="off")
        status, _ = server.ask("POST", f"/v1/collections/{COLLECTION}/persons", body, kind)
        taken += status < 300
    return taken


def search(url, probes, callers, seconds):
    """A closed loop: milliseconds of each answered search, how many found their person, failures."""
    turn, lock = itertools.cycle(probes), threading.Lock()
    milliseconds, right, failed = [], 0, 0
    end = time.perf_counter() + seconds

    def caller():
        nonlocal right, failed
        server = Server(url)
        while time.perf_counter() < end:
            with lock:
                name, (body, kind) = next(turn)
            start = time.perf_counter()
            status, text = server.ask("POST", f"/v1/collections/{COLLECTION}/search", body, kind)
            took = 1000 * (time.perf_counter() - start)
            with lock:
                if status < 300:
                    milliseconds.append(took)
                    matches = json.loads(text)["matches"]
                    right += bool(matches) and matches[0]["person"]["id"] == name
                else:
                    failed += 1

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return milliseconds, right, failed, time.perf_counter() - start


def measured(url, probes, callers, seconds):
    """One turn of the server: a second, p50 and p99 in milliseconds, share found."""
    milliseconds, right, failed, took = search(url, probes, callers, seconds)
    if failed or len(milliseconds) < 2:
        raise SystemExit(f"{callers} callers: {failed} of {failed + len(milliseconds)} searches failed")
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return len(milliseconds) / took, cuts[49], cuts[98], right / len(milliseconds)


def assent(folder, callers, seconds):
    """The same of Assent; found is who matched, for it names nobody to a load generator."""
    program = os.environ.get("ASSENT", pathlib.Path(__file__).parents[2] / "target/release/assent")
    where = {"ASSENT_SERVER": "http://127.0.0.1:7400", **os.environ}
    load = ["--gate", "north-gate-1", "--callers", callers, "--seconds", seconds, "--json", folder / "second"]
    told = subprocess.run([program, "bench", *map(str, load)], env=where, check=True, capture_output=True)
    verify = json.loads(told.stdout)["steps"][0]["kinds"]["verify"]
    decisions, latency = verify["decisions"], verify["latency_ms"]
    found = decisions.get("MATCH", 0) / sum(decisions.values())
    return verify["per_second"], latency["p50"], latency["p99"], found


def main():
    given = arguments()
    photos = [sorted(person.glob("*.jpg")) for person in sorted(given.faces.iterdir()) if person.is_dir()]
    first = [(found[0].parent.name, found[0].read_bytes()) for found in photos if found]
    second = [
        (found[1].parent.name, form(found[1].read_bytes(), "image", limit=1)) for found in photos if len(found) > 1
    ]
    if not second:
        raise SystemExit(f"{given.faces} holds nobody with two photos (person/photo.jpg)")

    server = Server(given.server)
    side = [given.detector, given.detector]
    collection = {"id": COLLECTION, "name": COLLECTION, "detection": {"input_sizes": [side]}}
    server.must("POST", "/v1/collections", json.dumps(collection))
    try:
        print(f"{enrol(server, first)} of {len(first)} people enrolled", file=sys.stderr)
        search(given.server, second, max(given.callers), 2)
        print("| | callers | a second | p50 ms | p99 ms | found | times the peer |")
        print("|---|---|---|---|---|---|---|")
        for callers in given.callers:
            turns = {"InsightFace Server": []} | ({"Assent": []} if given.assent else {})
            for _ in range(given.turns):
                turns["InsightFace Server"].append(measured(given.server, second, callers, given.seconds))
                if given.assent:
                    turns["Assent"].append(assent(given.assent, callers, given.seconds))
            slowest = statistics.median(turn[0] for turn in turns["InsightFace Server"])
            for name, rows in turns.items():
                rate, p50, p99, found = map(statistics.median, zip(*rows))
                print(f"| {name} | {callers} | {rate:.1f} | {p50:.1f} | {p99:.1f} | {found:.3f} | {rate / slowest:.2f} |", flush=True)
    finally:
        # The server closes connections that idle, and the first one has.
        Server(given.server).must("DELETE", f"/v1/collections/{COLLECTION}?force=true")


if __name__ == "__main__":
    main()
