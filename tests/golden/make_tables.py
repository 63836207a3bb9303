# SPDX-License-Identifier: Apache-2.0
"""Writes t5_bias, adamw, mulaw and cross_entropy (.safetensors each): small tables from PyTorch, transformers, mpmath."""

import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import mpmath
import safetensors.torch
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

HERE = pathlib.Path(__file__).parent
F64 = torch.float64


def save(name, tensors):
    tensors = {key: t.detach().contiguous() for key, t in tensors.items()}
    safetensors.torch.save_file(tensors, str(HERE / f"{name}.safetensors"))
    print(name, {key: tuple(t.shape) for key, t in tensors.items()})


def t5_bias():
    """bucket (601): of the distances 0..600 from a query back to a key; 32 buckets for distances up to 128."""
    distance = torch.arange(601)
    bucket = T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=32, max_distance=128)
    for n, b in enumerate(bucket.tolist()):  # b - 16 = floor(16 log8(n / 16)), in whole numbers
        exact = n if n < 16 else min(31, 16 + max(k for k in range(64) if n**16 >= 16**16 * 8**k))
        assert b == exact, (n, b, exact)
    save("t5_bias", {"bucket": bucket})


def adamw():
    """Five steps of two vectors, with weight decay 0.1 and without; and a learning rate of warm-up and cosine.

    learning_rate (21): transformers' get_cosine_schedule_with_warmup, base 0.01, 4 warm-up steps of 20 in all:
    0.01 s / 4 for s < 4, else 0.01 (1 + cos(pi (s - 4) / 16)) / 2, for s = 0..20. The step t = 1..5 of the optimiser
    uses learning_rate[t].
    """
    generator = torch.Generator().manual_seed(20171114)
    decayed, plain = (torch.randn(n, generator=generator, dtype=F64).requires_grad_() for n in (7, 5))
    gradients = [[torch.randn(n, generator=generator, dtype=F64) * 10.0 ** (i - 2) for n in (7, 5)] for i in range(5)]
    tensors = {"decayed.0": decayed.clone(), "plain.0": plain.clone()}
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    schedule = transformers.get_cosine_schedule_with_warmup(optimiser, num_warmup_steps=4, num_training_steps=20)
    rates = [0.01 * schedule.lr_lambdas[0](s) for s in range(21)]
    for t in range(1, 6):
        for parameter, gradient in zip((decayed, plain), gradients[t - 1]):
            parameter.grad = gradient.clone()
        for group in optimiser.param_groups:
            group["lr"] = rates[t]
        optimiser.step()
        for name, parameter, gradient in zip(("decayed", "plain"), (decayed, plain), gradients[t - 1]):
            tensors[f"{name}.grad.{t}"] = gradient
            tensors[f"{name}.{t}"] = parameter.clone()
    tensors["learning_rate"] = torch.tensor(rates, dtype=F64)
    norm = torch.nn.utils.clip_grad_norm_([decayed, plain], 1.0)
    tensors["clip.norm"] = norm.reshape(1)  # of the gradients of step 5
    tensors["clip.decayed"], tensors["clip.plain"] = decayed.grad, plain.grad  # scaled to norm 1 (1e-6 in the divisor)
    save("adamw", tensors)


def mulaw():
    """Mu-law of 8 bits as in SaShiMi, evaluated exactly (40 digits) for every 16-bit sample.

    code (65536): of x = i / 32768, i = -32768..32767: floor(e * 255.99 + 0.005), e = (1 + sign(x) ln(1 + 255 |x|) /
    ln 256) / 2, without the per-clip scaling; x = 0 gives exactly 128. decoded (256): sign(c) (256^|c| - 1) / 255 with
    c = code / 128 - 1.
    """
    mpmath.mp.dps = 40
    scale, shift = mpmath.mpf("255.99"), mpmath.mpf("0.005")
    codes, nearest = [], mpmath.mpf(1)
    for i in range(-32768, 32768):
        sign = (i > 0) - (i < 0)
        e = (1 + sign * mpmath.log(1 + mpmath.mpf(255) * abs(i) / 32768) / mpmath.log(256)) / 2
        value = e * scale + shift
        code = 128 if i == 0 else int(mpmath.floor(value))  # e = 1/2 is exactly on the edge of 128
        codes.append(code)
        if abs(i) not in (0, 32768):
            nearest = min(nearest, abs(value - mpmath.nint(value)))
    assert min(codes) == 0 and max(codes) == 255 and codes == sorted(codes)
    decoded = []
    for code in range(256):
        c = mpmath.mpf(code) / 128 - 1
        decoded.append(float(mpmath.sign(c) * (mpmath.mpf(256) ** abs(c) - 1) / 255))
    print(f"mulaw: nearest distance of a sample to an edge between codes {float(nearest):.1e}")
    save("mulaw", {"code": torch.tensor(codes, dtype=torch.uint8), "decoded": torch.tensor(decoded, dtype=F64)})


def cross_entropy():
    """12 rows over 7 classes; target -1 is ignored; loss.S and dlogits.S for label smoothing S = 0 and 0.1."""
    generator = torch.Generator().manual_seed(20151202)
    logits = (3 * torch.randn(12, 7, generator=generator, dtype=F64)).requires_grad_()
    with torch.no_grad():
        logits[3] += 700  # overflows without the usual subtraction of the maximum
        logits[8] -= 700
    targets = torch.tensor([0, 6, -1, 3, 2, 2, -1, 5, 1, 4, 0, 6])
    dloss = torch.randn(12, generator=generator, dtype=F64)
    tensors = {"logits": logits.detach().clone(), "targets": targets, "dloss": dloss,
               "log_sum_exp": torch.logsumexp(logits, 1)}
    for name, smoothing in (("0", 0.0), ("0.1", 0.1)):
        loss = torch.nn.functional.cross_entropy(
            logits, targets, ignore_index=-1, reduction="none", label_smoothing=smoothing)
        (tensors[f"dlogits.{name}"],) = torch.autograd.grad((loss * dloss).sum(), logits)
        tensors[f"loss.{name}"] = loss
    save("cross_entropy", tensors)


t5_bias()
adamw()
mulaw()
cross_entropy()
