"""The training step of the official NeuS code, rebuilt in plain PyTorch: what our step is compared with.

512 rays, 64 + 4 × 16 samples, 32 outside, SDF network 8 × 256 with frequencies 6, colour network 4 × 256, background
8 × 256 with frequencies 10, ∇f by autograd and a backward pass through that, Adam (Wang et al. 2021, womask.conf).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from quoin.fields.encoding.fourier import FrequencyEncoding
from quoin.fields.field.mlp import ScalarMLP
from quoin.fields.rays import RaySegments
from quoin.fields.renderer.neus import neus_alpha
from quoin.fields.renderer.renderer import alpha_from_density, weights_from_alpha
from quoin.fields.sampler.importance import neus_upsample
from quoin.fields.sampler.sections import sections_between, stratified_samples

NEUS_RAYS = 512


class NeusStep:
    """One step on random rays towards the unit sphere; colours are random, the work is what counts."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.encoding, self.view_encoding = FrequencyEncoding(6).to(device), FrequencyEncoding(4).to(device)
        self.sdf = ScalarMLP(self.encoding.width, 256, 8, skip=4, weight_norm=True, sphere_radius=0.5).to(device)
        self.feature = nn.Linear(256, 256).to(device)
        self.colour = build_mlp(3 + self.view_encoding.width + 3 + 256, 256, 4, 3).to(device)
        self.background_encoding = FrequencyEncoding4d(10).to(device)
        self.background = build_mlp(4 + 4 * 20, 256, 8, 256).to(device)
        self.density, self.background_color = (
            nn.Linear(256, 1).to(device),
            build_mlp(256 + self.view_encoding.width, 128, 1, 3).to(device),
        )
        self.log_sharpness = nn.Parameter(torch.tensor(0.3, device=device))
        parts = (self.sdf, self.feature, self.colour, self.background, self.density, self.background_color)
        parameters = [p for part in parts for p in part.parameters()]
        self.optimizer = torch.optim.Adam([*parameters, self.log_sharpness], lr=5e-4)

    def __call__(self) -> float:
        origins = functional.normalize(torch.randn(NEUS_RAYS, 3, device=self.device), dim=1) * 2.5
        directions = functional.normalize(0.4 * torch.randn(NEUS_RAYS, 3, device=self.device) - origins, dim=1)
        middle = -(origins * directions).sum(dim=1)
        near, far = middle - 1.0, middle + 1.0
        rays = RaySegments(origins, directions, near, far, torch.ones_like(near, dtype=torch.bool))
        uniform_edges, _ = stratified_samples(near, far, torch.rand(NEUS_RAYS, 1, device=self.device).expand(-1, 64))
        edges = neus_upsample(lambda x: self.sdf(self.encoding(x)), rays, uniform_edges)
        distance, length = sections_between(edges)
        points = rays.points(distance).reshape(-1, 3).requires_grad_()
        ray_directions = directions[:, None].expand(-1, distance.shape[1], -1).reshape(-1, 3)
        hidden = self.sdf.hidden(self.encoding(points))
        sdf = self.sdf.output_layer(hidden)[:, 0]
        gradient = torch.autograd.grad(sdf.sum(), points, create_graph=True)[0]
        color_input = torch.cat([points, self.view_encoding(ray_directions), gradient, self.feature(hidden)], dim=1)
        colour = torch.sigmoid(self.colour(color_input)).view(*distance.shape, 3)
        cosine = (gradient * ray_directions).sum(dim=1).view(distance.shape)
        inv_s = torch.exp(10.0 * self.log_sharpness)
        alpha = neus_alpha(sdf.view(distance.shape), cosine, length, inv_s, torch.ones_like(inv_s))

        background_t = far[:, None] / torch.linspace(1.0 - 1.0 / 33.0, 1e-3, 32, device=self.device)
        background_points = rays.points(background_t).reshape(-1, 3)
        radius = background_points.norm(dim=1, keepdim=True)
        trunk = self.background(self.background_encoding(torch.cat([background_points / radius, 1.0 / radius], dim=1)))
        density = functional.softplus(self.density(trunk)).view(NEUS_RAYS, 32)
        gap = functional.pad(background_t.diff(dim=1), (0, 1), value=1.0)
        view_encoding = self.view_encoding(directions[:, None].expand(-1, 32, -1).reshape(-1, 3))
        background_color = torch.sigmoid(self.background_color(torch.cat([trunk, view_encoding], dim=1))).view(
            NEUS_RAYS, 32, 3
        )
        weight = weights_from_alpha(torch.cat([alpha, alpha_from_density(density, gap)], dim=1))
        rendered = (weight[..., None] * torch.cat([colour, background_color], dim=1)).sum(dim=1)
        loss = (rendered - torch.rand_like(rendered)).abs().sum(dim=1).mean()
        loss = loss + 0.1 * ((gradient.norm(dim=1) - 1.0) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class FrequencyEncoding4d(nn.Module):
    """Frequency encoding of (x/|x|, 1/|x|), with the four numbers themselves (NeRF++)."""

    def __init__(self, n_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp2(torch.arange(n_frequencies).float()))

    def forward(self, x: Tensor) -> Tensor:
        angle = (x[:, None] * self.frequencies[:, None]).flatten(1)
        return torch.cat([x, angle.sin(), angle.cos()], dim=1)


def build_mlp(n_in: int, width: int, layers: int, n_out: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    widths = [n_in, *[width] * layers]
    parts: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        parts += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, n_out))
