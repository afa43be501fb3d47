# What a user would write with PyTorch, measured beside neap in one run: same windows, same initial weights, same batch order, one thread each,
# rounds interleaved, CPU time. Called by `neap bench train`:  torch_peer.py DIR BATCH EPOCHS ROUNDS NEAP CHILD.lua   -> one JSON object
import json
import statistics
import struct
import subprocess
import sys
import time

import numpy as np
import torch

folder, batch, epochs, rounds, neap, child = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6]
torch.set_num_threads(1)


def load(path):
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack("<Q", raw[:8])
    kinds = {"F32": np.float32, "I64": np.int64}
    return {k: torch.from_numpy(np.frombuffer(raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]], kinds[t["dtype"]]).reshape(t["shape"]).copy())
            for k, t in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}


job, init = load(folder + "/job.safetensors"), load(folder + "/init.safetensors")
X, Y, ORDER = job["x"], job["y"], job["order"]  # order: [epochs][n]
N = X.shape[0]


def network():
    net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    with torch.no_grad():
        for i, l in enumerate((net[0], net[2], net[4])):
            l.weight.copy_(init["layer%d.weight" % (i + 1)])
            l.bias.copy_(init["layer%d.bias" % (i + 1)])
    return net


def dataloader(foreach=False):
    net = network()
    opt, loss_fn, total = torch.optim.Adam(net.parameters(), lr=1e-3), torch.nn.MSELoss(), 0.0
    for e in range(epochs):
        total, batches = 0.0, [ORDER[e, i:i + batch].tolist() for i in range(0, N, batch)]
        for x, y in torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_sampler=batches):
            opt.zero_grad()
            loss = loss_fn(net(x), y)
            loss.backward()
            opt.step()
            total += loss.item() * len(x)
    return total / N


def preindexed(foreach=False):
    net = network()
    opt, loss_fn, total = torch.optim.Adam(net.parameters(), lr=1e-3, foreach=foreach), torch.nn.MSELoss(), 0.0
    for e in range(epochs):
        total = 0.0
        for i in range(0, N, batch):
            at = ORDER[e, i:i + batch]
            x, y = X[at], Y[at]
            opt.zero_grad(set_to_none=True)
            loss = loss_fn(net(x), y)
            loss.backward()
            opt.step()
            total += loss.item() * len(x)
    return total / N


def preindexed_foreach():
    return preindexed(True)


def flat():  # no autograd, one flat parameter vector, Adam in five calls: the strongest form found
    shapes = [(64, 32), (64,), (64, 64), (64,), (1, 64), (1,)]
    sizes = [int(np.prod(s)) for s in shapes]
    P, G = torch.cat([init["layer%d.%s" % (i + 1, k)].reshape(-1) for i in range(3) for k in ("weight", "bias")]), torch.zeros(sum(sizes))
    M, S, step, total = torch.zeros_like(P), torch.zeros_like(P), 0, 0.0
    w1, b1, w2, b2, w3, b3 = (v.view(s) for v, s in zip(P.split(sizes), shapes))
    g1, c1, g2, c2, g3, c3 = (v.view(s) for v, s in zip(G.split(sizes), shapes))
    with torch.no_grad():
        for e in range(epochs):
            total = 0.0
            for i in range(0, N, batch):
                at = ORDER[e, i:i + batch]
                x, y = X[at], Y[at]
                h1 = torch.addmm(b1, x, w1.t()).relu_()
                h2 = torch.addmm(b2, h1, w2.t()).relu_()
                d = torch.addmm(b3, h2, w3.t()).sub_(y)
                total += (d * d).sum().item()
                d.mul_(2.0 / len(x))
                torch.mm(d.t(), h2, out=g3)
                torch.sum(d, 0, out=c3)
                d2 = torch.mm(d, w3).mul_(h2 > 0)
                torch.mm(d2.t(), h1, out=g2)
                torch.sum(d2, 0, out=c2)
                d1 = torch.mm(d2, w2).mul_(h1 > 0)
                torch.mm(d1.t(), x, out=g1)
                torch.sum(d1, 0, out=c1)
                step += 1
                M.mul_(0.9).add_(G, alpha=0.1)
                S.mul_(0.999).addcmul_(G, G, value=0.001)
                P.addcdiv_(M, S.sqrt().div_((1 - 0.999**step) ** 0.5).add_(1e-8), value=-1e-3 / (1 - 0.9**step))
    return total / N


forms = {"dataloader": dataloader, "preindexed": preindexed, "preindexed_foreach": preindexed_foreach, "flat": flat}
rates, losses, ours, our_loss = {k: [] for k in forms}, {}, [], 0.0
for r in range(rounds):
    rate, loss = subprocess.run([neap, child, folder, str(batch), str(epochs)], capture_output=True, text=True, check=True).stdout.split()
    ours.append(float(rate))
    our_loss = float(loss)
    for name, form in forms.items():
        start = time.process_time()
        losses[name] = form()
        rates[name].append(N * epochs / (time.process_time() - start))
json.dump({"neap": statistics.median(ours), "neap_loss": our_loss, "rates": {k: statistics.median(v) for k, v in rates.items()}, "losses": losses,
           "torch": torch.__version__}, sys.stdout)
