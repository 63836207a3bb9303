# SPDX-License-Identifier: Apache-2.0
"""Writes s4d_small.safetensors: an S4D layer (zero-order hold) as a convolution by FFT, and HiPPO-LegS eigenvalues.

  lambda = -exp(log_real) + i imaginary;  dt = exp(log_dt);  Cbar = C * B * (exp(dt lambda) - 1) / lambda
  kernel[d, l] = 2 Re sum_p Cbar[d, p] exp(dt[d] lambda[d, p] l);   y = kernel * x + D x   (causal convolution)

B and C are stored as (re, im) in the last axis. Everything is float64; the scalar whose gradients are stored is
sum(y * dy), and a complex gradient is (d/dre, d/dim). A recurrence in NumPy must agree with the convolution.
legs_N are the eigenvalues (N/2, (re, im), imaginary part > 0, ascending) of the normal part of HiPPO-LegS, that is of
A + P P^T with P_n = sqrt(n + 1/2): the numbers that start S4D-LegS.
"""

import os
import pathlib

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
BATCH, LENGTH, WIDTH, PAIRS = 2, 50, 6, 4


def legs_eigenvalues(n):
    i = np.arange(n, dtype=np.float64)
    a = -np.sqrt(np.outer(2 * i + 1, 2 * i + 1))
    a = np.tril(a, -1) - np.diag(i + 1)
    p = np.sqrt(i + 0.5)
    normal = a + np.outer(p, p)
    skew = (normal - normal.T) / 2
    assert np.abs(normal - skew + 0.5 * np.eye(n)).max() < 1e-11 * n
    frequency = np.linalg.eigvalsh(-1j * skew)
    frequency = np.sort(frequency[frequency > 0])
    assert frequency.size == n // 2
    return torch.from_numpy(np.stack([np.full_like(frequency, -0.5), frequency], -1))


def recurrence(x, a, c, skip):
    h, y = np.zeros((BATCH,) + a.shape, np.complex128), np.zeros_like(x)
    for t in range(LENGTH):
        h = a * h + x[:, t, :, None]
        y[:, t] = (c * h).sum(-1).real + skip * x[:, t]
    return y


def main():
    generator = torch.Generator().manual_seed(20220623)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parameters = {
        "log_dt": torch.log(torch.tensor([0.004, 0.01, 0.03, 0.06, 0.1, 0.25], dtype=torch.float64)),
        "log_real": np.log(0.5) + 0.4 * normal(WIDTH, PAIRS),
        "imaginary": np.pi * torch.arange(PAIRS, dtype=torch.float64) + 0.3 * normal(WIDTH, PAIRS),
        "B": torch.tensor([1.0, 0.0], dtype=torch.float64) + 0.2 * normal(WIDTH, PAIRS, 2),
        "C": normal(WIDTH, PAIRS, 2),
        "D": normal(WIDTH),
    }
    x, dy = normal(BATCH, LENGTH, WIDTH), normal(BATCH, LENGTH, WIDTH)
    for tensor in (x, *parameters.values()):
        tensor.requires_grad_()

    lam = torch.complex(-torch.exp(parameters["log_real"]), parameters["imaginary"])
    dt = torch.exp(parameters["log_dt"])[:, None]
    step = torch.exp(dt * lam)
    c = 2 * torch.view_as_complex(parameters["C"]) * torch.view_as_complex(parameters["B"]) * (step - 1) / lam
    powers = torch.exp((dt * lam)[..., None] * torch.arange(LENGTH, dtype=torch.float64))
    kernel = torch.einsum("dp,dpl->ld", c, powers).real
    spectrum = torch.fft.rfft(kernel, 2 * LENGTH, dim=0) * torch.fft.rfft(x, 2 * LENGTH, dim=1)
    y = torch.fft.irfft(spectrum, 2 * LENGTH, dim=1)[:, :LENGTH] + parameters["D"] * x
    (y * dy).sum().backward()

    expected = recurrence(x.detach().numpy(), step.detach().numpy(), c.detach().numpy(), parameters["D"].detach().numpy())
    error = np.abs(expected - y.detach().numpy()).max()
    assert error < 1e-12, f"convolution and recurrence differ by {error}"

    tensors = {"x": x, "dy": dy, "y": y, "kernel": kernel, "a": torch.view_as_real(step), "c": torch.view_as_real(c),
               "grad.x": x.grad, **parameters, **{f"grad.{name}": p.grad for name, p in parameters.items()}}
    tensors.update({f"legs_{n}": legs_eigenvalues(n) for n in (4, 8, 16, 64)})
    tensors = {name: t.detach().contiguous() for name, t in tensors.items()}
    assert all(t.isfinite().all() for t in tensors.values())
    safetensors.torch.save_file(tensors, str(HERE / "s4d_small.safetensors"))
    print(f"s4d_small: convolution against recurrence {error:.1e}; largest LegS frequency at N = 64: "
          f"{tensors['legs_64'][-1, 1].item():.6f}")


main()
