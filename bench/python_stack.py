#!/usr/bin/env python3
"""The seed's stack in Python, batched well: the peer that `millwright bench compute` names.

Reads a file of JSON lines of class mill in batches, decodes them (orjson where it is installed, else json), keeps 60 s windows of two
channels by machine, judges the three laws. Prints one JSON document: readings per CPU-second, and how many
readings broke a law, so that parity can be checked. In memory: no broker, no database.
"""
import json, math, sys, time
from collections import deque

try:
    import orjson
    loads, decoder = orjson.loads, "orjson"
except ImportError:
    loads, decoder = json.loads, "json"


class Window:
    """60 readings of one channel, running sums."""
    __slots__ = ("values", "total", "squares")

    def __init__(self):
        self.values, self.total, self.squares = deque(), 0.0, 0.0

    def push(self, second, value):
        self.values.append((second, value))
        self.total += value
        self.squares += value * value
        while self.values[0][0] <= second - 60:
            _, old = self.values.popleft()
            self.total -= old
            self.squares -= old * old


def judge(lines, windows):
    broken = 0
    for line in lines:
        r = loads(line)
        machine = windows.get(r["machine_id"])
        if machine is None:
            machine = windows[r["machine_id"]] = (Window(), Window())
        stamp = r["timestamp"]
        second = int(stamp[8:10]) * 86400 + int(stamp[11:13]) * 3600 + int(stamp[14:16]) * 60 + int(stamp[17:19])
        rpm, torque, wear = r["rpm"], r["torque_nm"], r["tool_wear_min"]
        machine[0].push(second, r["process_temp_k"])
        machine[1].push(second, rpm)
        power = torque * rpm * 2 * math.pi / 60
        if (r["process_temp_k"] - r["air_temp_k"] < 8.6 and rpm < 1380) or power < 3500 or power > 9000 or torque * wear > 11000:
            broken += 1
    return broken


def main():
    with open(sys.argv[1], "rb") as file:
        lines = file.read().splitlines()
    windows, broken = {}, 0
    start = time.process_time()
    for at in range(0, len(lines), 5000):
        broken += judge(lines[at:at + 5000], windows)
    spent = time.process_time() - start
    print(json.dumps({"readings_per_cpu_second": len(lines) / spent, "broken": broken, "decoder": decoder, "python": sys.version.split()[0]}))


main()
