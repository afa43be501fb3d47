# A fleet of small models as PyTorch users would train it, on one GPU (or, to try the script, the CPU), beside neap in one run: same windows, same
# initial weights, same batch order, exact float32, rounds interleaved, wall time with the device idle at both ends.
#   fleet_peer.py DIR DEVICE ROUNDS NEAP ARGS...     NEAP ARGS... DIR prints {"samples_per_s": .., "loss": ..}   -> one JSON object
# DIR (written by `neap bench` or spec/bench/fleet_gpu.c): job.txt "models windows batch epochs", base.f32 (model i's series begins at i), init.f32
# [models][6337] weights and biases in torch's order, order.i32 [epochs][windows].
import json
import statistics
import subprocess
import sys
import time

import torch

folder, device, rounds, neap = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
gpu = device == "cuda"
torch.backends.cuda.matmul.allow_tf32 = False
with open(folder + "/job.txt") as f:
    M, N, B, E = map(int, f.read().split())
SHAPES = [(64, 32), (64,), (64, 64), (64,), (1, 64), (1,)]
SIZES = [64 * 32, 64, 64 * 64, 64, 64, 1]


def read(name, kind):
    with open("%s/%s" % (folder, name), "rb") as f:
        return torch.frombuffer(bytearray(f.read()), dtype=kind)


SERIES = read("base.f32", torch.float32).unfold(0, N + 32, 1)[:M].clone().to(device)  # [M][N + 32], memory of its own for each
INIT = read("init.f32", torch.float32).view(M, -1)
ORDER = read("order.i32", torch.int32).view(E, N).long().to(device)
REACH = torch.arange(33, device=device)


def batch(at, models):
    """Windows that begin at `at`, relative to their last value: [models][batch][32] and the reading after it."""
    s = SERIES[:models, (at[:, None] + REACH).reshape(-1)].view(models, len(at), 33)
    last = s[:, :, 31:32]
    return s[:, :, :32] - last, s[:, :, 32:33] - last


def forward(p, x):
    w1, b1, w2, b2, w3, b3 = p
    h = torch.relu(torch.baddbmm(b1, x, w1))
    h = torch.relu(torch.baddbmm(b2, h, w2))
    return torch.baddbmm(b3, h, w3)


def loss_of(p, x, y):  # each model's mean; the sum's gradient keeps them apart
    return ((forward(p, x) - y) ** 2).mean(dim=(1, 2))


def parameters(models):
    parts = INIT[:models].split(SIZES, 1)
    made = [v.view(models, *s) for v, s in zip(parts, SHAPES)]
    made = [v.transpose(1, 2) if v.dim() == 3 else v[:, None, :] for v in made]
    return [v.contiguous().clone().to(device).requires_grad_() for v in made]  # INIT stays as it is


def adam(p, capturable=False):
    more = {"fused": True, "capturable": capturable} if gpu else {}
    return torch.optim.Adam(p, lr=1e-3, **more)


def eager(models, fn=loss_of):
    p = parameters(models)
    opt = adam(p)

    def step(at):
        x, y = batch(at, models)
        opt.zero_grad(set_to_none=True)
        loss = fn(p, x, y)
        loss.sum().backward()
        opt.step()
        return loss.detach().sum()

    return step


def graph(models, fn=loss_of):
    p = parameters(models)
    opt = adam(p, True)
    total = torch.zeros((), device=device)
    graphs = {}

    def record(size):
        at = torch.zeros(size, dtype=torch.long, device=device)

        def work():
            x, y = batch(at, models)
            opt.zero_grad(set_to_none=True)
            loss = fn(p, x, y)
            loss.sum().backward()
            opt.step()
            total.copy_(loss.detach().sum())

        before = [v.detach().clone() for v in p]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(side)
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g):
            work()
        with torch.no_grad():  # as if nothing had been learnt while warming up
            for v, b in zip(p, before):
                v.copy_(b)
            for state in opt.state.values():
                for v in state.values():
                    v.zero_()
        graphs[size] = (g, at)

    for size in {B, N % B} - {0}:
        record(size)

    def step(at):
        g, slot = graphs[len(at)]
        slot.copy_(at)
        g.replay()
        return total

    return step


def vmap(models):  # torch.func: one model's loss, mapped over the ensemble
    try:
        from torch.func import grad_and_value, vmap as over
    except ImportError:
        from functorch import grad_and_value, vmap as over  # before PyTorch 2

    p = [v.detach().squeeze(1) for v in parameters(models)]
    opt = adam([v.requires_grad_() for v in p])

    def one(q, x, y):
        w1, b1, w2, b2, w3, b3 = q
        h = torch.relu(torch.addmm(b1, x, w1))
        h = torch.relu(torch.addmm(b2, h, w2))
        return ((torch.addmm(b3, h, w3) - y) ** 2).mean()

    both = over(grad_and_value(one))

    def step(at):
        x, y = batch(at, models)
        grads, loss = both([v.detach() for v in p], x, y)
        for v, g in zip(p, grads):
            v.grad = g
        opt.step()
        return loss.detach().sum()

    return step


COMPILED = []  # compiled once for all rounds; shapes each once


def compiled(maker, models):
    if not COMPILED:
        COMPILED.append(torch.compile(loss_of, dynamic=False))
    return maker(models, fn=COMPILED[0])


forms = {"eager": (lambda: eager(1), 1), "ensemble": (lambda: eager(M), M), "ensemble_vmap": (lambda: vmap(M), M)}
if gpu:
    forms["graph"] = (lambda: graph(1), 1)
    forms["compile"] = (lambda: compiled(eager, 1), 1)
    forms["ensemble_graph"] = (lambda: graph(M), M)
    forms["ensemble_compile"] = (lambda: compiled(eager, M), M)
    forms["ensemble_compile_graph"] = (lambda: compiled(graph, M), M)
if M == 1:  # one model: no ensemble
    forms = {k: v for k, v in forms.items() if not k.startswith("ensemble")}


def wait():
    if gpu:
        torch.cuda.synchronize()


def run(form):
    """Samples per second and the last epoch's mean loss; one model alone takes at most 2000 steps."""
    maker, models = forms[form]
    step = maker()
    if gpu and not form.endswith("graph"):  # compile, choose algorithms, then afresh
        for size in {B, N % B} - {0}:
            step(ORDER[0, :size])
        step = maker()
    wait()
    start, steps, samples, loss = time.perf_counter(), 0, 0, None
    for e in range(E):
        total = torch.zeros((), device=device)
        for i in range(0, N, B):
            at = ORDER[e, i:i + B]
            total += step(at) * len(at)
            steps += 1
            samples += len(at) * models
            if models == 1 and steps >= 2000:
                break
        else:
            loss = total / (N * models)
            continue
        break
    wait()
    return samples / (time.perf_counter() - start), float(loss) if loss is not None else None


rates, losses, failed, ours = {}, {}, {}, []
for r in range(rounds):
    done = subprocess.run(neap + [folder], capture_output=True, text=True)
    if done.returncode:
        sys.exit("neap's part failed: " + done.stderr)
    ours.append(json.loads(done.stdout))
    for form in list(forms):
        try:
            rate, losses[form] = run(form)
            rates.setdefault(form, []).append(rate)
            print("round %d: %s %.4g samples/s, loss %s; neap %.4g" % (r + 1, form, rate, losses[form], ours[-1]["samples_per_s"]), file=sys.stderr, flush=True)
        except Exception as e:  # a form that this PyTorch cannot do is left out, and said so
            failed[form] = "%s: %s" % (type(e).__name__, str(e).split("\n")[0][:200])
            del forms[form]
        if gpu:
            torch.cuda.empty_cache()
json.dump({"models": M, "windows": N, "batch": B, "epochs": E, "neap": statistics.median(o["samples_per_s"] for o in ours), "neap_runs": ours,
           "neap_loss": ours[-1]["loss"], "rates": {k: statistics.median(v) for k, v in rates.items()}, "losses": losses, "failed": failed,
           "torch": torch.__version__, "device": torch.cuda.get_device_name() if gpu else "cpu"}, sys.stdout)
