"""The networks of `models/` in PyTorch, for the benchmark alone; torch is imported only on use."""

import importlib
import os
from typing import Any

from lab.engines.fit import batch_order


def train(benchmark, x, y, epochs: int, gate, rate: float, momentum: float) -> None:
    """Train as a PyTorch tutorial does: eager, batches by index from tensors in memory.

    Args:
        benchmark: A `lab.bench.cases.Benchmark`.
        x: Examples, channels last.
        y: Labels.
        epochs: How many epochs.
        gate: A `lab.bench.ways.Gate`.
        rate: Learning rate of SGD.
        momentum: Its momentum.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    network = NETWORKS[benchmark.model](torch.nn, benchmark)
    if x.ndim == 4:  # PyTorch's own layout
        x = x.transpose(0, 3, 1, 2).copy()
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y.astype("int64"))
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)
    loss_of = torch.nn.CrossEntropyLoss()
    network.train()
    for epoch in range(epochs):
        gate.begin()
        order = torch.from_numpy(batch_order(0, epoch, len(y)))
        # Summed as tensors: `.item()` in every step would wait for each.
        losses, right = torch.zeros(()), torch.zeros(())
        for batch in order.view(benchmark.steps, -1):
            logits = network(inputs[batch])
            loss = loss_of(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.detach()
            right += (logits.argmax(1) == labels[batch]).float().mean()
        gate.end(losses.item() / benchmark.steps, right.item() / benchmark.steps)


def mlp(nn, benchmark):
    """`models.mlp` without normalization."""
    layers: list = []
    before = benchmark.shape[0]
    for width in benchmark.options.get("widths", (128, 128)):
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 10))


def _convolution(nn, before: int, channels: int, stride: int = 1) -> list:
    convolution = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


def convnet(nn, benchmark):
    """`models.convnet` with batch normalization."""
    side, before = benchmark.shape[0], benchmark.shape[-1]
    layers: list = []
    for stage, width in enumerate((16, 32, 64)):
        if stage > 0 and side >= 4:
            layers, side = [*layers, nn.MaxPool2d(2)], side // 2
        for _ in range(2):
            layers += [*_convolution(nn, before, width), nn.ReLU()]
            before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def resnet(nn: Any, benchmark):
    """`models.resnet` of depth 20 with batch normalization and shortcuts without parameters."""
    functional: Any = importlib.import_module("torch.nn.functional")

    class Block(nn.Module):
        def __init__(self, before, channels):
            super().__init__()
            self.new = channels - before
            first = _convolution(nn, before, channels, 2 if self.new else 1)
            self.inner = nn.Sequential(*first, nn.ReLU(), *_convolution(nn, channels, channels))

        def forward(self, x):
            shortcut = x
            if self.new:
                shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new))
            return functional.relu(shortcut + self.inner(x))

    layers = [*_convolution(nn, benchmark.shape[-1], 16), nn.ReLU()]
    before = 16
    for channels in (16, 32, 64):
        for _ in range(3):
            layers.append(Block(before, channels))
            before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


NETWORKS = {"mlp": mlp, "convnet": convnet, "resnet": resnet}
