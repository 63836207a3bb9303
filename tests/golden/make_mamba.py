# SPDX-License-Identifier: Apache-2.0
"""Writes mamba_small.safetensors and mamba_small.json: a small Mamba by transformers' MambaForCausalLM.

The weights are random float32 numbers. Logits, loss and gradients are computed from them in float64: transformers
casts to float32 in places, so those casts are turned into casts to float64 for the run. Before anything is written
the logits are compared with a plain NumPy forward pass below, and every gradient with a central difference.
"""

import contextlib
import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
BATCH, LENGTH = 2, 37


@contextlib.contextmanager
def float32_casts_become_float64():
    to, to_float = torch.Tensor.to, torch.Tensor.float

    def swap(value):
        return torch.float64 if value is torch.float32 else value

    torch.Tensor.to = lambda self, *a, **k: to(self, *map(swap, a), **{key: swap(v) for key, v in k.items()})
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = to, to_float


def randomise(model, generator):
    """Random but non-trivial values, so that no term of the model is near 0, 1 or equal to its neighbour."""

    def normal(p, std, mean=0.0):
        p.copy_(mean + std * torch.randn(p.shape, generator=generator))

    def uniform(p, low, high):
        p.copy_(low + (high - low) * torch.rand(p.shape, generator=generator))

    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("A_log"):
                uniform(p, -1.5, 1.5)  # A in -0.22 .. -4.5: with dt below, memories of a few to some hundred steps
            elif name.endswith("dt_proj.bias"):
                uniform(p, -4.0, 0.5)  # dt in 0.018 .. 0.97
            elif name.endswith("mixer.D"):
                normal(p, 0.5, 0.7)
            elif name.endswith(("norm.weight", "norm_f.weight")):
                normal(p, 0.3, 1.0)
            elif name.endswith("bias"):
                normal(p, 0.3)
            elif name.endswith("conv1d.weight"):
                normal(p, 0.5)
            elif name.endswith("embeddings.weight"):
                normal(p, 0.25)  # logits of a few units, so that the softmax is not saturated
            else:
                normal(p, 1.0 / p.shape[1] ** 0.5)


def numpy_logits(w, ids, config):
    """The same model once more, one time step after the other."""

    def silu(x):
        return x / (1 + np.exp(-x))

    def norm(x, weight):
        return weight * x / np.sqrt((x * x).mean(-1, keepdims=True) + config.layer_norm_epsilon)

    n, rank, taps = config.state_size, config.time_step_rank, config.conv_kernel
    inner = config.hidden_size * config.expand
    x = w["backbone.embeddings.weight"][ids]
    for layer in range(config.num_hidden_layers):
        p = {k.split(f"layers.{layer}.")[1]: v for k, v in w.items() if f"layers.{layer}." in k}
        both = norm(x, p["norm.weight"]) @ p["mixer.in_proj.weight"].T
        v, z = both[..., :inner], both[..., inner:]
        padded = np.concatenate([np.zeros((BATCH, taps - 1, inner)), v], 1)
        conv = sum(padded[:, k : k + LENGTH] * p["mixer.conv1d.weight"][:, 0, k] for k in range(taps))
        u = silu(conv + p["mixer.conv1d.bias"])
        parts = u @ p["mixer.x_proj.weight"].T
        dt = np.log1p(np.exp(parts[..., :rank] @ p["mixer.dt_proj.weight"].T + p["mixer.dt_proj.bias"]))
        b, c = parts[..., rank : rank + n], parts[..., rank + n :]
        a = -np.exp(p["mixer.A_log"])
        h, y = np.zeros((BATCH, inner, n)), np.zeros_like(u)
        for t in range(LENGTH):
            h = np.exp(dt[:, t, :, None] * a) * h + (dt[:, t] * u[:, t])[..., None] * b[:, t, None, :]
            y[:, t] = (h * c[:, t, None, :]).sum(-1) + p["mixer.D"] * u[:, t]
        x = x + (y * silu(z)) @ p["mixer.out_proj.weight"].T
    return norm(x, w["backbone.norm_f.weight"]) @ w["backbone.embeddings.weight"].T


def check(model, ids, logits, loss, gradients, config):
    weights = {k: v.detach().numpy() for k, v in model.named_parameters()}
    error = np.abs(numpy_logits(weights, ids.numpy(), config) - logits.numpy()).max()
    assert error < 1e-12, f"transformers and NumPy differ by {error}"
    picker = np.random.default_rng(3)
    worst = 0.0
    for name, p in model.named_parameters():
        flat = p.detach().view(-1)
        for i in picker.integers(0, flat.numel(), 3):
            kept, step, at = flat[i].item(), 1e-5, []
            for sign in (1, -1):
                flat[i] = kept + sign * step
                with torch.no_grad(), float32_casts_become_float64():
                    at.append(model(ids, labels=ids).loss.item())
            flat[i] = kept
            worst = max(worst, abs((at[0] - at[1]) / (2 * step) - gradients[name].view(-1)[i].item()))
    assert worst < 1e-8, f"a gradient differs from its central difference by {worst}"
    print(f"loss {loss.item():.12f}; against NumPy {error:.1e}, against central differences {worst:.1e}")
    return float(error), float(worst)


def main():
    generator = torch.Generator().manual_seed(20231201)
    config = transformers.MambaConfig(
        vocab_size=16, hidden_size=32, state_size=8, num_hidden_layers=2, conv_kernel=4, expand=2, time_step_rank=2,
        use_bias=False, use_conv_bias=True, tie_word_embeddings=True, layer_norm_epsilon=1e-5, use_cache=False,
        pad_token_id=0, bos_token_id=0, eos_token_id=0)
    model = transformers.MambaForCausalLM(config)
    randomise(model, generator)
    model = model.double().eval()
    stored = {k: v.detach().to(torch.float32).contiguous() for k, v in model.named_parameters()}
    assert all(torch.equal(stored[k].double(), v) for k, v in model.named_parameters())
    ids = torch.randint(0, config.vocab_size, (BATCH, LENGTH), generator=generator)
    with float32_casts_become_float64():
        result = model(ids, labels=ids)
        result.loss.backward()
    logits, loss = result.logits.detach(), result.loss.detach()
    assert logits.dtype == loss.dtype == torch.float64
    gradients = {k: v.grad.clone() for k, v in model.named_parameters()}
    against_numpy, against_differences = check(model, ids, logits, loss, gradients, config)

    tensors = dict(stored, input_ids=ids, logits=logits, loss=loss)
    tensors.update({f"grad.{k}": v for k, v in gradients.items()})
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    safetensors.torch.save_file(tensors, str(HERE / "mamba_small.safetensors"), metadata={"format": "pt"})
    keys = ("model_type vocab_size hidden_size intermediate_size state_size num_hidden_layers conv_kernel expand "
            "time_step_rank use_bias use_conv_bias tie_word_embeddings layer_norm_epsilon hidden_act").split()
    described = {
        "config": {k: getattr(config, k) for k in keys},
        "loss": loss.item(),
        "largest_difference": {"logits_from_numpy": against_numpy, "gradients_from_central": against_differences},
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__,
                     "transformers": transformers.__version__, "safetensors": safetensors.__version__},
    }
    (HERE / "mamba_small.json").write_text(json.dumps(described, indent=2) + "\n")


main()
