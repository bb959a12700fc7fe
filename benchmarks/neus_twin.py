"""The training step of the official NeuS code, rebuilt in plain PyTorch: what our step is compared with.

512 rays, 64 + 4 × 16 samples, 32 outside, SDF network 8 × 256 with frequencies 6, colour network 4 × 256, background
8 × 256 with frequencies 10, ∇f by autograd and a backward pass through that, Adam (Wang et al. 2021, womask.conf).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from quoin.fields.encoding.frequency import Frequency
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.renderer.neus import neus_alpha
from quoin.fields.renderer.volume import density_alpha, weights
from quoin.fields.sampler.importance import neus_upsample
from quoin.fields.sampler.sections import points_along, sections_between
from quoin.fields.sampler.stratified import stratified

RAYS = 512


class NeusStep:
    """One step on random rays towards the unit sphere; colours are random, the work is what counts."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.encoding, self.look = Frequency(6).to(device), Frequency(4).to(device)
        self.sdf = ScalarMLP(self.encoding.width, 256, 8, skip=4, weight_norm=True, sphere=0.5).to(device)
        self.feature = nn.Linear(256, 256).to(device)
        self.colour = mlp(3 + self.look.width + 3 + 256, 256, 4, 3).to(device)
        self.around = FrequencyOfFour(10).to(device)
        self.outside = mlp(4 + 4 * 20, 256, 8, 256).to(device)
        self.density, self.far_colour = nn.Linear(256, 1).to(device), mlp(256 + self.look.width, 128, 1, 3).to(device)
        self.log_sharpness = nn.Parameter(torch.tensor(0.3, device=device))
        parts = (self.sdf, self.feature, self.colour, self.outside, self.density, self.far_colour)
        parameters = [p for part in parts for p in part.parameters()]
        self.optimiser = torch.optim.Adam([*parameters, self.log_sharpness], lr=5e-4)

    def __call__(self) -> float:
        origins = functional.normalize(torch.randn(RAYS, 3, device=self.device), dim=1) * 2.5
        directions = functional.normalize(0.4 * torch.randn(RAYS, 3, device=self.device) - origins, dim=1)
        middle = -(origins * directions).sum(dim=1)
        near, far = middle - 1.0, middle + 1.0
        even, _ = stratified(near, far, torch.rand(RAYS, 1, device=self.device).expand(-1, 64))
        edges = neus_upsample(lambda x: self.sdf(self.encoding(x)), origins, directions, even)
        distance, length = sections_between(edges)
        points = points_along(origins, directions, distance).reshape(-1, 3).requires_grad_()
        spread = directions[:, None].expand(-1, distance.shape[1], -1).reshape(-1, 3)
        hidden = self.sdf.hidden(self.encoding(points))
        sdf = self.sdf.last(hidden)[:, 0]
        gradient = torch.autograd.grad(sdf.sum(), points, create_graph=True)[0]
        shade = torch.cat([points, self.look(spread), gradient, self.feature(hidden)], dim=1)
        colour = torch.sigmoid(self.colour(shade)).view(*distance.shape, 3)
        cosine = (gradient * spread).sum(dim=1).view(distance.shape)
        sharpness = torch.exp(10.0 * self.log_sharpness)
        alpha = neus_alpha(sdf.view(distance.shape), cosine, length, sharpness, torch.ones_like(sharpness))

        behind = far[:, None] / torch.linspace(1.0 - 1.0 / 33.0, 1e-3, 32, device=self.device)
        beyond = points_along(origins, directions, behind).reshape(-1, 3)
        radius = beyond.norm(dim=1, keepdim=True)
        trunk = self.outside(self.around(torch.cat([beyond / radius, 1.0 / radius], dim=1)))
        density = functional.softplus(self.density(trunk)).view(RAYS, 32)
        gap = functional.pad(behind.diff(dim=1), (0, 1), value=1.0)
        look = self.look(directions[:, None].expand(-1, 32, -1).reshape(-1, 3))
        far_colour = torch.sigmoid(self.far_colour(torch.cat([trunk, look], dim=1))).view(RAYS, 32, 3)
        weight = weights(torch.cat([alpha, density_alpha(density, gap)], dim=1))
        rendered = (weight[..., None] * torch.cat([colour, far_colour], dim=1)).sum(dim=1)
        loss = (rendered - torch.rand_like(rendered)).abs().sum(dim=1).mean()
        loss = loss + 0.1 * ((gradient.norm(dim=1) - 1.0) ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())


class FrequencyOfFour(nn.Module):
    """Frequency encoding of (x/|x|, 1/|x|), with the four numbers themselves (NeRF++)."""

    def __init__(self, n_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp2(torch.arange(n_frequencies).float()))

    def forward(self, x: Tensor) -> Tensor:
        angle = (x[:, None] * self.frequencies[:, None]).flatten(1)
        return torch.cat([x, angle.sin(), angle.cos()], dim=1)


def mlp(n_in: int, width: int, layers: int, n_out: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    widths = [n_in, *[width] * layers]
    parts: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        parts += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, n_out))
