#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# generate: the same seed gives the same samples however they are made, cut, batched or stopped; prompts; bad input.
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
make_dna
make_audio
ok train -c lm.toml
letters() { grep -v '>' "$1" | tr -d '\n'; }

# A FASTA record of so many bases, in lines of 60, the same each time; another seed gives another one.
ok generate lm --length 400
cp out whole
equal "$(head -n 1 whole)" '>sample_1 seed=1 temperature=1.0'
equal "$(letters whole | wc -c)" 400
equal "$(sed -n 2p whole | tr -d '\n' | wc -c)" 60
letters whole | grep -Eq '^[ACGTN]+$' || die 'letters of DNA'
ok generate lm --length 400 --out again.fa
same again.fa whole
[[ ! -s out ]] || die 'results on standard output'
ok generate lm --length 400 --seed 2
[[ $(letters out) != "$(letters whole)" ]] || die 'the seed changes nothing'
ok generate lm --length 50
equal "$(letters out)" "$(letters whole | head -c 50)"

# A sample does not depend on those made beside it.
ok generate lm --length 400 --count 3
cp out three
equal "$(grep '>' three | cut -d ' ' -f 1 | tr '\n' ' ')" '>sample_1 >sample_2 >sample_3 '
equal "$(head -n 8 three)" "$(cat whole)"
[[ $(awk '/>/ { ++n } n == 2' three | letters -) != "$(letters whole)" ]] || die 'two samples are the same'
for batch in 2 3 8; do
  ok generate lm --length 400 --count 3 --batch $batch
  same out three
done

# Step by step is as all at once: what was made goes on as a prompt as it went on by itself.
letters whole | head -c 150 | { echo '>begin' && cat && echo; } >begin.fa
for chunk in 1 16 33 65536; do
  ok generate lm --length 250 --prompt begin.fa --chunk $chunk
  equal "$(letters out)" "$(letters whole | tail -c 250)"
done
ok generate lm --length 250 --prompt-text "$(letters begin.fa)"
equal "$(letters out)" "$(letters whole | tail -c 250)"
ok generate lm --length 250 --prompt-text "$(letters begin.fa | tr ACGT TGCA)"
[[ $(letters out) != "$(letters whole | tail -c 250)" ]] || die 'the prompt changes nothing'

# And the most likely token is that of score's logits.
ok generate lm --length 40 --temperature 0
letters out >greedy
{ echo '>x' && cat greedy && echo; } >greedy.fa
ok score lm greedy.fa --logits logits.npy
od -An -v -w20 -t f4 -j 128 logits.npy | head -n 40 | awk '
  { best = 1; for (i = 2; i <= 5; ++i) if ($i > $best) best = i; printf "%s", substr("ACGTN", best, 1) }' >likeliest
same likeliest greedy
for same in '--top-k 1' '--top-p 1e-9' '--temperature 1e-9'; do
  # shellcheck disable=SC2086
  ok generate lm --length 40 $same
  equal "$(letters out)" "$(cat greedy)"
done
for all in '--top-k 5' '--top-k 1000000' '--top-k 0' '--top-p 1' '--temperature 1'; do
  # shellcheck disable=SC2086
  ok generate lm --length 400 $all
  equal "$(letters out)" "$(letters whole)"
done
ok generate lm --length 400 --top-k 2 --seed 3
[[ $(letters out) != "$(letters whole)" ]] || die '--top-k changes nothing'

# Cut anywhere and resumed: the same bits. The settings are the stream's own unless others are given.
ok generate lm --length 400 --seed 5 --temperature 0.8 --top-k 3 --top-p 0.95
cp out one
for at in 1 15 16 137 399; do
  ok generate lm --length $at --seed 5 --temperature 0.8 --top-k 3 --top-p 0.95 --save-state state -o first.fa
  ok generate lm --length $((400 - at)) --resume-state state -o second.fa
  equal "$(letters first.fa)$(letters second.fa)" "$(letters one)"
done
ok generate lm --length 200 --resume-state state --seed 6
[[ $(letters out | head -c 100) != "$(letters one | tail -c 100)" ]] || die 'another seed of a resumed stream'
ok generate lm --length 100 --seed 5 --temperature 0.8 --top-k 3 --top-p 0.95 --save-state state -o first.fa
ok generate lm --length 100 --resume-state state --save-state state -o second.fa
ok generate lm --length 200 --resume-state state -o third.fa
equal "$(letters first.fa)$(letters second.fa)$(letters third.fa)" "$(letters one)"
refuses 'leave out --prompt-text' -- generate lm --length 5 --resume-state state --prompt-text ACGT
refuses '--save-state is for one stream' -- generate lm --length 5 --count 2 --save-state none
{ echo '>x' && bases 50 3 && echo; } >x.fa
ok score lm x.fa --save-state scored
refuses 'scored: is a state of' 'give it to blockstate score' -- generate lm --length 5 --resume-state scored
absent none

# Ctrl-C leaves a whole file, and a state that goes on.
"$program" generate lm --length 100000000 -o long.fa --save-state state >out 2>err &
job=$!
until [[ -s long.fa ]] && (($(stat -c %s long.fa) > 4000)); do
  kill -0 $job 2>/dev/null || die 'ended too early'
  sleep 0.05
done
kill -INT $job
wait $job
equal $? 130
equal "$(tail -c 1 long.fa | od -An -c | tr -d ' ')" '\n'
made=$(letters long.fa | wc -c)
((made >= 4096)) || die "$made bases"
ok generate lm --length 60 --resume-state state
ok score lm long.fa
equal "$(tail -n 1 out | cut -f 2)" "$made"
ok generate lm --length 60 --resume-state state -o rest.fa
ok generate lm --length $((made + 60)) -o all.fa
equal "$(letters long.fa | md5sum)" "$(letters all.fa | head -c "$made" | md5sum)"
equal "$(letters rest.fa)" "$(letters all.fa | tail -c 60)"

# k-mers: bases in, bases out.
ok train -c lm.toml --set data.input=kmer --set data.kmer=3 --set run.dir=kmers
ok generate kmers --length 300
cp out whole
equal "$(letters whole | wc -c)" 300
refuses '--length 100' 'a multiple of 3' -- generate kmers --length 100
ok generate kmers --length 240 --prompt-text "$(letters whole | head -c 60)GT"
says err 'warning: the last 2 bases of the prompt fill no k-mer of 3'
equal "$(letters out)" "$(letters whole | tail -c 240)"
refuses '--prompt-text: wanted at least the 3 bases of one k-mer' -- generate kmers --length 3 --prompt-text AC

# Sound: a WAV of 16 bits at the model's rate, which reads back as the codes that were made.
for input in mulaw linear8; do
  ok train -c audio.toml --set data.input=$input --set data.patch=1 --set task.kind=language_model \
    --set run.dir=$input
  ok generate $input --length 9000 -o whole.wav
  equal "$(head -c 4 whole.wav)" RIFF
  equal "$(stat -c %s whole.wav)" $((44 + 2 * 9000))
  head -c $((44 + 2 * 500)) whole.wav | tail -c 1000 >begin.pcm
  { wav_header 1 16 8000 1000 && cat begin.pcm; } >begin.wav
  ok generate $input --length 1000 -o rest.wav --prompt begin.wav --chunk 77
  equal "$(tail -c 2000 rest.wav | md5sum)" "$(head -c $((44 + 3000)) whole.wav | tail -c 2000 | md5sum)"
  ok generate $input --length 4500 -o first.wav --save-state state
  ok generate $input --length 4500 -o second.wav --resume-state state
  equal "$({ tail -c +45 first.wav && tail -c +45 second.wav; } | md5sum)" "$(tail -c +45 whole.wav | md5sum)"
done
ok generate mulaw --length 100 --count 2 -o note.wav
there note-1.wav
there note-2.wav
absent note.wav
# A prompt at another rate is resampled.
{ wav_header 1 16 16000 1000 && cat begin.pcm; } >fast.wav
ok generate mulaw --length 10 -o x.wav --prompt fast.wav
refuses 'a name that ends in .wav was wanted' -- generate mulaw --length 5
refuses 'none.wav: no such file' -- generate mulaw --length 5 -o x2.wav --prompt none.wav
refuses 'models of DNA' -- generate mulaw --length 5 -o x2.wav --prompt-text ACGT
absent x2.wav
"$program" generate mulaw --length 100000000 -o long.wav >out 2>err &
job=$!
until [[ -s long.wav ]] && (($(stat -c %s long.wav) > 8000)); do
  kill -0 $job 2>/dev/null || die 'ended too early'
  sleep 0.05
done
kill -TERM $job
wait $job
equal $? 130
ok score mulaw long.wav
equal "$(tail -n 1 out | cut -f 2)" $((($(stat -c %s long.wav) - 44) / 2))

# Token ids.
npy() { # npy FILE ID...: an array of bytes
  local file=$1 header
  shift
  header=$(printf "{'descr': '|u1', 'fortran_order': False, 'shape': (%s,), }" $#)
  {
    printf '\223NUMPY\001\000\166\000%-117s\n' "$header"
    printf '%b' "$(printf '\\%03o' "$@")"
  } >"$file"
}
# shellcheck disable=SC2046
npy ids.npy $(awk 'BEGIN { for (i = 0; i < 600; ++i) print (i * i + 3 * int(i / 7)) % 7 }')
sed -e 's/kind = "dna"/kind = "tokens"/' -e 's/t\.fa/ids.npy/' -e 's/^\[task\]/length = 60\n[task]/' lm.toml >ids.toml
ok train -c ids.toml --set run.dir=ids
ok generate ids --length 300 -o whole.npy
equal "$(stat -c %s whole.npy)" $((128 + 8 * 300))
[[ $(head -c 128 whole.npy | tr -cd '[:print:]') == *"'descr': '<i8'"*"'shape': (300,)"* ]] || die 'the header'
ids() { od -An -v -w8 -t d8 -j 128 "$1"; }
# shellcheck disable=SC2046
npy begin.npy $(ids whole.npy | head -n 100)
ok generate ids --length 200 -o rest.npy --prompt begin.npy
equal "$(ids rest.npy)" "$(ids whole.npy | tail -n 200)"
npy strange.npy 1 2 7 3
refuses 'strange.npy' 'the id at position 2 is 7; the model knows ids from 0 to 6' -- \
  generate ids --length 5 -o x.npy --prompt strange.npy
absent x.npy

# What cannot be.
ok train -c audio.toml
refuses 'run is no language model and cannot generate' -- generate run --length 5
refuses '--prompt-text is empty' -- generate lm --length 5 --prompt-text ''
refuses '--prompt-text, position 3' "found '1'" -- generate lm --length 5 --prompt-text AC1G
refuses 'two prompts' -- generate lm --length 5 --prompt-text ACGT --prompt x.fa
: >empty.fa
refuses empty.fa -- generate lm --length 5 --prompt empty.fa
refuses 't.fa holds more than the record s1' -- generate lm --length 5 --prompt t.fa
printf '>bad\nACGT12\n' >bad.fa
refuses 'bad.fa: record bad, position 5' -- generate lm --length 5 --prompt bad.fa
refuses '--temperature' 'found -1' -- generate lm --length 5 --temperature=-1
refuses '--top-k' 'found -3' -- generate lm --length 5 --top-k=-3
for p in 0 1.5 nan; do
  refuses '--top-p' 'more than 0 and at most 1' -- generate lm --length 5 --top-p $p
done
refuses 'not/there.fa: cannot write' -- generate lm --length 5 -o not/there.fa
refuses 'the name of a FASTA file was wanted' -- generate lm --length 5 -o x.wav
for line in 'generate lm' 'generate lm --length 0' 'generate lm --length 5 --count 0' 'generate --length 5'; do
  # shellcheck disable=SC2086
  exits 2 $line
done
"$program" generate lm --length 5 >/dev/full 2>err && die 'success although nothing could be written'
says err 'cannot write'

# A carry that grows: said, and done all the same.
ok train -c lm.toml --set 'model.blocks=["mamba attention"]' --set model.attention.heads=2 --set run.dir=growing
ok generate growing --length 200
says err 'layers.1 (attention): keys and values of all steps are kept, so memory grows with the stream'
cp out whole
ok generate growing --length 90 --save-state state -o first.fa
ok generate growing --length 110 --resume-state state -o second.fa
equal "$(letters first.fa)$(letters second.fa)" "$(letters whole)"
