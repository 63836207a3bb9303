# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share: a scratch folder, tiny data made on the spot, assertions. A script is called
# with the program's path; the first assertion that fails ends it, with the line and what the program said.
# shellcheck shell=bash
set -uo pipefail
export LC_ALL=C

program=$(realpath "${1:?the path of blockstate is wanted}")
script=$0
work=$(mktemp -d "${TMPDIR:-/tmp}/blockstate_cli_XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
: >out
: >err

# --- assertions -------------------------------------------------------------------------------------------------------

# Ends the script. The line is that of the script, however deep the assertion was called.
die() {
  echo "FAILED $script line ${BASH_LINENO[-2]}: $*"
  tail -n 15 out | sed 's/^/  stdout: /'
  tail -n 15 err | sed 's/^/  stderr: /'
  exit 1
}

# run ARG...: runs the program; its output is left in the files out and err, its exit code in $status.
run() {
  "$program" "$@" >out 2>err
  status=$?
}

# exits CODE ARG...
exits() {
  local wanted=$1
  shift
  run "$@"
  ((status == wanted)) || die "exit code $status, wanted $wanted: $*"
}

ok() { exits 0 "$@"; }

# The stated text stands in a file.
says() { grep -qF -- "$2" "$1" || die "$1 does not say: $2"; }
silent() { ! grep -qF -- "$2" "$1" || die "$1 says: $2"; }
equal() { [[ $1 == "$2" ]] || die "wanted '$2', found '$1'"; }
same() { cmp -s "$1" "$2" || die "$1 and $2 differ"; }
there() { [[ -e $1 ]] || die "$1 is missing"; }
absent() { [[ ! -e $1 ]] || die "$1 is there"; }
# close A B: both are numbers, within 1e-5 relative.
close() {
  awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; s = b < 0 ? -b : b; exit !(a != "" && b != "" && d * d <= 1e-10 * s * s) }' ||
    die "$1 and $2 differ by more than 1e-5 relative"
}

# refuses TEXT... -- ARG...: a mistake of the user. Exit code 1, one sentence on standard error that has every TEXT in it,
# nothing on standard output, nothing half-written.
refuses() {
  local texts=()
  while [[ $1 != -- ]]; do
    texts+=("$1")
    shift
  done
  shift
  exits 1 "$@"
  equal "$(grep -vc '^error: ' err)" 0
  equal "$(wc -l <err)" 1
  for text in "${texts[@]}"; do
    says err "$text"
  done
  [[ ! -s out ]] || die "standard output is not empty"
  [[ -z $(find . -name '*.part' -o -name '.unfinished-*') ]] || die "half-written: $(find . -name '*.part' -o -name '.unfinished-*')"
}

# --- data -------------------------------------------------------------------------------------------------------------

# wav_header FORMAT BITS RATE PROMISED: the header of a mono WAV that promises so many bytes of data.
wav_header() {
  printf "$(awk -v format="$1" -v bits="$2" -v rate="$3" -v bytes="$4" '
    function le(v, n) { while (n-- > 0) { printf "\\%03o", v % 256; v = int(v / 256) } }
    BEGIN {
      printf "RIFF"; le(36 + bytes, 4); printf "WAVEfmt "; le(16, 4); le(format, 2); le(1, 2); le(rate, 4)
      le(rate * bits / 8, 4); le(bits / 8, 2); le(bits, 2); printf "data"; le(bytes, 4)
    }')"
}

# tone_pcm SAMPLES HZ SEED: 16-bit samples of a noisy sine at 8 kHz.
tone_pcm() {
  printf "$(awk -v n="$1" -v hz="$2" -v seed="$3" '
    BEGIN {
      srand(seed)
      for (t = 0; t < n; ++t) {
        v = int(32768 + 9000 * sin(6.283185307 * hz * t / 8000) + 3000 * (rand() - 0.5)) - 32768
        v = v < 0 ? v + 65536 : v
        printf "\\%03o\\%03o", v % 256, int(v / 256)
      }
    }')"
}

# tone FILE SAMPLES HZ SEED
tone() {
  wav_header 1 16 8000 $((2 * $2)) >"$1"
  tone_pcm "$2" "$3" "$4" >>"$1"
}

# bases LENGTH SEED [LETTERS]
bases() {
  awk -v n="$1" -v seed="$2" -v letters="${3:-ACGT}" '
    BEGIN { srand(seed); for (i = 0; i < n; ++i) printf "%s", substr(letters, 1 + int(rand() * length(letters)), 1) }'
}

# fasta NAME LENGTH SEED: a record in lines of 60.
fasta() {
  echo ">$1 made for a test"
  bases "$2" "$3" | fold -w 60
  echo
}

# Audio: 20 clips of 0.1 s, two pitches, in clips.tsv; audio.toml classifies them.
make_audio() {
  printf 'path\tlabel\tsplit\n' >clips.tsv
  local i
  for i in {0..19}; do
    tone "c$i.wav" 800 $((i % 2 ? 300 : 1200)) "$i"
    printf 'c%s.wav\t%s\t%s\n' "$i" "$([[ $((i % 2)) == 1 ]] && echo low || echo high)" \
      "$( ((i < 12)) && echo train || { ((i < 16)) && echo valid || echo test; })" >>clips.tsv
  done
  cat >audio.toml <<'END'
seed = 3
device = "cpu"
threads = 1
[data]
kind = "audio"
train = "clips.tsv"
sample_rate = 8000
patch = 8
[task]
kind = "classify"
[model]
d_model = 8
blocks = ["mamba gated_mlp"]
[train]
steps = 12
batch = 4
lr = 1e-2
save_every = 4
eval_every = 6
log_every = 1
[run]
dir = "run"
END
}

# DNA: t.fa, and lm.toml, a language model of it with every kind of carry that is bounded.
make_dna() {
  local i
  for i in {1..10}; do
    fasta "s$i" $((90 + i)) "$i"
  done >t.fa
  cat >lm.toml <<'END'
seed = 3
device = "cpu"
threads = 1
[data]
kind = "dna"
train = "t.fa"
[task]
kind = "language_model"
[model]
d_model = 8
blocks = ["mamba hybrid gated_mlp"]
[model.hybrid]
type = "block_state"
variant = "MF"
ssm = "s4d"
window = 16
states = 4
heads = 2
[train]
steps = 6
batch = 4
[run]
dir = "lm"
END
}

# The steps of the training lines of a metrics.jsonl, in order.
logged_steps() { grep -v '"valid"' "$1" | sed 's/.*"step":\([0-9]*\).*/\1/'; }

# wait_for_steps FILE COUNT PID: until the log has that many lines.
wait_for_steps() {
  local i
  for ((i = 0; i < 6000; ++i)); do
    [[ -e $1 ]] && (($(wc -l <"$1") >= $2)) && return
    kill -0 "$3" 2>/dev/null || die "the program ended before line $2 of $1"
    sleep 0.01
  done
  die "no line $2 in $1 after a minute"
}
