"""The tasks of `cargo bench --bench backward` in PyTorch, on the CPU with two threads.

    python benches/pytorch_eager.py > torch.jsonl
    cargo bench --bench backward -- --devices cpu --against torch.jsonl

With `--set operators`, in both, the tasks of that set. Prints JSON lines as the harness does: times, and losses, gradients
and results to compare. Beginnings of task names may be given as arguments. Run both one after the other on a quiet machine,
with as many threads (RAYON_NUM_THREADS=2).
"""
import argparse
import json
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

THREADS = 2
PEER = {"peer": "torch-eager", "device": "cpu"}


def fill(seed, n, scale=1.0):
    """The same bits as `fill` in benches/backward/inputs.rs."""
    x = (np.arange(n, dtype=np.uint64) + seed * 0x9E3779B9) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return ((x / 2.0**32 * 2.0 - 1.0) * scale).astype(np.float32)


def tensor(seed, *shape, scale=1.0):
    return torch.from_numpy(fill(seed, int(np.prod(shape)), scale)).reshape(shape)


def leaf(seed, *shape, scale=1.0):
    return tensor(seed, *shape, scale=scale).requires_grad_()


def linear(seed, out, inputs):
    scale = 1 / np.sqrt(inputs)
    return leaf(seed, out, inputs, scale=scale), leaf(seed + 1, out, scale=scale)


def norm(seed, size):
    return (1 + tensor(seed, size, scale=0.1)).requires_grad_(), leaf(seed + 1, size, scale=0.1)


def clear(leaves):
    for x in leaves:
        x.grad = None


def simple(loss_of, **leaves):
    """A run that computes a loss of the leaves and all gradients."""

    def run():
        clear(leaves.values())
        loss = loss_of(*leaves.values())
        loss.backward()
        return loss, {name: x.grad for name, x in leaves.items()}

    return run


def product(n):
    a, b = tensor(2, n, n), tensor(3, n, n)

    def run():
        a @ b
        return None, {}

    return run


def mlp_adam_step():
    layers = [linear(20, 512, 784), linear(30, 256, 512), linear(40, 10, 256)]
    parameters = [p for layer in layers for p in layer]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    x, classes = tensor(9, 64, 784), torch.arange(64) * 7 % 10

    def run():
        optimizer.zero_grad(set_to_none=True)
        hidden = F.relu(F.linear(x, *layers[0]))
        hidden = F.relu(F.linear(hidden, *layers[1]))
        loss = F.cross_entropy(F.linear(hidden, *layers[2]), classes)
        loss.backward()
        optimizer.step()
        return loss, {}

    run.trains = True
    return run


def transformer_layer():
    wq, wk, wv, wo = (linear(seed, 256, 256) for seed in (100, 110, 120, 130))
    wide, narrow = linear(140, 1024, 256), linear(150, 256, 1024)
    weights = {"self_attn.in_proj_weight": torch.cat([wq[0], wk[0], wv[0]]),
               "self_attn.in_proj_bias": torch.cat([wq[1], wk[1], wv[1]])}
    for name, pair in {"self_attn.out_proj": wo, "linear1": wide, "linear2": narrow,
                       "norm1": norm(170, 256), "norm2": norm(180, 256)}.items():
        weights[name + ".weight"], weights[name + ".bias"] = pair
    layer = torch.nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, activation="gelu", batch_first=True)
    layer.load_state_dict({name: w.detach() for name, w in weights.items()})
    x = tensor(11, 8, 128, 256)

    def run():
        clear(layer.parameters())
        loss = layer(x).pow(2).mean()
        loss.backward()
        projections = layer.self_attn.in_proj_weight.grad
        return loss, {"wq": projections[:256], "wv": projections[512:], "w1": layer.linear1.weight.grad,
                      "b2": layer.linear2.bias.grad, "g1": layer.norm1.weight.grad, "g2": layer.norm2.weight.grad}

    return run


def chain(x):
    for _ in range(1000):
        x = x * 1.0001 + 0.1
    return x.sum()


def standard():
    """Names, and what makes each task's run."""
    for n in (3, 1000, 1_000_000, 10_000_000):
        yield f"seed_{n}", lambda n=n: simple(lambda x: (x.pow(2) + 100).mean(), x=leaf(1, n))
    for n in (256, 512, 1024, 2048):
        yield f"mm_{n}", lambda n=n: product(n)
    for n in (512, 1024):
        yield f"mm_fb_{n}", lambda n=n: simple(lambda a, b: (a @ b).sum(), a=leaf(2, n, n), b=leaf(3, n, n))
    yield "softmax_fb", lambda: simple(lambda x: F.softmax(x, -1).pow(2).sum(), x=leaf(4, 4096, 1024))
    yield "layernorm_fb", lambda: simple(
        lambda x, w, b: F.layer_norm(x, (1024,), w, b).pow(2).mean(), x=leaf(5, 4096, 1024), w=leaf(6, 1024), b=leaf(7, 1024))
    yield "elem_chain_fb", lambda: simple(
        lambda x: (F.gelu(x) * torch.sigmoid(x) + torch.tanh(x) * torch.exp(x)).mean(), x=leaf(8, 4096, 1024))
    yield "mlp_adam_step", mlp_adam_step
    yield "transformer_layer_fb", transformer_layer
    yield "overhead_chain", lambda: simple(chain, x=torch.full((1,), 0.5, requires_grad=True))


def forward(compute, *inputs):
    """A run that computes results, of which those with a name are compared."""
    return lambda: (None, compute(*inputs))


def both(name, compute, make):
    """The forward of an operator, and with `_backward` forward and the gradients of the result's sum."""
    yield name, lambda: forward(lambda *x: {"result": compute(*x)}, *make().values())
    yield name + "_backward", lambda: simple(
        lambda *x: compute(*x).sum(), **{leaf: x.requires_grad_() for leaf, x in make().items()})


def values_of(compute):
    """Values and their places; equal elements may stand in any order, so places are not compared."""

    def run(x):
        values, _places = compute(x)
        return {"values": values}

    return run


def unique(x):
    values, _inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    return {"values": values, "counts": counts}


def near_one(rows, n):
    """Numbers near 1, with a zero in the middle of each row."""
    x = 1 + tensor(15, rows, n, scale=0.05)
    x[:, n // 2] = 0
    return {"x": x}


def convolution(name, batch, channels, size, dims, out, window, stride=1, groups=1):
    """With a bias and a ReLU, as in networks."""
    convolve = {1: F.conv1d, 2: F.conv2d}[dims]

    def make():
        return {"x": tensor(16, batch, channels, *[size] * dims),
                "w": tensor(17, out, channels // groups, *[window] * dims), "b": tensor(18, out)}

    def compute(x, w, b):
        return F.relu(convolve(x, w, b, stride, window // 2, 1, groups))

    return both(f"{name}_{size}_" + "x".join([str(window)] * dims), compute, make)


def matrix():
    return tensor(19, 512, 512).double()


def singular_values(x):
    _u, s, _vh = torch.linalg.svd(x, full_matrices=False)
    return {"s": s}


def eigenvalues(x):
    values, _vectors = torch.linalg.eigh(x)
    return {"values": values}


def operators():
    """Names, and what makes each task's run."""
    for shape in ((4096, 1024), (4096, 100), (1_000_000,)):
        yield "sort_" + "x".join(map(str, shape)), lambda shape=shape: forward(values_of(torch.sort), tensor(12, *shape))
    yield "topk_4096x1024", lambda: forward(values_of(lambda x: x.topk(10)), tensor(12, 4096, 1024))
    yield f"unique_{2**22}", lambda: forward(unique, tensor(12, 2**22, scale=1000.0).long())
    yield "nonzero_1000000", lambda: forward(lambda x: {"places": x.nonzero()}, tensor(13, 1_000_000) > 0)
    for n in (1000, 100):
        yield from both(f"cumprod_64x{n}", lambda x: x.cumprod(-1), lambda n=n: near_one(64, n))
    for dims, sizes in ((1, (1024,)), (2, (32, 32)), (3, (16, 8, 8))):
        for window, stride, padding in ((2, 2, 0), (3, 2, 1)):
            for kind in ("max", "avg"):
                pool = getattr(F, f"{kind}_pool{dims}d")
                yield from both(f"{kind}_pool{dims}d_32x16_{window}s{stride}",
                                lambda x, pool=pool, how=(window, stride, padding): pool(x, *how),
                                lambda sizes=sizes: {"x": tensor(21, 32, 16, *sizes)})
    yield from convolution("conv", 4, 64, 56, 2, 64, 3)
    yield from convolution("conv", 8, 16, 32, 2, 32, 3)
    yield from convolution("conv", 8, 3, 64, 2, 32, 7, stride=2)
    yield from convolution("conv1d", 8, 64, 1024, 1, 64, 5)
    yield from convolution("depthwise", 8, 64, 32, 2, 64, 3, groups=64)
    yield "qr_512", lambda: forward(lambda x: dict(zip("qr", torch.linalg.qr(x))), matrix())
    yield "svd_512", lambda: forward(singular_values, matrix())
    yield "eigh_512", lambda: forward(eigenvalues, matrix())
    yield "solve_512", lambda: forward(
        lambda a, b: {"x": torch.linalg.solve(a, b)}, matrix(), tensor(20, 512).double())
    for rows, n in ((64, 1000), (64, 1009), (64, 1024), (64, 4096), (1, 2**20)):
        yield f"fft_{rows}x{n}", lambda rows=rows, n=n: forward(
            lambda x: {"spectrum": torch.view_as_real(torch.fft.fft(x))}, torch.view_as_complex(tensor(14, rows, n, 2)))
        yield f"rfft_{rows}x{n}", lambda rows=rows, n=n: forward(
            lambda x: {"spectrum": torch.view_as_real(torch.fft.rfft(x))}, tensor(14, rows, n))


def figures(value):
    """Norm, sum, first and last element."""
    values = value.detach().double().flatten()
    return [values.norm().item(), values.sum().item(), values[0].item(), values[-1].item()]


def ticks():
    """Busy clock ticks of the machine, and of this process; Linux only."""
    try:
        with open("/proc/stat") as machine, open("/proc/self/stat") as process:
            cpu = [int(n) for n in machine.readline().split()[1:9]]
            own = process.read().rsplit(")", 1)[1].split()[11:15]
    except OSError:
        return None
    return sum(cpu) - cpu[3] - cpu[4], sum(map(int, own))


def timed(run):
    """Times of at least 5 runs and at least 1 s, and the cores that others used meanwhile."""
    times, before, start = [], ticks(), time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < 1 and len(times) < 100_000):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    took, after = time.perf_counter() - start, ticks()
    if before is None or after is None:
        return None, times
    return round(max(0.0, (after[0] - before[0] - after[1] + before[1]) / 100 / took), 2), times


def measure(name, run):
    begin = time.perf_counter()
    loss, compared = run()
    first = time.perf_counter() - begin
    losses = [] if loss is None else [loss.item()]
    check = {key: figures(value) for key, value in compared.items()}
    for i in range(3):
        loss, _ = run()
        if hasattr(run, "trains") and i < 2:
            losses.append(loss.item())
    if losses or check:
        print(json.dumps({**PEER, "check": name, "loss": losses[0] if len(losses) == 1 else losses, "grads": check}), flush=True)
    other, times = timed(run)
    if other is not None and other >= 0.15:  # once more while other programs take the machine
        other, times = min((other, times), timed(run), key=lambda result: result[0])
    print(json.dumps({**PEER, "task": name, "other_cpu": other, "median_s": statistics.median(times), "min_s": min(times),
                      "runs": len(times), "first_s": round(first, 6)}), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--set", choices=("standard", "operators"), default="standard")
    arguments.add_argument("tasks", nargs="*", help="beginnings of task names; none are all tasks of the set")
    arguments = arguments.parse_args()
    torch.set_num_threads(THREADS)
    print(json.dumps({**PEER, "meta": {"versions": {"torch": torch.__version__, "threads": THREADS}}}), flush=True)
    wanted = tuple(arguments.tasks)
    for name, make in {"standard": standard, "operators": operators}[arguments.set]():
        if not wanted or name.startswith(wanted):
            measure(name, make())
