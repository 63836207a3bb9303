#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Mistakes in a run file and on the command line: one sentence that names the key, what was wanted and what was found.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio

# no TEXT... -- [KEY=VALUE]...: training with these overrides is refused, and leaves no directory behind.
no() {
  local texts=() sets=()
  while [[ $1 != -- ]]; do
    texts+=("$1")
    shift
  done
  shift
  for pair in "$@"; do
    sets+=(--set "$pair")
  done
  refuses "${texts[@]}" -- train -c audio.toml --set run.dir=bad "${sets[@]}"
  absent bad
}

no 'unknown key model.d_modle' 'did you mean model.d_model?' -- model.d_modle=8
no 'unknown key train.stpes' 'did you mean train.steps?' -- train.stpes=8
no 'model.d_model must be an integer' 'found the string "wide"' -- model.d_model=wide
no 'threads must be an integer' -- threads=all
no 'train.batch must be at least 1, found 0' -- train.batch=0
no 'train.lr must be a finite number, found nan' -- train.lr=nan
no 'data.kind must be one of audio, dna, tokens, synthetic, found "video"' -- data.kind=video
no 'data.separator' 'must be one character' -- data.separator=ab
no 'wanted dotted.key=value' -- model.d_model
no 'run.dir' 'must name a directory' -- run.dir=
no 'model.blocks: names no sublayer' -- 'model.blocks=[]'
no '"mamab"' 'did you mean mamba?' -- 'model.blocks=["mamab"]'
no 'in "(mamba" at character 7: ")" is missing' -- 'model.blocks=["(mamba"]'
no 'heads = 3 does not divide d_model = 8' -- 'model.blocks=["attention"]' model.attention.heads=3
no 'dtype = "bfloat16" needs device = "cuda"' 'use float32' -- dtype=bfloat16 device=cpu
no 'device = "gpu" is not known; choose auto, cpu, cuda or cuda:N' -- device=gpu
no 'device = "cuda:x" is not known' -- device=cuda:x
if ! nvidia-smi -L >/dev/null 2>&1; then
  no 'device = "cuda"' 'use device = "cpu"' -- device=cuda
fi
no 'language_model' 'data.input = "mulaw"' -- task.kind=language_model

# A mistake that is mended does not stand in the way of the run.
no 'heads = 3' -- 'model.blocks=["attention"]' model.attention.heads=3
ok train -c audio.toml --set run.dir=bad

# The run file itself.
refuses 'none.toml: no such file' -- train -c none.toml
refuses '. is a directory' -- train -c .
: >empty.toml
refuses 'data.train is not set' -- train -c empty.toml
printf '[data]\nkind = "audio"\ntrain = clips\n' >broken.toml
refuses 'broken.toml:3' 'not valid TOML' -- train -c broken.toml
sed 's/^batch/btach/' audio.toml >typo.toml
refuses 'typo.toml' 'train.btach' 'did you mean train.batch?' -- train -c typo.toml
sed 's/^batch = 4/batch = "4"/' audio.toml >type.toml
refuses 'type.toml' 'train.batch must be an integer' -- train -c type.toml
sed 's/^batch = 4/batch = 4\nbatch = 5/' audio.toml >twice.toml
refuses 'twice.toml' -- train -c twice.toml

# Where the run is to be kept.
refuses 'run.dir = "audio.toml/run" cannot be made' -- train -c audio.toml --set run.dir=audio.toml/run
if ((EUID != 0)); then
  mkdir locked
  chmod 555 locked
  refuses 'run.dir = "locked/run" cannot be made' -- train -c audio.toml --set run.dir=locked/run
fi

# Mistakes of form are said by the command line's own parser: exit code 2 and how to get help.
for line in '' 'trian' 'train --stpes 3' 'classify' 'score run' 'eval run --chunk x' 'inspect --length 0'; do
  # shellcheck disable=SC2086
  exits 2 $line
  says err '--help'
done
ok --version
grep -Eq '^blockstate [0-9]+\.[0-9]+\.[0-9]+' out || die 'a version'
for verb in train compare eval classify score generate embed inspect; do
  ok $verb --help
done
