# SPDX-License-Identifier: Apache-2.0
"""The peer of bench_training: one training step of transformers' MambaForCausalLM on the CPU, same size, same batch.

    pip install torch transformers      (PyPI; a development oracle, the product does not need it)
    python bench/peers/torch_mamba_step.py --threads 1
"""
import argparse
import statistics
import time

import torch
from transformers import MambaConfig, MambaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--d-model", type=int, default=64)
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--length", type=int, default=1024)
parser.add_argument("--vocabulary", type=int, default=16)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--mambapy", action="store_true", help="the parallel scan of mamba.py instead of the time loop")
options = parser.parse_args()

torch.set_num_threads(options.threads)
torch.manual_seed(0)
config = MambaConfig(vocab_size=options.vocabulary, hidden_size=options.d_model, num_hidden_layers=options.layers,
                     state_size=16, conv_kernel=4, expand=2, use_bias=False, use_cache=False,
                     use_mambapy=options.mambapy, tie_word_embeddings=True)
model = MambaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
ids = torch.randint(0, options.vocabulary, (options.batch, options.length))

times = []
for step in range(options.steps + 1):  # one step to warm up
    begin = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step > 0:
        times.append(time.perf_counter() - begin)
median = statistics.median(times)
count = sum(p.numel() for p in model.parameters())
print(f"torch {torch.__version__}, {count} parameters, {options.threads} thread(s): median of {options.steps} steps "
      f"{1e3 * median:.0f} ms, {options.batch * options.length / median:.0f} tokens/s")
