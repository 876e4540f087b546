#!/usr/bin/env bash
# From a bucket to a bucket: a volume on this disk becomes OME-Zarr in the bucket, then its membrane map beside it.
#   BUCKET=s3://lab/em RAW=raw.h5:volumes/raw MODEL=model.safetensors ./run.sh
# Stopped or failed: run it again, and it goes on. Credentials: docs/stores.md.
set -euo pipefail
BUCKET=${BUCKET:?name a place, such as s3://lab/em}
RAW=${RAW:?name a volume, such as raw.h5:volumes/raw}
MODEL=${MODEL:-fusionnet-snemi3d}
CLUSTER=${CLUSTER:-local}

volseg convert "$RAW" "$BUCKET/raw.zarr" --cluster "$CLUSTER" --resume
# shellcheck disable=SC2086  # OPTIONS are several words
volseg predict "$BUCKET/raw.zarr" "$BUCKET/membrane.zarr" --model "$MODEL" --cluster "$CLUSTER" --resume ${OPTIONS:-}
volseg status "$BUCKET/membrane.zarr"
volseg verify "$BUCKET/membrane.zarr" --cluster "$CLUSTER"
