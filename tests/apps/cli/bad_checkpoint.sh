#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints that are damaged, of another model, or that the disk has no room for.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_audio
ok train -c audio.toml

# A damaged checkpoint is named by file, never passed over in silence, by training and by the other verbs.
for file in model.safetensors optimizer.safetensors state.json config.json; do
  for damage in short empty gone; do
    rm -rf bad
    cp -r run bad
    target=bad/checkpoints/12/$file
    case $damage in
      short) truncate -s $(($(stat -c %s $target) / 2)) $target ;;
      empty) : >$target ;;
      gone) rm $target ;;
    esac
    cp -r bad before
    refuses "$target" -- train -c audio.toml --set run.dir=bad --set train.steps=20
    equal "$(find bad/checkpoints | sort)" "$(find before/checkpoints | sed 's/^before/bad/' | sort)"
    rm -rf before
    if [[ $file == optimizer.safetensors ]]; then
      ok eval bad/checkpoints/12 # only training needs it
    else
      refuses bad/checkpoints/12 -- eval bad/checkpoints/12
      refuses bad/checkpoints/12 -- classify bad/checkpoints/12 c0.wav
    fi
  done
done
# A header that lies about its length.
cp -r run/checkpoints/12 lie
printf '\377\377\377\377\377\377\377\177' | dd of=lie/model.safetensors conv=notrunc status=none
refuses lie/model.safetensors -- eval lie

# Parameters of another model under this one's description: which, wanted and found.
ok train -c audio.toml --set run.dir=other --set model.d_model=16
cp -r run/checkpoints/12 mixed
cp other/checkpoints/12/model.safetensors mixed/
refuses mixed/model.safetensors frames.bias '(8)' '(16)' -- eval mixed
rm -rf swapped
cp -r run swapped
rm -r swapped/checkpoints
cp -r other/checkpoints swapped/
refuses swapped/checkpoints/12/model.safetensors '(8)' '(16)' -- train -c audio.toml --set run.dir=swapped --set train.steps=20
refuses 'run holds a run with another model.d_model' run/config.toml -- train -c audio.toml --set model.d_model=16

# A full disk. limited KIB ARG...: no file may grow beyond that size, which writes answer with an error; the messages go
# through a pipe, which has no size.
limited() {
  local kib=$1
  shift
  (
    trap '' XFSZ
    ulimit -f "$kib"
    exec "$program" "$@"
  ) 2>&1 >/dev/null | cat >err
  status=${PIPESTATUS[0]}
  equal $status 1
  equal "$(grep -c '^error: ' err)" 1
}
whole_checkpoints() {
  [[ -z $(find "$1" -name '.unfinished-*' -o -name '*.part') ]] || die "half-written: $(find "$1")"
  local place
  for place in "$1"/checkpoints/[0-9]*; do
    [[ ! -e $place ]] || ok eval "$place"
  done
}
limited 0 train -c audio.toml --set run.dir=full # not even the run file
says err 'full/config.toml could not be written'
limited 2 train -c audio.toml --set run.dir=full # no checkpoint
says err full/checkpoints
whole_checkpoints full
# A log that outgrows the disk: all checkpoints before that are sound.
limited 24 train -c audio.toml --set run.dir=full --set train.steps=200 --set train.eval_every=0 --set train.save_every=20
says err full/metrics.jsonl
whole_checkpoints full
[[ -n $(find full/checkpoints -name "[0-9]*") ]] || die "no checkpoint at all"
# With room again, the same command brings the run that nothing ever happened to.
ok train -c audio.toml --set run.dir=full --set train.steps=200 --set train.eval_every=0 --set train.save_every=20
says err 'going on at step'
ok train -c audio.toml --set run.dir=roomy --set train.steps=200 --set train.eval_every=0 --set train.save_every=20
same full/checkpoints/200/model.safetensors roomy/checkpoints/200/model.safetensors
