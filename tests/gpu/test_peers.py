"""peers.py over an invented torch: what it times is what it says, without a GPU.

The invented GPU takes 8 ms for each replay of a graph.
"""
import sys
import types

calls = []


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 8.0


class Graph:
    replays = 0

    def replay(self):
        Graph.replays += 1


class Within:
    def __init__(self, *what):
        pass

    def __enter__(self):
        calls.clear()  # what a graph captures, or a stream runs, is what has been called since

    def __exit__(self, *error):
        pass


torch = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(
    is_available=lambda: True, synchronize=lambda: None, Event=Event, CUDAGraph=Graph, Stream=object, stream=Within,
    graph=Within, get_device_properties=lambda device: types.SimpleNamespace(L2_cache_size=60 << 20))
sys.modules["torch"] = torch
sys.modules["triton"] = None  # as if it were not installed
import peers  # noqa: E402

assert peers.copies_of(1 << 30) == 3 and peers.copies_of(60 << 20) == 7 and peers.copies_of(1) == peers.CALLS
us = peers.median_us(calls.append, 3)
assert us == 8e3 / 64, us
assert calls == [i % 3 for i in range(64)], calls
assert Graph.replays == 3 + 9, Graph.replays  # 20 ms to raise the clocks
assert list(peers.tiles(1)) == []
print("peers: ok")
