#!/usr/bin/env bash
# Everything there is to learn of a GPU, in one run of under six minutes that needs neither a network nor installation:
#
#   bash benchmarks/gpu.sh [--quick] [--wheels FOLDER] [--data FOLDER] [--cache FOLDER] [--only PART,...] [OUTPUT]
#
#   --quick    few steps and short turns: whether the script works, not how fast anything is
#   --wheels   wheels of what the machine's Python lacks, installed into a virtual environment in OUTPUT
#   --data     the folder of CIFAR-10, for the recipe speedrun; without it the recipe is left out
#   --cache    what compilers leave, from an earlier run (default: OUTPUT/cache)
#   --only     these parts alone, beside what is in OUTPUT: for what an earlier run had no time for
#   OUTPUT     (default: gpu-results) a file of output for each part, parts.tsv, results/*.json and summary.txt
#
# A part that fails, or takes longer than it may, does not stop the next. PYTHON names the interpreter, LIMIT the
# seconds of all parts (default: 320). To publish: cp OUTPUT/results/*.json benchmarks/results/, then report.py.
#
# Exit codes: 0 where all parts succeeded and all that was asked holds, 1 otherwise, 2 usage.
set -uo pipefail

quick= wheels= data= cache= only= out=gpu-results python=${PYTHON:-python3} limit=${LIMIT:-320}
while (($#)); do
    case $1 in
        --quick) quick=1 ;;
        --wheels | --data | --cache | --only)
            if (($# < 2)); then echo "gpu.sh: $1: expected a value" >&2; exit 2; fi
            printf -v "${1#--}" %s "$2"
            shift ;;
        -*) echo "gpu.sh: unknown option $1; its first lines say which there are" >&2; exit 2 ;;
        *) out=$1 ;;
    esac
    shift
done
if [[ $wheels ]]; then wheels=$(realpath "$wheels") || exit 2; fi
if [[ $data ]]; then data=$(realpath "$data") || exit 2; fi
mkdir -p "$out/results" "${cache:=$out/cache}" || exit 1
out=$(realpath "$out") cache=$(realpath "$cache")
cd "$(dirname "$0")/.." || exit 1
parts=$out/parts.tsv results=$out/results
if [[ -z $only ]]; then rm -f "$parts" "$results"/gpu-*.json; fi
touch "$parts"
before=$(wc -l <"$parts")
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 MPLCONFIGDIR=$cache/matplotlib
export CUPY_CACHE_DIR=$cache/cupy NUMBA_CACHE_DIR=$cache/numba
export TORCHINDUCTOR_CACHE_DIR=$cache/inductor TRITON_CACHE_DIR=$cache/triton

# Every command has a group of its own, which signals of a terminal do not reach.
stop='kill $(jobs -p) 2>/dev/null; exit 130'
trap "$stop" INT TERM

# ended NAME SECONDS STATUS: a line of the table; a status of "-" is a part that was left out.
ended() {
    printf '%s\t%s\t%s\n' "$@" >>"$parts"
    printf '%-24s %6s s  %s\n' "$@"
}

# wanted NAME: whether --only names a part, or there is none.
wanted() { [[ -z $only || ",$only," == *",$1,"* ]]; }

# left_out NAME WHY...
left_out() {
    wanted "$1" || return 0
    echo "${*:2}" >"$out/$1.txt"
    ended "$1" 0 -
}

# part NAME SECONDS COMMAND...: run a command for so long at most, and for no longer than there is time.
part() {
    wanted "$1" || return 0
    local name=$1 most=$2 left=$((limit - SECONDS)) start=${EPOCHREALTIME/,/.} status
    shift 2
    if ((left < 5)); then
        left_out "$name" "no time left of $limit s"
        return
    fi
    trap "$stop" INT TERM # this may be a subshell
    timeout --kill-after=5 $((most < left ? most : left)) "$@" >"$out/$name.txt" 2>&1 &
    wait $!
    status=$?
    ended "$name" "$(LC_ALL=C awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/,/.} - $start }")" $status
}

# run PART SECONDS SCRIPT ARGUMENTS...: a part in Python, from this folder.
run() { part "$1" "$2" "$python" "benchmarks/$3" "${@:4}"; }

if [[ $wheels ]] && ! wanted wheels && [[ ! -x $out/venv/bin/python ]]; then
    echo "gpu.sh: --wheels: $out has no environment yet; name the part wheels in --only too" >&2
    exit 2
fi
if [[ $wheels ]]; then # the interpreter's own packages are linked: those in an environment would not be found else
    part wheels 90 bash -c '"$0" -m venv --clear --without-pip "$1" && site=$(echo "$1"/lib/python*/site-packages) &&
        "$0" -c "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep=chr(10))" |
            while read -r folder; do [[ ! -d $folder ]] || cp -rsn "$folder/." "$site"; done &&
        "$1/bin/python" -m pip install --no-index --no-deps --disable-pip-version-check "$2"/*.whl' \
        "$python" "$out/venv" "$wheels"
    python=$out/venv/bin/python
fi

part machine 30 bash -c 'nvidia-smi; "$0" -VV; "$0" -m pip list --disable-pip-version-check
    "$0" benchmarks/gpu.py' "$python"
own=minicnn,minicnn-tf32,minicnn-bf16 peers=torch,torch-cudagraph,torch-bf16
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "PyTorch is not installed or finds no GPU: minicnn is timed alone" | tee -a "$out/machine.txt"
    peers=none
fi
if [[ $quick ]]; then
    own=minicnn turns=(--processes 1 --rounds 1 --seconds 0.01) followed=(--steps 3 --model lenet --batch-size 8)
    chosen=(-k "relu or matmul or numbers") settings=(lenet-train:8 lenet-infer:1)
    recipe=(--dataset digits --epochs 1 --limit-batches 2 --batch-size 16 --recipe lenet)
    looked_at=(--case lenet-train lenet-infer --batch-size 8) checked="float32 and relu_grad"
else
    turns=(--processes 1 --rounds 3 --seconds 0.25) followed=(--steps 30)
    chosen=() recipe=(--dataset cifar10 --data-dir "$data" --recipe speedrun)
    settings=(lenet-train:{128,512,32} lenet-infer:{1,128} {vgg,resnet18}-train:128 {vgg,resnet18}-infer:128)
    looked_at=() checked="float32 and (conv2d or linear or norm or pool or entropy or softmax)"
fi

# What compiles, and is right: at once, since nothing is timed. Without a GPU pytest would skip all, and succeed.
run kernels 90 gpu_kernels.py --json "$results/gpu-kernels.json"
part tests 150 bash -c '"$0" benchmarks/gpu.py && "$0" -m pytest -m gpu tests/gpu tests/backend "$@"' \
    "$python" "${chosen[@]}" &
run agreement 90 gpu_agreement.py "${followed[@]}" --json "$results/gpu-agreement.json" &
# no pool of memory, in which an array has others beside it
watched='import sys, cupy, pytest; cupy.cuda.set_allocator(None); sys.exit(pytest.main(sys.argv[1:]))'
for tool in memcheck racecheck; do
    if command -v compute-sanitizer >/dev/null; then
        part $tool 100 bash -c '"$0" benchmarks/gpu.py &&
            compute-sanitizer --tool "$1" --error-exitcode 9 "$0" -c "${@:2}"' \
            "$python" $tool "$watched" -x tests/gpu/test_gpu.py -k "$checked" &
    else
        left_out $tool "compute-sanitizer, of the CUDA toolkit, is not installed"
    fi
done
wait

# What is timed: one after the other.
compare() { # NAME SETTING SECONDS ARGUMENTS...
    run "$1" "$3" compare.py --backend cupy --case "${2%:*}" --batch-size "${2#*:}" "${turns[@]}" "${@:4}" \
        --json "$results/gpu-$1.json"
}
run steps 60 gpu_steps.py --steps 5 --slowest "$out/slowest" "${looked_at[@]}" --json "$results/gpu-steps.json"
for setting in "${settings[@]}"; do
    compare "${setting/:/-}" "$setting" 60 --own "$own" --peer "$peers"
done
if [[ $quick || $data ]]; then
    part recipe 75 bash -c 'rm -rf "$1/run" && "$0" scripts/train.py --backend cupy --out "$1/run" "${@:3}" &&
        "$0" benchmarks/gpu_recipe.py "$1/run" --json "$2/gpu-recipe.json"' \
        "$python" "$out" "$results" "${recipe[@]}"
else
    left_out recipe "--data names no folder of CIFAR-10"
fi
if [[ $peers == none ]]; then
    for setting in lenet-train-128 lenet-infer-128 resnet18-train-128; do
        left_out "compiled-$setting" "$(tail -n 1 "$out/machine.txt")"
    done
else
    for setting in lenet-train:128 lenet-infer:128 resnet18-train:128; do
        compare "compiled-${setting/:/-}" "$setting" 90 --peer torch-compile
    done
fi
if ! command -v ncu >/dev/null; then
    left_out ncu "ncu, of the CUDA toolkit, is not installed"
elif [[ ! -s $out/slowest ]]; then
    left_out ncu "the slowest kernels are not known: the part steps had no profiler"
else
    part ncu 60 ncu --kernel-name-base demangled --kernel-name "regex:^($(<"$out/slowest"))$" --launch-count 40 \
        --section SpeedOfLight --section LaunchStats --section Occupancy \
        "$python" benchmarks/gpu_steps.py --bare --steps 1 --case lenet-train resnet18-train
fi

((limit += 20)) # for the report
run report 20 report.py "$results"
for name in ${only//,/ }; do
    if ! tail -n "+$((before + 1))" "$parts" | cut -f 1 | grep -qx -- "$name"; then
        echo "gpu.sh: --only: there is no part $name" >&2
        exit 2
    fi
done
"$python" benchmarks/gpu_summary.py "$out" 2>&1 | tee "$out/summary.txt"
