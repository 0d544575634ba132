import time, statistics
from harness.wire import *
def test_a(gateway):
    with Wire(gateway.url) as wire:
        ts=[]
        for _ in range(30):
            t=time.perf_counter(); wire.send(request_bytes("GET","/livez")); wire.read(); ts.append(time.perf_counter()-t)
        print(statistics.median(ts)*1000, max(ts)*1000)
