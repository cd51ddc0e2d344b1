#!/usr/bin/env bash
# A day with a GPU: whether trainings are right on it, then what they take, beside PyTorch on the same card, as one page of Markdown.
#
#   benches/gpu.sh --pipe target/release/pipe --device gpu:0 --minutes 30 --out gpu-day
#   benches/gpu.sh --pipe ./pipe --python venv/bin/python --reference path/to/diffit_torch.py
#   benches/gpu.sh --small                       # a rehearsal: small networks, a minute or two on a software adapter
#
# Needs the program and bash. Each step writes a part of the page into the folder of --out; the same command again does only what
# is missing there, and `--again STEP` does one anew. A step that cannot be done says so in its part. Steps, in this order:
#
#   machine losses bits resume chain                   is it right? what differs is a failure, and the exit code is 1
#   steps kernels memory largest sampler torch         what does it take?
set -euo pipefail

pipe=pipe device=gpu:0 minutes=60 out=gpu-day python= reference= small= only=
presets=diffit_tiny,diffit_small,diffit_cifar10 batches=64 precisions=f32,f16,bf16 pixels=32 steps=50 largest=4096 long=500
again=()
usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --small)
      small=yes presets=diffit_tiny batches=2 precisions=f32,f16 pixels=8 steps=2 largest=4 long=24
      shift; continue ;;
    -h | --help) usage; exit 0 ;;
    --pipe | --device | --minutes | --out | --python | --reference | --presets | --batches | --precisions | --pixels | --steps | \
      --largest | --only | --again) ;;
    *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
  case "$1" in
    --again) again+=("$2") ;;
    *) printf -v "${1#--}" %s "$2" ;;
  esac
  shift 2
done
command -v "$pipe" >/dev/null || { echo "there is no program $pipe: name it with --pipe" >&2; exit 2; }
pipe=$(command -v "$pipe")
[[ $pipe = /* ]] || pipe=$PWD/$pipe
[ -z "$reference" ] || [[ $reference = /* ]] || reference=$PWD/$reference
case "$python" in */*) [[ $python = /* ]] || python=$PWD/$python ;; esac
mkdir -p "$out"
out=$(cd "$out" && pwd)
began=$SECONDS
for step in ${again[@]+"${again[@]}"}; do rm -rf "$out/$step.md" "${out:?}/$step"; done
# Settings of one's own trainings, and files of drivers that would be written elsewhere.
while read -r name; do unset "$name"; done < <(compgen -e | grep '^PIPE_' || true)

left() { echo $((60 * minutes - (SECONDS - began))); }
say() { printf '%s\n' "$@" >>"$part"; } # a line for each argument
# The first number or text behind a key of a JSON document.
field() { tr ',{' '\n\n' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\"}]*[^\"} ]\)\"\{0,1\} *}*\$/\1/p" | head -1; }
# A command in the step's folder, with its output in a file, and no longer than there is time.
try() { # name, command…
  local name=$1 seconds status=0
  shift
  seconds=$(left)
  [ "$seconds" -gt 5 ] || { echo "no time left" >"$work/$name.err"; return 124; }
  if command -v timeout >/dev/null; then
    timeout -k 10 "$seconds" "$@" >"$work/$name.out" 2>"$work/$name.err" || status=$?
  else
    "$@" >"$work/$name.out" 2>"$work/$name.err" || status=$?
  fi
  return $status
}
reason() { # why a command failed: its error, or what it said last
  local text
  text=$(grep -m 1 '^error' "$work/$1.err" 2>/dev/null || grep -v '^ *$' "$work/$1.err" 2>/dev/null | tail -1)
  text=$(tr '|' '/' <<<"$text" | cut -c 1-300)
  echo "${text:-no reason was given}"
}

# A network of 62,000 parameters on images of 8 x 8 pixels; `steps` optimizer steps of 8 images.
pipeline() { # file, device, epochs
  cat >"$1" <<YAML
name: day
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
  base:
    kind: train
    dataset: data
    epochs: $3
    batch_size: 16
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: $2
    log_every_n_steps: 1
    checkpoint: { save_every_n_epochs: 1 }
YAML
}
losses() { # folder
  sed -n 's/.*"train_loss_step": *\([0-9.e+-]*\).*/\1/p' "$1"/checkpoints/*/run_001/logs/metrics.jsonl
}
# What a run computed, without times and names: weights, moments and EMA weights, and outputs on fixed inputs.
bits() { # folder
  local last
  last=$(ls "$1"/checkpoints/*/run_001/checkpoints/last.ckpt | tail -1)
  losses "$1"
  "$pipe" ckpt probe "$last"
  tensors "$last"
}
# A digest of the bytes behind the header of a safetensors file.
tensors() {
  local size
  size=$(od -An -t u8 -N 8 "$1" | tr -d ' ')
  tail -c +$((size + 9)) "$1" | cksum
}
train() { # name, device, epochs: a training in a folder of its own
  project "$1"
  pipeline "$work/$1/p.yaml" "$2" "$3"
  run "$1" "$1"
}
# A new project, which knows the results of self-tests that others have made.
project() { # name
  mkdir -p "$work/$1/.pipe/cache"
  [ ! -d "$out/devices" ] || cp -R "$out/devices" "$work/$1/.pipe/cache/"
}
# Runs a project's pipeline.
run() { # name of the output, project, options…
  local status=0 name=$1 folder=$work/$2
  shift 2
  (cd "$folder" && try "$name" "$pipe" run p.yaml "$@") || status=$?
  [ ! -d "$folder/.pipe/cache/devices" ] || cp -R "$folder/.pipe/cache/devices" "$out/"
  return $status
}

step_machine() {
  try devices "$pipe" devices || { say "\`pipe devices\` failed: $(reason devices)"; return 1; }
  try version "$pipe" --version
  say "$(head -1 "$work/version.out"); $(tail -1 "$work/version.out"); $(uname -srm); $(date '+%Y-%m-%d %H:%M')"
  say '' '```text'
  cat "$work/devices.out" >>"$part"
  say '```' ''
  local healthy=0
  try doctor "$pipe" doctor --test "$device" || healthy=$?
  say '```text'
  cat "$work/doctor.out" >>"$part"
  say '```'
  if command -v nvidia-smi >/dev/null && try smi nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; then
    say '' "nvidia-smi: $(tr '\n' ';' <"$work/smi.out")"
  fi
  return $healthy
}

step_losses() {
  train gpu "$device" 4 || { say "the training failed: $(reason gpu)"; return 1; }
  train cpu cpu 4 || { say "the CPU's training failed: $(reason cpu)"; return 1; }
  say "Losses of a network of 62,000 parameters, on $device and on the CPU:" '' '| step | GPU | CPU | off by |' '|---|---|---|---|'
  paste <(losses "$work/gpu") <(losses "$work/cpu") | awk '
    { off = $1 / $2 - 1; if (off < 0) off = -off; if (off > worst) worst = off; rows++
      if (NR <= 4 || NR % 4 == 0) printf "| %d | %s | %s | %.1e |\n", NR, $1, $2, off }
    END { printf "\nThe most: %.1e of the loss, in %d steps; 1e-3 is allowed.\n", worst, rows; exit !(rows == 16 && worst < 1e-3) }' >>"$part"
}

step_bits() {
  train first "$device" 2 || { say "the training failed: $(reason first)"; return 1; }
  train second "$device" 2 || { say "the training failed: $(reason second)"; return 1; }
  if [ "$(bits "$work/first")" = "$(bits "$work/second")" ]; then
    say 'Two processes have the same bits: losses, weights, moments, EMA weights.'
  else
    say 'FAILED: two processes have different bits.'
    return 1
  fi
}

step_resume() {
  project killed
  pipeline "$work/killed/p.yaml" "$device" 12
  local kills=0 waited last="$work/killed/checkpoints/base_training/run_001/checkpoints/last.ckpt" before
  while [ $kills -lt 2 ]; do
    before=$(cksum "$last" 2>/dev/null || echo none)
    (cd "$work/killed" && exec "$pipe" run p.yaml) >"$work/killed.out" 2>"$work/killed.err" &
    waited=0
    # Killed once it has saved something, without a word.
    while kill -0 $! 2>/dev/null && [ "$(cksum "$last" 2>/dev/null || echo none)" = "$before" ] && [ "$(left)" -gt 5 ]; do
      sleep 0.05
      waited=$((waited + 1))
    done
    kill -9 $! 2>/dev/null || { wait $! || true; break; }
    wait $! 2>/dev/null || true
    kills=$((kills + 1))
  done
  run resumed killed || { say "it did not go on: $(reason resumed)"; return 1; }
  train whole "$device" 12 || { say "the training failed: $(reason whole)"; return 1; }
  if [ $kills = 0 ]; then
    say 'Skipped: the training ended before it could be killed.'
  elif [ "$(bits "$work/killed")" = "$(bits "$work/whole")" ]; then
    say "Killed $kills times and gone on with, a training has the bits of one that was not."
  else
    say "FAILED: a training that was killed $kills times has other bits than one that was not."
    return 1
  fi
}

step_chain() {
  project chain
  cat >"$work/chain/p.yaml" <<YAML
name: chain
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 8
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: $device
  trees: { kind: dataset, source: trees, classes: [oak, pine], image_size: 8, num_images: 8 }
  lora: { kind: lora, base: base, dataset: trees, epochs: 1, batch_size: 8, device: $device, lora: { r: 2, target_modules: [qkv] } }
  picture: { kind: sample, from: lora, to: samples/lora.png, n: 2, steps: 2, device: $device }
YAML
  run chain chain || { say "FAILED: $(reason chain)"; return 1; }
  [ -s "$work/chain/samples/lora.png" ] || { say 'FAILED: there is no picture.'; return 1; }
  say 'Training, LoRA on it and pictures of that, in one process: done.'
}

# Seconds of a step, or why there are none.
measure() { # preset, precision, batch
  local name="$1-$2-$3" status=0
  try "$name" "$pipe" bench --json --device "$device" --preset "$1" --precision "$2" --batch-size "$3" --image-size "$pixels" \
    --steps "$steps" || status=$?
  if [ $status = 0 ]; then
    field step_seconds <"$work/$name.out" >"$work/$name.seconds"
    sed -n '/first_step_seconds/,/]/p' "$work/$name.out" | grep -o '[0-9]*\.[0-9]*' >"$work/$name.first" || true
  elif [ $status = 124 ]; then
    echo 'no time left' >"$work/$name.why"
  else
    reason "$name" >"$work/$name.why"
  fi
}
milliseconds() { # file of seconds
  if [ -s "$1.seconds" ]; then awk '{ printf "%.2f", 1000 * $1 }' "$1.seconds"; else echo '—'; fi
}

step_steps() {
  local preset batch precision row whys=
  say "A step of $pixels px in milliseconds, the mean of two epochs of $steps steps (\`pipe bench\`):" ''
  say "| preset | batch | ${precisions//,/ | } |" "|---|---|$(printf -- '---|%.0s' ${precisions//,/ })"
  for preset in ${presets//,/ }; do
    for batch in ${batches//,/ }; do
      row="| $preset | $batch |"
      for precision in ${precisions//,/ }; do
        measure "$preset" "$precision" "$batch"
        row="$row $(milliseconds "$work/$preset-$precision-$batch") |"
        [ -s "$work/$preset-$precision-$batch.why" ] && whys="$whys
- $preset, $precision, batch $batch: $(cat "$work/$preset-$precision-$batch.why")"
      done
      say "$row"
    done
  done
  [ -z "$whys" ] || say "$whys"
  say '' "From the program's start to the end of the first step, in a new project and then once more, in seconds:" ''
  for row in "$work"/*.first; do
    [ ! -s "$row" ] || say "- $(basename "$row" .first): $(awk '{ printf "%s%.1f", (NR > 1 ? ", then " : ""), $1 }' "$row")"
  done
}

step_kernels() {
  local preset=${presets%%,*} batch=${batches%%,*}
  if try kernels "$pipe" bench --kernels --device "$device" --preset "$preset" --batch-size "$batch" --image-size "$pixels" --steps 3; then
    say "Kernels of a step, each run by itself: milliseconds and launches." '' '```text'
    head -32 "$work/kernels.out" >>"$part"
    say '```'
  else
    say "Skipped: $(reason kernels)"
  fi
}

step_memory() {
  project leak
  local epochs=$(((long + 3) / 4))
  pipeline "$work/leak/p.yaml" "$device" "$epochs"
  local watcher= status=0
  if command -v nvidia-smi >/dev/null; then
    while nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; do sleep 0.5; done >"$work/card" 2>/dev/null &
    watcher=$!
  fi
  run leak leak --log json --set base.checkpoint.save_every_n_epochs="$epochs" || status=$?
  [ -z "$watcher" ] || kill $watcher
  [ $status = 0 ] || { say "the training failed: $(reason leak)"; return 1; }
  grep '"event":"step"' "$work/leak.err" | sed -n 's/.*"memory":\([0-9]*\).*/\1/p' | awk -v steps="$((4 * epochs))" '
    { seen[NR] = $1 } END {
      if (NR < 4) { print "Skipped: the system does not say how much memory a process has."; exit }
      quarter = int(NR / 4); early = seen[quarter]; late = seen[NR]
      printf "Memory of the process in a training of %d steps: %.1f MB after a quarter, %.1f MB at its end (%+.1f %%).\n",
        steps, early / 1e6, late / 1e6, 100 * (late / early - 1) }' >>"$part"
  [ ! -s "$work/card" ] || awk '{ seen[NR] = $1 } END {
    printf "\nMemory of the card, all programs: %d MiB before, %d after a third of the time, %d at the end.\n",
      seen[1], seen[int((NR + 2) / 3)], seen[NR] }' "$work/card" >>"$part"
}

step_largest() {
  local preset=${presets%%,*} batch=${batches%%,*} best=none name pieces
  # On a software adapter the memory is the machine's, and running out of it is nobody's wish.
  while [ "$batch" -le "$largest" ]; do
    name="batch-$batch"
    if ! try "$name" "$pipe" bench --json --device "$device" --preset "$preset" --batch-size "$batch" --image-size "$pixels" --steps 1; then
      break
    fi
    best=$batch batch=$((2 * batch))
  done
  if [ "$batch" -gt "$largest" ]; then
    say "Batches of $preset were doubled up to $best, and all of them fit; more was not tried."
    return 0
  fi
  say "The largest batch of $preset that was trained is $best; with $batch: $(reason "$name")"
  # A training that runs out of memory goes on with smaller micro-batches.
  project recovery
  cat >"$work/recovery/p.yaml" <<YAML
name: recovery
stages:
  data: { kind: dataset, source: shapes, image_size: $pixels, num_images: $batch }
  base: { kind: train, dataset: data, epochs: 1, batch_size: $batch, model: { preset: $preset }, device: $device }
YAML
  if run recovery recovery; then
    pieces=$(field pieces_per_batch <"$work"/recovery/checkpoints/*/run_001/metadata.json)
    say '' "A training with that batch was done, each batch in ${pieces:-1} pieces."
  else
    say '' "FAILED: a training with that batch did not go on with smaller pieces: $(reason recovery)"
    return 1
  fi
}

step_sampler() {
  local preset=${presets%%,*} n=64 levels=18 file began_at took
  [ -z "$small" ] || n=2 levels=2
  project sampler
  cat >"$work/sampler/p.yaml" <<YAML
name: sampler
stages:
  data: { kind: dataset, source: shapes, image_size: $pixels, num_images: 16 }
  base: { kind: train, dataset: data, epochs: 1, batch_size: 16, model: { preset: $preset }, device: cpu }
YAML
  run trained sampler || { say "the training failed: $(reason trained)"; return 1; }
  file=$(ls "$work"/sampler/checkpoints/*/run_001/checkpoints/last.ckpt | tail -1)
  say "Pictures of $preset, $pixels px, $levels noise levels, with the start of the program:" ''
  for count in $n $((4 * n)); do
    began_at=$(date +%s%N)
    (cd "$work/sampler" && try "sample-$count" "$pipe" sample "$file" --n "$count" --batch-size "$n" --steps "$levels" --device "$device" -o p.png) ||
      { say "it failed: $(reason "sample-$count")"; return 1; }
    took=$(($(date +%s%N) - began_at))
    say "- $count: $(awk -v t="$took" -v n="$count" 'BEGIN { printf "%.2f s, %.1f pictures/s", t / 1e9, n * 1e9 / t }')"
  done
}

# The reference network of --reference, a module with PRESETS, Diffit and loss, on the same card.
step_torch() {
  if [ -z "$python" ] || [ -z "$reference" ]; then
    say 'Skipped: give --python (one with torch) and --reference (the networks in PyTorch).'
    return 0
  fi
  cat >"$work/peer.py" <<'PY'
import importlib.util, json, statistics, sys, time
import torch
reference, preset, batch, pixels, steps, way = sys.argv[1:]
batch, pixels, steps, ways = int(batch), int(pixels), int(steps), way.split("+")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_default_device(device)  # tensors that the network makes in its forward pass too
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in ways
spec = importlib.util.spec_from_file_location("reference", reference)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.manual_seed(0)
net = module.Diffit(**module.PRESETS[preset], image_size=pixels)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
loss = torch.compile(module.loss) if "compiled" in ways else module.loss
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
def step():
    x = torch.randn(batch, 3, pixels, pixels)
    sigma = (torch.randn(batch) * 1.2 - 1.2).exp()
    with torch.autocast(device, torch.bfloat16, enabled="bf16" in ways):
        value = loss(net, x, sigma, torch.randn_like(x))
    optimizer.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
for _ in range(min(20, 2 * steps)):
    step()
times = []
for _ in range(steps):
    wait()
    began = time.perf_counter()
    step()
    wait()
    times.append(time.perf_counter() - began)
name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
print(json.dumps({"seconds": statistics.median(times), "torch": torch.__version__, "on": name}))
PY
  local ways=(f32 tf32 bf16 compiled+f32 compiled+tf32 compiled+bf16) way preset batch row name whys= on=
  [ -z "$small" ] || ways=(f32 bf16 compiled+f32)
  say "The same step in PyTorch, in milliseconds: median of $steps, AdamW in one pass, gradients clipped, no EMA:" ''
  say "| preset | batch | $(printf '%s | ' "${ways[@]}")" "|---|---|$(printf -- '---|%.0s' "${ways[@]}")"
  for preset in ${presets//,/ }; do
    for batch in ${batches//,/ }; do
      row="| $preset | $batch |"
      for way in "${ways[@]}"; do
        name="$preset-$way-$batch"
        if try "$name" "$python" "$work/peer.py" "$reference" "$preset" "$batch" "$pixels" "$steps" "$way"; then
          field seconds <"$work/$name.out" >"$work/$name.seconds"
          on="$(field torch <"$work/$name.out") on $(field on <"$work/$name.out")"
        else
          whys="$whys
- $preset, $way, batch $batch: $(reason "$name")"
        fi
        row="$row $(milliseconds "$work/$name") |"
      done
      say "$row"
    done
  done
  say '' "PyTorch ${on:-was not measured}."
  [ -z "$whys" ] || say "$whys"
}

# Both tables beside each other: the fastest of each.
summary() {
  local preset batch precision best theirs
  [ -d "$out/steps" ] || return 0
  echo "| preset | batch | pipe, best, ms | images/s | PyTorch, best, ms | pipe / PyTorch |"
  echo "|---|---|---|---|---|---|"
  for preset in ${presets//,/ }; do
    for batch in ${batches//,/ }; do
      best=$(cat "$out/steps/$preset"-*-"$batch".seconds 2>/dev/null | sort -g | head -1 || true)
      theirs=$(cat "$out/torch/$preset"-*-"$batch".seconds 2>/dev/null | sort -g | head -1 || true)
      awk -v p="$preset" -v b="$batch" -v ours="${best:-0}" -v theirs="${theirs:-0}" 'BEGIN {
        printf "| %s | %d | %s | %s | %s | %s |\n", p, b, (ours > 0 ? sprintf("%.2f", 1000 * ours) : "not measured"),
          (ours > 0 ? sprintf("%.0f", b / ours) : "not measured"), (theirs > 0 ? sprintf("%.2f", 1000 * theirs) : "not measured"),
          (ours * theirs > 0 ? sprintf("%.2f", ours / theirs) : "not measured") }'
    done
  done
}

all=(machine losses bits resume chain steps kernels memory largest sampler torch)
titles=([0]=Machine [1]='Losses beside the CPU' [2]='The same bits' [3]='Killed and gone on with' [4]='A chain of stages' [5]='Steps'
  [6]='Kernels' [7]='Memory' [8]='The largest batch' [9]='Sampler' [10]='PyTorch')
failed=()
for at in "${!all[@]}"; do
  step=${all[at]}
  if [ -n "$only" ] && [[ ",$only," != *",$step,"* ]]; then continue; fi
  done_part="$out/$step.md"
  if [ -s "$done_part" ]; then
    echo "$step: done before"
  elif [ "$(left)" -le 5 ]; then
    echo "$step: skipped, no time left"
    continue
  else
    work="$out/$step" part="$out/$step/part"
    rm -rf "$work"
    mkdir -p "$work"
    : >"$part"
    started=$SECONDS status=0
    "step_$step" || status=$?
    [ $status = 0 ] || [ -s "$part" ] || say "FAILED, without a word."
    [ $status = 0 ] || say '' "**failed**"
    mv "$part" "$done_part"
    echo "$step: $([ $status = 0 ] && echo done || echo FAILED) in $((SECONDS - started)) s"
  fi
  ! grep -q '^\*\*failed\*\*$' "$done_part" || failed+=("$step")
done
{
  echo "# $device"
  echo
  summary
  for at in "${!all[@]}"; do
    [ -s "$out/${all[at]}.md" ] || continue
    printf '\n## %s\n\n' "${titles[at]}"
    cat "$out/${all[at]}.md"
  done
} >"$out/report.md"
echo "$out/report.md"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
