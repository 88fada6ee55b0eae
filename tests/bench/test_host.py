"""tests/bench/host with an invented clock, invented contenders and no numpy: who has its turn when, and what becomes of
the samples. With the folder of a build also the library that times there.

    python3 tests/bench/test_host.py [build]
"""
import ctypes
import importlib.machinery
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
import types

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))


class Generator:
    def standard_normal(self, shape, dtype):
        return list(shape)


numpy = types.ModuleType("numpy")
numpy.float32 = numpy.uint8 = None
numpy.random = types.SimpleNamespace(default_rng=lambda seed: Generator())
sys.modules["numpy"] = numpy
sys.path.insert(0, HERE)
loader = importlib.machinery.SourceFileLoader("host", os.path.join(HERE, "host"))
host = importlib.util.module_from_spec(importlib.util.spec_from_loader("host", loader))
loader.exec_module(host)
host.error = lambda peer, x, y: 0.5
clock = [0.0]
host.time = types.SimpleNamespace(perf_counter=lambda: clock[0])
log = []


class Contender:
    def __init__(self, name, copies, seconds):
        self.name, self.copies, self.seconds, self.bytes, self.multiplies = name, copies, seconds, 1000, "i8"

    def tokens(self, x):
        self.x = x

    def run(self, i):
        log.append((self.name, i))
        clock[0] += self.seconds

    def result(self):
        return None

    def kernel(self, m):
        return "k%d" % m


class Meter:
    """Samples of more than 50 s are disturbed."""

    def __init__(self):
        self.begun = []

    def begin(self, count, patience):
        self.begun.append((count, patience))

    def sample(self, seconds_of_call):
        seconds = seconds_of_call()
        return seconds, 500.0, seconds > 50


def names(entries):
    """aab for two entries of a and one of b."""
    return "".join(name for name, _ in entries)


def test_turns_and_numbers():
    a, b, c = Contender("a", 2, 2.0), Contender("b", 3, 4.0), Contender("c", 1, 99.0)
    meter = Meter()
    options = types.SimpleNamespace(rounds=4, patience=5)
    rows = host.measure(meter, (10, 20, 1), [a, b, c], 7, options, {"i8": 2800.0})
    assert names(log) == "aaa" "bbbb" "cc" + "aabbcc" "bbccaa" "ccaabb" "aabbcc", names(log)
    for p in (a, b, c):  # copies in turn, without a break
        used = [i for name, i in log if name == p.name]
        assert used == [i % p.copies for i in range(len(used))], (p.name, used)
    assert meter.begun == [(12, 5)] and a.x == [7, 20], (meter.begun, a.x)
    first = rows[0]
    assert first["us"] == 2e6 and first["spread"] == 0 and first["disturbed"] == 0 and first["kernel"] == "k7", first
    assert first["bandwidth"] == 500 and first["of_reads"] == 1, first     # 1000 bytes in 2 s, 500 bytes/s beside it
    assert first["operations"] == 1400 and first["of_peak"] == 0.5, first  # 2 * 7 * 10 * 20 in 2 s
    assert "?" not in host.line(first) and "?" in host.line(rows[2]), host.line(rows[2])


def test_patience_is_shared_by_samples():
    class Busy(host.Meter):
        def __init__(self):  # a try takes a second, and the machine is quiet at the last of so many
            self.tries, self.lib = [], types.SimpleNamespace(bench_begin=lambda handle, count: None)
            self.handle = None

        def once(self, quiet_after):
            clock[0] += 1
            self.tries[-1] += 1
            return 1.0, 1.0, self.tries[-1] < quiet_after

    def tries(patience, *quiet_after):
        busy = Busy()
        busy.begin(len(quiet_after), patience)
        for n in quiet_after:
            busy.tries.append(0)
            assert busy.sample(n)[2] == (busy.tries[-1] < n)
        return busy.tries
    host.time.sleep = lambda seconds: None
    assert tries(0, 1, 5) == [1, 1]
    assert tries(6, 9, 9) == [4, 4]        # 3 seconds each
    assert tries(8, 1, 9, 1) == [1, 7, 1]  # what one leaves is for the next
    assert tries(6, 2, 9, 2) == [2, 4, 2]


def test_short_calls_are_timed_together():
    short = Contender("s", 40, 1e-4)
    calls = host.Calls(short)
    assert calls.many == 10, calls.many
    del log[:]
    assert abs(calls.seconds() - 1e-4) < 1e-12 and len(log) in (210, 211), len(log)  # 20 ms of them are not timed


def test_spread_is_of_quartiles():
    p = Contender("p", 1, [])
    samples = [(s, 1.0, False) for s in (8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 90.0)]
    row = host.result((1, 1, 1), p, 1, samples, 0.0, None, None)
    assert row["us"] == 11e6 and abs(row["spread"] - 2 / 11) < 1e-12 and row["of_peak"] is None, row


def test_medians_of_runs():
    row = {"n": 1, "k": 2, "threads": 1, "m": 4, "peer": "p", "kernel": "k", "samples": 11, "error": 0.5,
           "of_peak": None, "ratio": None}
    paths = []
    with tempfile.TemporaryDirectory() as folder:
        for us, disturbed in ((10.0, 0), (14.0, 11), (11.0, 5)):
            paths.append(os.path.join(folder, str(us)))
            with open(paths[-1], "w") as out:
                json.dump({"rows": [dict(row, us=us, disturbed=disturbed, bandwidth=1 / us, of_reads=us, operations=us,
                                         ratio=2 * us),
                                    dict(row, m=5, us=1.0, disturbed=11, bandwidth=1, of_reads=1, operations=1)]}, out)
        four, five = host.medians(paths)
    assert four["us"] == four["of_reads"] == 11 and four["spread"] == 2 / 11 and four["bandwidth"] == 1 / 11, four
    assert four["ratio"] == 22 and four["ratio_spread"] == 2 / 11 and five["ratio_spread"] is None, (four, five)
    assert "?" not in host.line(four) and "?" in host.line(five), (four, five)


def test_times_faster_are_those_of_rounds():
    base = [(s, 1.0, False) for s in (4.0, 8.0, 4.0, 8.0, 4.0)]  # of a machine that is half as fast now and then
    same = [(s / 2, 1.0, False) for s, _, _ in base]
    assert host.ratio(same, base) == {"ratio": 2, "ratio_spread": 0}
    other = host.ratio([(2.0, 1.0, False)] * 5, base)
    assert other["ratio"] == 2 and other["ratio_spread"] == 0.5, other
    assert host.ratio(same, None) == {"ratio": None, "ratio_spread": None}


def test_brief_tables():
    said = []
    host.print = lambda text: said.append(text)
    row = {"n": 1, "k": 2, "threads": 1, "ratio_spread": 0.05}
    host.brief([dict(row, m=64, peer="a", ratio=2.0), dict(row, m=64, peer="b", ratio=1.234, ratio_spread=0.2),
                dict(row, m=4, peer="a", ratio=10.0), dict(row, threads=2, m=4, peer="b", ratio=None)])
    del host.print
    assert [" ".join(text.split()) for text in said] == [
        "1 x 2, threads: 1, times as fast as torch dense bf16", "contender M = 4 M = 64", "a 10.00 2.00",
        "b - 1.23?"], said
    assert said[2].index("2.00") + 4 == said[3].index("?"), said  # in columns


def test_missing_contenders_are_named_once():
    said = []
    host.print = lambda *words: said.append(" ".join(words))

    def missing(weight, threads, options):
        raise host.peers.Missing("pip install it")

    def broken(weight, threads, options):
        raise AttributeError("no such function")
    makers = [("here", lambda w, t, o: "made"), ("gone", missing), ("old", broken)]
    for only, want in ((None, ["made"]), (None, ["made"]), ("go", []), ("re,x", ["made"])):
        assert host.available(makers, (1, 1, 1), None, types.SimpleNamespace(only=only)) == want, only
    assert said == ["left out: gone: pip install it", "left out: old: AttributeError: no such function"], said


def test_bad_options_are_refused():
    for read, text in ((host.shapes, "4096"), (host.shapes, "4096x100"), (host.shapes, "0x256"), (host.numbers, "1,x"),
                       (host.numbers, "0"), (host.number(2), "1"), (host.number(1), "-3")):
        try:
            read(text)
        except host.argparse.ArgumentTypeError:
            continue
        raise AssertionError(text)
    assert host.shapes("2x256,3x512") == [(2, 256), (3, 512)] and host.numbers("1,16") == [1, 16]


def test_meter():
    if not sys.argv[1:]:
        return
    os.environ["QUERNEL_BUSY"] = "ignore"
    invented, host.time = host.time, time
    meter = host.Meter(sys.argv[1], 1)
    meter.begin(1, 0)
    seconds, reads, disturbed = meter.sample(lambda: 0.25)
    host.time = invented
    assert seconds == 0.25 and reads > 0 and not disturbed, (seconds, reads, disturbed)
    assert meter.peak("f64") == 0 and (meter.peak("f32") > 0 or platform.machine() != "x86_64")
    meter.lib.bench_size_of.restype = ctypes.c_size_t
    for name, type in (("planes", "Planes"), ("args", "Args"), ("open_options", "OpenOptions")):
        c, python = meter.lib.bench_size_of(b"qn_" + name.encode()), ctypes.sizeof(getattr(host.peers, type))
        assert c == python > 0, (name, c, python)


for name, test in sorted(vars().copy().items()):
    if name.startswith("test_"):
        test()
        log.clear()
print("host: turns, numbers and what is missing are as they should be")
