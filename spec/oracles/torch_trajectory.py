# Records what PyTorch does, for spec/mlp_spec.lua: training trajectories with given initial weights and batch order, and activations.
# Run: /usr/bin/python3 spec/oracles/torch_trajectory.py > spec/oracles/torch_trajectory.lua      (python3-torch from Debian)
# Initial weights, inputs and targets come from integer formulas that the spec repeats, so that only results are recorded.
import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float32)
STEPS, BATCH, IN = 300, 64, 32


def pseudo(seed, n):  # 16 exact bits per number: the same floats in Lua and here
    out, x = [], seed * 2654435761 % 4294967296
    for _ in range(n):
        x = (x * 1664525 + 1013904223) % 4294967296
        out.append((x >> 16) / 32768 - 1)
    return out


def net(seed, sizes, act):
    layers = []
    for i in range(len(sizes) - 1):
        l = torch.nn.Linear(sizes[i], sizes[i + 1])
        bound = 1 / sizes[i] ** 0.5
        with torch.no_grad():
            l.weight.copy_(torch.tensor(pseudo(seed * 100 + 2 * i, sizes[i] * sizes[i + 1]), dtype=torch.float64).mul(bound).view(sizes[i + 1], sizes[i]))
            l.bias.copy_(torch.tensor(pseudo(seed * 100 + 2 * i + 1, sizes[i + 1]), dtype=torch.float64).mul(bound))
        layers += [l] + ([act()] if i < len(sizes) - 2 else [])
    return torch.nn.Sequential(*layers)


def data(seed, n):
    x = torch.tensor(pseudo(seed * 1000 + 7, n * IN), dtype=torch.float64).view(n, IN)
    y = 0.5 * x[:, 0] * x[:, 1] + 0.25 * x[:, 2:6].sum(1) + 0.1 * x[:, 31]
    return x.float(), y.float().view(n, 1)


CASES = [
    ("adam", [32, 64, 64, 1], torch.nn.ReLU, torch.nn.MSELoss(), lambda p: torch.optim.Adam(p, lr=1e-3), None, "relu", "mse", {}),
    ("adam_l2", [32, 64, 64, 1], torch.nn.Tanh, torch.nn.HuberLoss(delta=0.3), lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-3), None, "tanh", "huber",
     {"huber": 0.3, "weight_decay": 1e-3}),
    ("adamw", [32, 48, 1], torch.nn.GELU, torch.nn.MSELoss(), lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2), None, "gelu", "mse",
     {"optimizer": "adamw", "weight_decay": 1e-2}),
    ("sgd", [32, 64, 64, 1], lambda: torch.nn.LeakyReLU(0.01), torch.nn.MSELoss(), lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9), None, "leaky_relu",
     "mse", {"optimizer": "sgd", "lr": 1e-2, "momentum": 0.9}),
    ("clip", [32, 64, 64, 1], torch.nn.ReLU, torch.nn.L1Loss(), lambda p: torch.optim.Adam(p, lr=1e-3), 0.05, "relu", "mae", {"clip": 0.05}),
]

print("-- Recorded by spec/oracles/torch_trajectory.py with PyTorch %s on a CPU: losses before each listed step." % torch.__version__)
print("return {steps = %d, batch = %d, cases = {" % (STEPS, BATCH))
for name, sizes, act, loss_fn, opt_fn, clip, act_name, loss_name, options in CASES:
    print('    {name = "%s", sizes = {%s}, act = "%s", loss = "%s", options = {%s}, seeds = {' % (
        name, ", ".join(map(str, sizes)), act_name, loss_name, ", ".join("%s = %s" % (k, '"%s"' % v if isinstance(v, str) else repr(v)) for k, v in options.items())))
    for seed in range(1, 6):
        model, (x, y) = net(seed, sizes, act), data(seed, 4 * BATCH)
        opt, losses = opt_fn(model.parameters()), []
        for step in range(STEPS):
            b = slice(step % 4 * BATCH, (step % 4 + 1) * BATCH)
            opt.zero_grad()
            loss = loss_fn(model(x[b]), y[b])
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            if step in (0, 1, 9, 99, 199, 299):
                losses.append("%.9g" % loss.item())
        print("        {%s}," % ", ".join(losses))
    print("    }},")
print("}, at = {1, 2, 10, 100, 200, 300}}")
