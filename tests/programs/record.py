"""Writes record.safetensors: what whole programs compute in PyTorch.

    python tests/programs/record.py

Each program below is written as such programs are written, and has a twin of its name beside this file, in Rust. It is run twice,
in f64 and in f32, from the same f32 numbers. The file holds under the program's name: its data and initial parameters (f32 and i64),
the losses of its steps (f64), and its parameters at the end (f64, under `after`). The f32 run must come to the same losses, to much
less than the tests allow: a program whose rounding errors grow from step to step would prove nothing.

Chance has no part in the programs: what is random in them is data.
"""

import json
import math
import pathlib
import struct

import numpy
import torch
import torch.nn.functional as F
from torch import nn

STEPS = 20
# Batches of data, noise and tasks are used in turn, this many.
TURNS = 4


class Run:
    """One run of a program: its dtype, the numbers it starts from, what it reports."""

    def __init__(self, name, dtype, known):
        self.name, self.dtype, self.known = name, dtype, known
        self.losses, self.parameters = [], {}
        torch.manual_seed(sum(name.encode()))

    def keep(self, name, make):
        """The numbers of the first run, in this run's dtype."""
        if name not in self.known:
            self.known[name] = make().detach().clone()
        tensor = self.known[name]
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def data(self, name, make):
        return self.keep(name, lambda: make().float())

    def numbers(self, name, make):
        return self.keep(name, lambda: make().long())

    def parameter(self, name, make):
        tensor = self.data(name, make).clone().requires_grad_(True)
        self.parameters[name] = tensor
        return tensor

    def module(self, module, prefix=""):
        """A module with the parameters of the first run."""
        for name, parameter in module.named_parameters():
            parameter.data = self.data(prefix + name, lambda: parameter.data).clone()
            self.parameters[prefix + name] = parameter
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                buffer.data = buffer.data.to(self.dtype)
        return module

    def report(self, loss):
        self.losses.append(loss.item())


def rnn(run):
    """A GRU learns letters with truncated backpropagation: the hidden state goes on from piece to piece, its history doesn't."""
    letters, length = 12, 6
    text = run.numbers("text", lambda: (torch.arange(TURNS * length + 1) ** 2 + torch.arange(8)[:, None]
                                       + torch.randint(0, 3, (8, TURNS * length + 1))) % letters)
    embed = run.module(nn.Embedding(letters, 8), "embed.")
    gru = run.module(nn.GRU(8, 16, batch_first=True), "gru.")
    head = run.module(nn.Linear(16, letters), "head.")
    parameters = list(run.parameters.values())
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
    hidden = None
    for step in range(STEPS):
        start = step % TURNS * length
        if start == 0:
            hidden = torch.zeros(1, 8, 16, dtype=run.dtype)
        hidden = hidden.detach()
        optimizer.zero_grad()
        out, hidden = gru(embed(text[:, start:start + length]), hidden)
        loss = F.cross_entropy(head(out).flatten(0, 1), text[:, start + 1:start + length + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        run.report(loss)


def cnn(run):
    """Images are told apart by convolutions with batch norm; the last loss is that of all images by the running statistics."""
    images = run.data("images", lambda: torch.randn(TURNS * 8, 1, 10, 10))
    labels = run.numbers("labels", lambda: torch.arange(TURNS * 8) % 4)
    model = run.module(nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AvgPool2d(3), nn.Flatten(), nn.Linear(8, 4)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(STEPS - 1):
        start = step % TURNS * 8
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[start:start + 8]), labels[start:start + 8])
        loss.backward()
        optimizer.step()
        run.report(loss)
    model.eval()
    with torch.no_grad():
        run.report(F.cross_entropy(model(images), labels))


def vae(run):
    """A variational autoencoder of binary patterns."""
    patterns = run.data("patterns", lambda: (torch.rand(TURNS, 16, 20) < torch.rand(20)))
    noise = run.data("noise", lambda: torch.randn(TURNS, 16, 3))
    encoder = run.module(nn.Linear(20, 24), "encoder.")
    mean_of, variance_of = run.module(nn.Linear(24, 3), "mean."), run.module(nn.Linear(24, 3), "variance.")
    decoder = run.module(nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 20)), "decoder.")
    optimizer = torch.optim.Adam(run.parameters.values(), lr=0.01)
    for step in range(STEPS):
        x = patterns[step % TURNS]
        hidden = F.relu(encoder(x))
        mean, log_variance = mean_of(hidden), variance_of(hidden)
        latent = mean + noise[step % TURNS] * torch.exp(0.5 * log_variance)
        reconstruction = F.binary_cross_entropy_with_logits(decoder(latent), x, reduction="sum") / len(x)
        divergence = -0.5 * torch.sum(1 + log_variance - mean ** 2 - log_variance.exp()) / len(x)
        loss = reconstruction + divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(loss)


def wgan_gp(run):
    """A generator and a critic whose gradient is kept near length 1: backward through a backward."""
    real = run.data("real", lambda: torch.randn(TURNS, 16, 2) * 0.3 + torch.tensor([1.0, -0.5]))
    noise = run.data("noise", lambda: torch.randn(TURNS, 3, 16, 4))
    between = run.data("between", lambda: torch.rand(TURNS, 2, 16, 1))
    critic = run.module(nn.Sequential(
        nn.Linear(2, 16), nn.LayerNorm(16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.LeakyReLU(0.2),
        nn.Linear(16, 1, bias=False)), "critic.")
    generator = run.module(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)), "generator.")
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3, betas=(0.5, 0.9))
    for step in range(STEPS):
        turn = step % TURNS
        for i in range(2):
            fake = generator(noise[turn, i]).detach()
            mixed = (real[turn] + between[turn, i] * (fake - real[turn])).requires_grad_(True)
            slope, = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
            penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
            critic_loss = critic(fake).mean() - critic(real[turn]).mean() + 10 * penalty
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()
        generator_loss = -critic(generator(noise[turn, 2])).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        run.report(critic_loss.detach() + generator_loss.detach())


def pinn(run):
    """Burgers' equation, solved by a network: first and second derivatives of its inputs are part of the loss."""
    inside = run.data("inside", lambda: torch.rand(32, 2) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0]))
    begin = run.data("begin", lambda: torch.linspace(-1, 1, 12)[:, None])
    model = run.module(nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def u(x, t):
        return model(torch.cat([x, t], dim=1))

    x = inside[:, :1].clone().requires_grad_(True)
    t = inside[:, 1:].clone().requires_grad_(True)
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = u(x, t)
        u_x, u_t = torch.autograd.grad(value, [x, t], torch.ones_like(value), create_graph=True)
        u_xx, = torch.autograd.grad(u_x, x, torch.ones_like(u_x), create_graph=True)
        residual = u_t + value * u_x - 0.1 * u_xx
        start = u(begin, torch.zeros_like(begin)) + torch.sin(math.pi * begin)
        edge = torch.cat([u(torch.full_like(begin, side), (begin + 1) / 2) for side in (-1.0, 1.0)])
        loss = residual.pow(2).mean() + start.pow(2).mean() + edge.pow(2).mean()
        loss.backward()
        optimizer.step()
        run.report(loss)


def maml(run):
    """A network that learns to learn: the outer gradient goes through two inner steps of gradient descent."""
    phases = torch.rand(TURNS, 3, 1, 1) * 3
    x = run.data("x", lambda: torch.rand(TURNS, 3, 12, 1) * 6 - 3)
    y = run.data("y", lambda: (torch.rand(TURNS, 3, 1, 1) + 0.5) * torch.sin(x.float() + phases))
    shapes = [(16, 1), (16,), (16, 16), (16,), (1, 16), (1,)]
    weights = [run.parameter(f"weight.{i}", lambda: torch.randn(shape) / math.sqrt(shape[-1])) for i, shape in enumerate(shapes)]
    optimizer = torch.optim.Adam(weights, lr=0.005)

    def forward(x, w):
        return F.linear(torch.tanh(F.linear(torch.tanh(F.linear(x, w[0], w[1])), w[2], w[3])), w[4], w[5])

    for step in range(STEPS):
        optimizer.zero_grad()
        total = torch.zeros((), dtype=run.dtype)
        for task in range(3):
            task_x, task_y = x[step % TURNS, task], y[step % TURNS, task]
            fast = weights
            for _ in range(2):
                inner = F.mse_loss(forward(task_x[:6], fast), task_y[:6])
                grads = torch.autograd.grad(inner, fast, create_graph=True)
                fast = [w - 0.05 * g for w, g in zip(fast, grads)]
            total = total + F.mse_loss(forward(task_x[6:], fast), task_y[6:])
        loss = total / 3
        loss.backward()
        optimizer.step()
        run.report(loss)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mixed = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.attention(self.norm1(x)).chunk(3, dim=-1)
        query, key, value = (p.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for p in parts)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


def gpt(run):
    """A causal transformer whose output layer is its embedding, with weight decay for matrices, a schedule, and clipped gradients."""
    letters, width, length, batch = 14, 16, 12, 4
    text = run.numbers("text", lambda: (torch.arange(TURNS * batch)[:, None] * 5 + torch.arange(length + 1) ** 2) % letters)
    embed, places = nn.Embedding(letters, width), nn.Embedding(length, width)
    for table in (embed, places):
        nn.init.normal_(table.weight, std=0.1)
    embed, places = run.module(embed, "embed."), run.module(places, "places.")
    blocks = run.module(nn.Sequential(Block(width, 2), Block(width, 2)), "blocks.")
    norm = run.module(nn.LayerNorm(width), "norm.")
    parameters = list(run.parameters.values())
    matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95))
    for step in range(STEPS):
        rate = 0.01 * min(1.0, (step + 1) / 5) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = rate
        letters_now = text[step % TURNS * batch:][:batch]
        x = embed(letters_now[:, :-1]) + places(torch.arange(length))
        scores = norm(blocks(x)) @ embed.weight.t()
        loss = F.cross_entropy(scores.flatten(0, 1), letters_now[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        run.report(loss)


def gaussian_process(run):
    """The marginal likelihood of a Gaussian process, by a Cholesky factorization, and in the end the error of its prediction."""
    x = run.data("x", lambda: torch.linspace(0, 4, 20) + 0.05 * torch.randn(20))
    y = run.data("y", lambda: torch.sin(2 * x.float()) + 0.1 * torch.randn(20))
    new = run.data("new", lambda: torch.linspace(0.1, 3.9, 7))
    length, size, noise = (run.parameter(name, lambda: torch.tensor(value)) for name, value in
                           (("log_length", 0.3), ("log_size", -0.2), ("log_noise", -1.5)))
    optimizer = torch.optim.Adam([length, size, noise], lr=0.05)

    def kernel(a, b):
        return size.exp() * torch.exp(-0.5 * ((a[:, None] - b) / length.exp()) ** 2)

    def factor():
        return torch.linalg.cholesky(kernel(x, x) + noise.exp() * torch.eye(len(x), dtype=run.dtype))

    for _ in range(STEPS - 1):
        optimizer.zero_grad()
        lower = factor()
        weights = torch.cholesky_solve(y[:, None], lower)
        loss = 0.5 * (y * weights[:, 0]).sum() + lower.diagonal().log().sum() + 0.5 * len(x) * math.log(2 * math.pi)
        loss.backward()
        optimizer.step()
        run.report(loss)
    with torch.no_grad():
        prediction = kernel(new, x) @ torch.cholesky_solve(y[:, None], factor())
        run.report(F.mse_loss(prediction[:, 0], torch.sin(2 * new)))


def neural_ode(run):
    """A network is the velocity of a spiral; the gradient goes through six steps of Runge and Kutta."""
    start = run.data("start", lambda: torch.randn(TURNS, 8, 2))
    turn = torch.linalg.matrix_exp(torch.tensor([[-0.1, 1.0], [-1.0, -0.1]]) * 0.25)
    path = run.data("path", lambda: torch.stack([start.float() @ torch.linalg.matrix_power(turn, i) for i in range(1, 7)], 2))
    model = run.module(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    h = 0.25
    for step in range(STEPS):
        y, states = start[step % TURNS], []
        for _ in range(6):
            k1 = model(y ** 3)
            k2 = model((y + h / 2 * k1) ** 3)
            k3 = model((y + h / 2 * k2) ** 3)
            k4 = model((y + h * k3) ** 3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            states.append(y)
        loss = (torch.stack(states, 1) - path[step % TURNS]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(loss)


def accumulation(run):
    """Gradients of several small batches, the last one smaller, make one step; an average of the weights follows them."""
    x = run.data("x", lambda: torch.randn(22, 10))
    y = run.numbers("y", lambda: (x.float()[:, :3].sum(1) > 0).long() + (x.float()[:, 3] > 1).long())
    model = run.module(nn.Sequential(nn.Linear(10, 16), nn.SiLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-3)
    average = [p.detach().clone() for p in model.parameters()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        total, right = torch.zeros((), dtype=run.dtype), torch.zeros((), dtype=torch.int64)
        for i in range(0, len(x), 8):
            scores = model(x[i:i + 8])
            loss = F.cross_entropy(scores, y[i:i + 8], reduction="sum", label_smoothing=0.1) / len(x)
            loss.backward()
            total = total + loss.detach()
            right = right + (scores.argmax(1) == y[i:i + 8]).sum()
        optimizer.step()
        with torch.no_grad():
            for mean, p in zip(average, model.parameters()):
                mean.mul_(0.9).add_(p, alpha=0.1)
            followed = F.linear(F.silu(F.linear(x, average[0], average[1])), average[2], average[3])
            # One number that all of them are in.
            run.report(total + right / len(x) + F.cross_entropy(followed, y))


def dqn(run):
    """Q-learning: a target network that follows by copies, chosen actions gathered, a robust loss."""
    states = run.data("states", lambda: torch.randn(TURNS, 12, 4))
    actions = run.numbers("actions", lambda: torch.randint(0, 3, (TURNS, 12)))
    rewards = run.data("rewards", lambda: torch.randn(TURNS, 12))
    following = run.data("following", lambda: torch.randn(TURNS, 12, 4))
    done = run.data("done", lambda: torch.rand(TURNS, 12) < 0.2)

    def network():
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    online, target = run.module(network()), network().to(run.dtype)
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.RMSprop(online.parameters(), lr=0.005, alpha=0.95, eps=1e-3)
    for step in range(STEPS):
        turn = step % TURNS
        with torch.no_grad():
            best = target(following[turn]).max(1).values
            wanted = rewards[turn] + 0.9 * (1 - done[turn]) * best
        chosen = online(states[turn]).gather(1, actions[turn][:, None]).squeeze(1)
        loss = F.smooth_l1_loss(chosen, wanted)
        optimizer.zero_grad()
        loss.backward()
        for p in online.parameters():
            p.grad.clamp_(-0.5, 0.5)
        optimizer.step()
        if step % TURNS == TURNS - 1:
            target.load_state_dict(online.state_dict())
        run.report(loss)


def flow(run):
    """A normalizing flow of two coupling layers: the exact likelihood of its data, halves exchanged in between."""
    x = run.data("x", lambda: torch.randn(TURNS, 16, 4) @ torch.randn(4, 4))
    layers = [run.module(nn.Sequential(nn.Linear(2, 12), nn.ELU(), nn.Linear(12, 4)), f"layer{i}.") for i in range(2)]
    optimizer = torch.optim.Adam(run.parameters.values(), lr=0.01)
    for step in range(STEPS):
        z, volume = x[step % TURNS], torch.zeros(16, dtype=run.dtype)
        for layer in layers:
            kept, changed = z.split(2, dim=1)
            scale, move = layer(kept).chunk(2, dim=1)
            scale = torch.tanh(scale)
            z = torch.cat([changed * scale.exp() + move, kept], dim=1)
            volume = volume + scale.sum(1)
        likelihood = torch.distributions.Normal(torch.zeros((), dtype=run.dtype), 1.0).log_prob(z).sum(1)
        loss = -(likelihood + volume).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(loss)


def graph_network(run):
    """Nodes of a graph send messages along its edges, which are added up where they arrive."""
    nodes, edges = 15, 40
    features = run.data("features", lambda: torch.randn(nodes, 6))
    source = run.numbers("source", lambda: torch.randint(0, nodes, (edges,)))
    target = run.numbers("target", lambda: torch.randint(0, nodes, (edges,)))
    labels = run.numbers("labels", lambda: torch.arange(nodes) % 3)
    known = run.numbers("known", lambda: torch.arange(0, nodes, 2))
    first, second = run.module(nn.Linear(12, 10), "first."), run.module(nn.Linear(20, 3), "second.")
    optimizer = torch.optim.Adagrad(run.parameters.values(), lr=0.1)
    degree = torch.zeros(nodes, dtype=run.dtype).index_add_(0, target, torch.ones(edges, dtype=run.dtype)).clamp(min=1)

    def layer(x, weights):
        messages = torch.zeros_like(x).index_add(0, target, x[source]) / degree[:, None]
        return weights(torch.cat([x, messages], dim=1))

    for _ in range(STEPS):
        optimizer.zero_grad()
        scores = layer(F.relu(layer(features, first)), second)
        loss = F.nll_loss(F.log_softmax(scores, dim=1)[known], labels[known])
        loss.backward()
        optimizer.step()
        run.report(loss)


def unet(run):
    """Noise is taken out of images: down, up by a transposed convolution, and across."""
    clean = run.data("clean", lambda: torch.sin(torch.arange(8.0) * torch.rand(TURNS, 4, 1, 8, 1) * 2 + torch.arange(8.0)[:, None]))
    noise = run.data("noise", lambda: torch.randn(TURNS, 4, 1, 8, 8) * 0.5)
    enter = run.module(nn.Conv2d(1, 4, 3, padding=1), "enter.")
    norm = run.module(nn.GroupNorm(2, 4), "norm.")
    deep = run.module(nn.Conv2d(4, 8, 3, padding=1), "deep.")
    rise = run.module(nn.ConvTranspose2d(8, 4, 2, stride=2), "rise.")
    leave = run.module(nn.Conv2d(8, 1, 3, padding=1), "leave.")
    optimizer = torch.optim.Adam(run.parameters.values(), lr=0.01, amsgrad=True)
    for step in range(STEPS):
        wanted = clean[step % TURNS]
        across = F.silu(norm(enter(wanted + noise[step % TURNS])))
        down = F.gelu(deep(F.avg_pool2d(across, 2)), approximate="tanh")
        out = leave(torch.cat([rise(down), across], dim=1))
        loss = F.huber_loss(out, wanted, delta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(loss)


PROGRAMS = [rnn, cnn, vae, wgan_gp, pinn, maml, gpt, gaussian_process, neural_ode, accumulation, dqn, flow, graph_network, unet]


def save(tensors, path):
    """In the format of safetensors: the header's length, the header as JSON, the bytes."""
    header, chunks, offset = {}, [], 0
    for name, tensor in sorted(tensors.items()):
        array = numpy.ascontiguousarray(tensor.detach().numpy())
        kind = {"float32": "F32", "float64": "F64", "int64": "I64"}[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + array.nbytes]}
        chunks.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def main():
    torch.set_num_threads(1)
    tensors = {}
    for program in PROGRAMS:
        name, known = program.__name__, {}
        runs = []
        for dtype in (torch.float64, torch.float32):
            run = Run(name, dtype, known)
            program(run)
            runs.append(run)
        exact, rounded = (numpy.array(run.losses) for run in runs)
        assert len(exact) == STEPS
        error = numpy.max(numpy.abs(rounded - exact) / numpy.abs(exact))
        print(f"{name:20} {exact[0]:9.5f} -> {exact[-1]:9.5f}, f32 within {error:.1e}")
        assert error < 2e-5, "rounding errors grow too much"
        tensors |= {f"{name}/{key}": value for key, value in known.items()}
        tensors[f"{name}/losses"] = torch.tensor(exact)
        tensors |= {f"{name}/after/{key}": value.detach() for key, value in runs[0].parameters.items()}
    path = pathlib.Path(__file__).with_name("record.safetensors")
    save(tensors, path)
    print(f"{len(tensors)} tensors, {path.stat().st_size} bytes")


main()
