#!/usr/bin/env bash
# ISBI 2012, the whole way: convert -> train -> label what has no labels -> train again -> predict -> evaluate -> look.
# Give it again after a stop: what is finished is kept, and what was under way goes on.
set -euo pipefail
cd "$(dirname "$0")"

# What to change; or set it outside: MODEL=fusionnet-isbi2012 bash run.sh
MODEL=${MODEL:-runs/fusionnet-isbi2012.safetensors}  # a packaged model's name leaves the training out
FIRST=${FIRST-first.toml}                            # the first training; none where it is empty: FIRST=
RUN=${RUN:-train.toml}                               # the training; select.toml, which needs no first, tries settings
SCORED=${SCORED:-24:30}                              # sections that took no part in training
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

echo "To look at it:"
echo volseg view "$PWD/train-volume.zarr" "$PWD/membrane.zarr"
