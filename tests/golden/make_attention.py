# SPDX-License-Identifier: Apache-2.0
"""Writes attention_small.safetensors: one pre-norm decoder block in plain PyTorch, everything in float64.

  x1 = x  + o(window_attention(rotary(q(n1(x))), rotary(k(n1(x))), v(n1(x))))
  x2 = x1 + down(silu(gate(n2(x1))) * value(n2(x1)))
  y  = n3(x2)

n are RMSNorms with epsilon 1e-5; a query at i sees the keys j with i - 8 < j <= i; scores are scaled by 1/sqrt(P);
rotary pairs p with p + P/2 and turns by position * 10000^(-2p/P). No linear map has a bias. Weights are (out, in).
The scalar whose gradients are stored is sum(y * dy). The masks and rotations are written as explicit loops over
positions; torch.nn.functional.scaled_dot_product_attention is only asked to agree.
"""

import os
import pathlib

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import safetensors.torch
import torch
from torch.nn import functional

HERE = pathlib.Path(__file__).parent
B, L, D, H, P, WINDOW, HIDDEN = 2, 29, 24, 3, 8, 8, 40
EPSILON, BASE = 1e-5, 10000.0


def rms_norm(x, weight):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPSILON)


def rotary(x):
    """x (B, L, H, P)"""
    rows = []
    for position in range(x.shape[1]):
        out = [None] * P
        for p in range(P // 2):
            angle = torch.tensor(position * BASE ** (-2.0 * p / P), dtype=torch.float64)
            first, second = x[:, position, :, p], x[:, position, :, p + P // 2]
            out[p] = first * torch.cos(angle) - second * torch.sin(angle)
            out[p + P // 2] = first * torch.sin(angle) + second * torch.cos(angle)
        rows.append(torch.stack(out, -1))
    return torch.stack(rows, 1)


def window_attention(q, k, v):
    rows = []
    for i in range(L):
        begin = max(0, i - WINDOW + 1)
        scores = torch.einsum("bhp,bjhp->bhj", q[:, i], k[:, begin : i + 1]) / P**0.5
        rows.append(torch.einsum("bhj,bjhp->bhp", torch.softmax(scores, -1), v[:, begin : i + 1]))
    return torch.stack(rows, 1)


def main():
    generator = torch.Generator().manual_seed(20170612)

    def normal(*shape, std=1.0, mean=0.0):
        return mean + std * torch.randn(shape, generator=generator, dtype=torch.float64)

    weights = {
        "norm1.weight": normal(D, std=0.3, mean=1.0),
        "q.weight": normal(H * P, D, std=1.5 * D**-0.5),
        "k.weight": normal(H * P, D, std=1.5 * D**-0.5),
        "v.weight": normal(H * P, D, std=D**-0.5),
        "o.weight": normal(D, H * P, std=(H * P) ** -0.5),
        "norm2.weight": normal(D, std=0.3, mean=1.0),
        "gate.weight": normal(HIDDEN, D, std=D**-0.5),
        "value.weight": normal(HIDDEN, D, std=D**-0.5),
        "down.weight": normal(D, HIDDEN, std=HIDDEN**-0.5),
        "norm3.weight": normal(D, std=0.3, mean=1.0),
    }
    x, dy = normal(B, L, D), normal(B, L, D)
    for tensor in (x, *weights.values()):
        tensor.requires_grad_()

    n1 = rms_norm(x, weights["norm1.weight"])
    q, k, v = (functional.linear(n1, weights[f"{name}.weight"]).view(B, L, H, P) for name in "qkv")
    q_turned, k_turned = rotary(q), rotary(k)
    attended = window_attention(q_turned, k_turned, v)
    x1 = x + functional.linear(attended.reshape(B, L, H * P), weights["o.weight"])
    n2 = rms_norm(x1, weights["norm2.weight"])
    gated = functional.silu(functional.linear(n2, weights["gate.weight"])) * functional.linear(
        n2, weights["value.weight"])
    x2 = x1 + functional.linear(gated, weights["down.weight"])
    y = rms_norm(x2, weights["norm3.weight"])
    (y * dy).sum().backward()

    distance = torch.arange(L)[:, None] - torch.arange(L)[None, :]
    visible = (distance >= 0) & (distance < WINDOW)
    fused = functional.scaled_dot_product_attention(
        q_turned.transpose(1, 2), k_turned.transpose(1, 2), v.transpose(1, 2), attn_mask=visible).transpose(1, 2)
    error = (fused - attended).abs().max().item()
    assert error < 1e-13, f"the loop and PyTorch's attention differ by {error}"

    tensors = {"x": x, "dy": dy, "q_rotated": q_turned, "k_rotated": k_turned, "v": v, "attended": attended, "y": y,
               "grad.x": x.grad, **weights, **{f"grad.{name}": w.grad for name, w in weights.items()}}
    tensors = {name: t.detach().contiguous() for name, t in tensors.items()}
    assert all(t.isfinite().all() for t in tensors.values())
    safetensors.torch.save_file(tensors, str(HERE / "attention_small.safetensors"))
    print(f"attention_small: loop against scaled_dot_product_attention {error:.1e}")


main()
