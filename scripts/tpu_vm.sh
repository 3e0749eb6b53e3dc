#!/usr/bin/env bash
# Trains on a TPU slice of Google Cloud: creates it, installs this checkout on every host, starts one process on each.
#
#   scripts/tpu_vm.sh NAME ZONE ACCELERATOR BUCKET -- --config=configs/k400_fe.py [--config.KEY=VALUE ...]
#   scripts/tpu_vm.sh kinetics us-west4-a v5litepod-256 my-bucket -- --config=configs/k400_fe.py
#
# ACCELERATOR: v5litepod-256 (v5e:16x16), v5p-512 (256 chips), v6e-256, ...; VERSION below is its runtime.
# BUCKET is mounted on every host as /mnt/bucket, with Cloud Storage FUSE: the dataset is read from BUCKET/data, and the run
# lives in BUCKET/runs/NAME. Run it again after a preemption: the run goes on from its last checkpoint. LIBTPU_INIT_ARGS,
# options of the compiler, goes to the hosts as it is set here.
set -euo pipefail

if [ $# -lt 6 ] || [ "$5" != -- ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2 accelerator=$3 bucket=$4
shift 5

case $accelerator in
  v5litepod-*) version=${VERSION:-v2-alpha-tpuv5-lite} ;;
  v5p-*) version=${VERSION:-v2-alpha-tpuv5} ;;
  v6e-*) version=${VERSION:-v2-alpha-tpuv6e} ;;
  *) version=${VERSION:?"set VERSION to the runtime of $accelerator"} ;;
esac

tpu=(gcloud compute tpus tpu-vm)
if ! "${tpu[@]}" describe "$name" --zone="$zone" >/dev/null 2>&1; then
  "${tpu[@]}" create "$name" --zone="$zone" --accelerator-type="$accelerator" --version="$version" ${SPOT:+--spot}
fi

everywhere() { "${tpu[@]}" ssh "$name" --zone="$zone" --worker=all --command="$1"; }

# What git knows of, as it stands: nothing else of this folder leaves it.
archive=$(mktemp -d)/vivit_jax.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
git -C "$(dirname "$0")/.." ls-files -z | tar -C "$(dirname "$0")/.." --ignore-failed-read --null -T - -czf "$archive"
"${tpu[@]}" scp "$archive" "$name:" --zone="$zone" --worker=all

everywhere "set -e
  mkdir -p vivit_jax && tar -xzf vivit_jax.tar.gz -C vivit_jax
  python3 -m venv venv && . venv/bin/activate && pip install --quiet -e 'vivit_jax[tpu]'
  if ! command -v gcsfuse >/dev/null; then
    echo \"deb https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
    curl -s https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo apt-key add -
    sudo apt-get update -qq && sudo apt-get install -qq -y gcsfuse
  fi
  sudo mkdir -p /mnt/bucket && sudo chown \$USER /mnt/bucket
  mountpoint -q /mnt/bucket || gcsfuse --implicit-dirs $(printf %q "$bucket") /mnt/bucket"

run="${LIBTPU_INIT_ARGS:+LIBTPU_INIT_ARGS=$(printf %q "$LIBTPU_INIT_ARGS") }"
run+="python -m vivit_jax.main --coordinator=auto --workdir=/mnt/bucket/runs/$name --config.data.data_dir=/mnt/bucket/data"
run+=" --config.data.num_workers=${WORKERS:-16}$(printf ' %q' "$@")"
everywhere ". venv/bin/activate && cd vivit_jax && $run"
