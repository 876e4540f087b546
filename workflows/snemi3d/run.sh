#!/usr/bin/env bash
# SNEMI3D: convert -> train -> predict -> evaluate.
# Rerun it after an interruption: it keeps finished steps and resumes the others.
set -euo pipefail
cd "$(dirname "$0")"

# Settings; override them in the environment: MODEL=fusionnet-snemi3d bash run.sh
MODEL=${MODEL:-runs/fusionnet-snemi3d.safetensors}   # with the name of a packaged model nothing is trained
RUN=${RUN:-train.toml}                               # the training
SCORED=${SCORED:-80:100}                             # sections that are not used for training
CLUSTER=${CLUSTER:-local}

[ -e train-input.zarr ] || volseg convert train-input.tif train-input.zarr --voxel-size 30,6,6

case $MODEL in
  *.safetensors)
    volseg train "$RUN" --resume
    ;;
esac

volseg predict train-input.zarr membrane.zarr --model "$MODEL" --roi "$SCORED,:,:" --orientations all --cluster "$CLUSTER" --resume
volseg evaluate membrane.zarr train-labels.tif --roi "$SCORED,:,:" --output scores

echo "To view the result:"
echo volseg view "$PWD/train-input.zarr" "$PWD/membrane.zarr"
