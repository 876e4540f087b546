#!/usr/bin/env bash
# From image stacks to an evaluated membrane map: convert -> train -> predict -> evaluate.
# After a stop, run it again: finished steps are skipped, and training and prediction continue.
set -euo pipefail
cd "$(dirname "$0")"

# Settings; also from the environment: NEW_RAW=sections/ bash run.sh
TRAIN_RAW=${TRAIN_RAW:-train-raw.tif}  # labelled sections: a multi-page TIFF, or a folder of sections
NEW_RAW=${NEW_RAW:-new-raw.tif}        # the volume to map
NEW_TRUTH=${NEW_TRUTH-new-labels.tif}  # its ground truth; empty if there is none
VOXEL_NM=${VOXEL_NM:-30,6,6}           # voxel size of both, z,y,x in nanometres
CLUSTER=${CLUSTER:-local}              # serial, local, or a Dask scheduler: tcp://HOST:8786
# Labels, network and duration of the training are set in run.toml.

[ -e train-raw.zarr ] || volseg convert "$TRAIN_RAW" train-raw.zarr --voxel-size "$VOXEL_NM"
volseg train run.toml --resume  # does nothing if the training is finished

[ -e new-raw.zarr ] || volseg convert "$NEW_RAW" new-raw.zarr --voxel-size "$VOXEL_NM"
volseg predict new-raw.zarr membrane.zarr --model runs/membrane.safetensors --cluster "$CLUSTER" --resume

[ -z "$NEW_TRUTH" ] || volseg evaluate membrane.zarr "$NEW_TRUTH"

echo "To view it:"
echo volseg view "$PWD/new-raw.zarr" "$PWD/membrane.zarr"
