#!/usr/bin/env bash
# SNEMI3D, the whole way: convert -> train -> predict -> evaluate -> look.
# Give it again after a stop: what is finished is kept, and what was under way goes on.
set -euo pipefail
cd "$(dirname "$0")"

# What to change; or set it outside: MODEL=fusionnet-snemi3d bash run.sh
MODEL=${MODEL:-runs/fusionnet-snemi3d.safetensors}   # a packaged model's name leaves the training out
RUN=${RUN:-train.toml}                               # the training
SCORED=${SCORED:-80:100}                             # sections that took no part in training
CLUSTER=${CLUSTER:-local}

[ -e train-input.zarr ] || volseg convert train-input.tif train-input.zarr --voxel-size 30,6,6

case $MODEL in
  *.safetensors)
    volseg train "$RUN" --resume
    ;;
esac

volseg predict train-input.zarr membrane.zarr --model "$MODEL" --roi "$SCORED,:,:" --orientations all --cluster "$CLUSTER" --resume
volseg evaluate membrane.zarr train-labels.tif --roi "$SCORED,:,:" --output scores

echo "To look at it:"
echo volseg view "$PWD/train-input.zarr" "$PWD/membrane.zarr"
