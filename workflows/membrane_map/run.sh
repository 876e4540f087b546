#!/usr/bin/env bash
# From image stacks to a scored membrane map: convert -> train -> predict -> evaluate.
# Give it again after a stop: what is finished is kept, and a prediction goes on where it was.
set -euo pipefail
cd "$(dirname "$0")"

# What to change; or set it outside: NEW_RAW=sections/ bash run.sh
TRAIN_RAW=${TRAIN_RAW:-train-raw.tif}  # the labelled sections: a multi-page TIFF, or a folder of sections
NEW_RAW=${NEW_RAW:-new-raw.tif}        # the volume to map
NEW_TRUTH=${NEW_TRUTH-new-labels.tif}  # its ground truth; empty where there is none
VOXEL_NM=${VOXEL_NM:-30,6,6}           # of both, along z,y,x, in nanometres
CLUSTER=${CLUSTER:-local}              # serial, local, or a Dask scheduler: tcp://HOST:8786
# Labels, network and time of the training stand in run.toml.

[ -e train-raw.zarr ] || volseg convert "$TRAIN_RAW" train-raw.zarr --voxel-size "$VOXEL_NM"
volseg train run.toml --resume  # one that is finished has nothing to do

[ -e new-raw.zarr ] || volseg convert "$NEW_RAW" new-raw.zarr --voxel-size "$VOXEL_NM"
volseg predict new-raw.zarr membrane.zarr --model runs/membrane.safetensors --cluster "$CLUSTER" --resume

[ -z "$NEW_TRUTH" ] || volseg evaluate membrane.zarr "$NEW_TRUTH"

echo "To look at it:"
echo volseg view "$PWD/new-raw.zarr" "$PWD/membrane.zarr"
