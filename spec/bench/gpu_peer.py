# PyTorch's side of `neap bench score|matmul --device cuda`, interleaved with neap's, wall time, exact float32.
#   gpu_peer.py score|matmul DIR DEVICE ROUNDS NEAP ARGS...    NEAP ARGS... DIR prints {"rates": {name: per second}, ..}   -> one JSON object
# score: job.txt "1 windows 0 0", base.f32 a series, init.f32 the model (as fleet_peer.py): from the series in host memory to the scores in host memory.
# matmul: job.txt has the sizes; square products of tensors that lie on the device, GFLOP/s.
import json
import statistics
import subprocess
import sys
import time

import torch

kind, folder, device, rounds, neap = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
gpu = device == "cuda"
torch.backends.cuda.matmul.allow_tf32 = False
with open(folder + "/job.txt") as f:
    numbers = list(map(int, f.read().split()))


def wait():
    if gpu:
        torch.cuda.synchronize()


def rate(amount, fn):
    fn()
    wait()
    start, n = time.perf_counter(), 0
    while n < 3 or time.perf_counter() - start < 0.3:
        fn()
        wait()
        n += 1
    return amount * n / (time.perf_counter() - start)


def read(name):
    with open("%s/%s" % (folder, name), "rb") as f:
        return torch.frombuffer(bytearray(f.read()), dtype=torch.float32)


forms, sample = {}, {}
if kind == "score":
    N = numbers[1]
    series = read("base.f32")[:N + 32]
    parts = read("init.f32").split([64 * 32, 64, 64 * 64, 64, 64, 1])
    net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    with torch.no_grad():
        for layer, w, b in zip((net[0], net[2], net[4]), parts[0::2], parts[1::2]):
            layer.weight.copy_(w.view_as(layer.weight))
            layer.bias.copy_(b)
    net = net.to(device)

    def score(f, name):
        with torch.no_grad():
            x = series.to(device).unfold(0, 32, 1)[:N]
            sample[name] = float(f(x - x[:, 31:]).cpu()[N // 2])

    forms["eager"] = lambda: rate(N, lambda: score(net, "eager"))
    if gpu:
        compiled = torch.compile(net)
        forms["compile"] = lambda: rate(N, lambda: score(compiled, "compile"))
else:
    for n in numbers:
        def product(n=n):
            a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
            return rate(2e-9 * n ** 3, lambda: a @ b)

        forms[str(n)] = product

rates, failed, ours = {}, {}, []
for r in range(rounds):
    done = subprocess.run(neap + [folder], capture_output=True, text=True)
    if done.returncode:
        sys.exit("neap's part failed: " + done.stderr)
    ours.append(json.loads(done.stdout))
    for form in list(forms):
        try:
            rates.setdefault(form, []).append(forms[form]())
        except Exception as e:  # a form that this PyTorch cannot do is left out, and said so
            failed[form] = "%s: %s" % (type(e).__name__, str(e).split("\n")[0][:200])
            del forms[form]
json.dump({"neap": {k: statistics.median(o["rates"][k] for o in ours) for k in ours[0]["rates"]}, "neap_sample": ours[-1].get("sample"), "sample": sample,
           "rates": {k: statistics.median(v) for k, v in rates.items() if v}, "failed": failed, "torch": torch.__version__,
           "device": torch.cuda.get_device_name() if gpu else "cpu"}, sys.stdout)
