"""A multi-layer perceptron with one output that gives the derivative by its inputs together with its value.

Renderer and loss of an SDF need ∇f. Computing it by hand in the forward pass costs as much as the value again; a
training step then needs a first-order backward pass only, not a backward pass through a backward pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Linearization(NamedTuple):
    """Value [n], its derivative by the inputs [n, inputs], and the last hidden layer [n, hidden]."""

    value: Tensor
    slope: Tensor
    hidden: Tensor


class ScalarMLP(nn.Module):
    """``n_layers`` hidden layers of width ``hidden`` and a linear one on top, from ``n_in`` numbers to one.

    Hidden layer ``skip`` (from 0) gets the input again, beside the activations and both over √2 (IDR, NeuS); the layer
    before it is narrower by as much. The activation is softplus with ``beta``; infinity makes it ReLU.
    ``weight_norm`` learns each row's length apart from its direction (Salimans & Kingma 2016).

    With ``sphere_radius`` the value starts near |x| − radius (SAL, Atzmon & Lipman 2020, theorem 1; IDR for the
    encoding); the point must be the first three inputs. Eight layers of 256 are off by 0.1 on average over [-1, 1]³, by
    0.4 at worst. ``inside_out`` turns the sign, for a room seen from inside. Without a radius the value starts near 0.
    """

    def __init__(
        self,
        n_in: int,
        hidden: int,
        n_layers: int,
        *,
        skip: int | None = None,
        beta: float = 100.0,
        weight_norm: bool = False,
        sphere_radius: float | None = None,
        inside_out: bool = False,
    ) -> None:
        super().__init__()
        if skip is not None and not (0 < skip < n_layers and n_in < hidden):
            raise ValueError(f"no hidden layer {skip} of {n_layers} can see {n_in} inputs beside {hidden} activations")
        self.skip, self.beta = skip, beta
        widths = [hidden - n_in if index + 1 == skip else hidden for index in range(n_layers)]
        self.layers = nn.ModuleList(nn.Linear(hidden if i else n_in, width) for i, width in enumerate(widths))
        self.output_layer = nn.Linear(hidden, 1)
        self._init_weights(n_in, sphere_radius, -1.0 if inside_out else 1.0)
        if weight_norm:
            for layer in (*self.layers, self.output_layer):
                parametrizations.weight_norm(layer)

    @torch.no_grad()
    def _init_weights(self, n_in: int, radius: float | None, sign: float) -> None:
        """Draw the weights: deviation √(2 / out) keeps |x| through ReLU layers, output mean √(π / in) gives |x|."""
        for index, layer in enumerate(self.layers):
            layer.weight.normal_(0.0, math.sqrt(2.0 / layer.out_features))
            layer.bias.zero_()
            if radius is not None and index in (0, self.skip):
                layer.weight[:, layer.in_features - n_in + 3 :] = 0.0
        if radius is None:
            self.output_layer.weight.normal_(0.0, 1e-3)
            self.output_layer.bias.zero_()
        else:
            self.output_layer.weight.normal_(sign * math.sqrt(math.pi / self.output_layer.in_features), 1e-4)
            self.output_layer.bias.fill_(-sign * radius)

    def forward(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n"]:
        """The value alone."""
        return self.output_layer(self.hidden(inputs))[:, 0]

    def hidden(self, inputs: Float[Tensor, "n inputs"]) -> Float[Tensor, "n hidden"]:
        """The last hidden layer."""
        out = inputs
        for index, layer in enumerate(self.layers):
            out = self._activation(layer(self._with_input(index, out, inputs)))
        return out

    def linearize(self, inputs: Float[Tensor, "n inputs"]) -> Linearization:
        """Value, slope and last hidden layer."""
        out, slopes = inputs, []
        for index, layer in enumerate(self.layers):
            before = layer(self._with_input(index, out, inputs))
            out = self._activation(before)
            slopes.append(self._slope(before))
        slope, around = self.output_layer.weight, None
        for index in reversed(range(len(self.layers))):
            slope = (slope * slopes[index]) @ self.layers[index].weight
            if index == self.skip:
                slope, around = (slope / math.sqrt(2.0)).split([slope.shape[1] - inputs.shape[1], inputs.shape[1]], 1)
        return Linearization(self.output_layer(out)[:, 0], slope if around is None else slope + around, out)

    def _with_input(self, index: int, out: Tensor, inputs: Tensor) -> Tensor:
        return torch.cat([out, inputs], dim=1) / math.sqrt(2.0) if index == self.skip else out

    def _activation(self, value: Tensor) -> Tensor:
        return functional.relu(value) if math.isinf(self.beta) else functional.softplus(value, beta=self.beta)

    def _slope(self, value: Tensor) -> Tensor:
        return (value > 0).to(value.dtype) if math.isinf(self.beta) else torch.sigmoid(self.beta * value)
