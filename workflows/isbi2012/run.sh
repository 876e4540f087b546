#!/usr/bin/env bash
# ISBI 2012: convert -> train -> predict sections without labels -> train on both -> predict -> evaluate.
# Rerun it after an interruption: it keeps finished steps and resumes the others.
set -euo pipefail
cd "$(dirname "$0")"

# Settings; override them in the environment: MODEL=fusionnet-isbi2012 bash run.sh
MODEL=${MODEL:-runs/fusionnet-isbi2012.safetensors}  # with the name of a packaged model nothing is trained
FIRST=${FIRST-first.toml}                            # the first training; if empty, there is none: FIRST=
RUN=${RUN:-train.toml}                               # the training; select.toml, for trying settings, needs no first
SCORED=${SCORED:-24:30}                              # sections that are not used for training
CLUSTER=${CLUSTER:-local}

[ -e train-volume.zarr ] || volseg convert train-volume.tif train-volume.zarr --voxel-size 50,4,4

case $MODEL in
  *.safetensors)
    if [ -n "$FIRST" ]; then
      [ -e test-volume.zarr ] || volseg convert test-volume.tif test-volume.zarr --voxel-size 50,4,4
      volseg train "$FIRST" --resume
      volseg predict test-volume.zarr teacher.zarr --model runs-first/first.safetensors --orientations all --cluster "$CLUSTER" --resume
    fi
    volseg train "$RUN" --resume
    ;;
esac

volseg predict train-volume.zarr membrane.zarr --model "$MODEL" --roi "$SCORED,:,:" --orientations all --cluster "$CLUSTER" --resume
volseg evaluate membrane.zarr train-labels.tif --roi "$SCORED,:,:" --output scores

echo "To view the result:"
echo volseg view "$PWD/train-volume.zarr" "$PWD/membrane.zarr"
