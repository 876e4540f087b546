#!/usr/bin/env bash
# From a bucket to a bucket: a volume on this disk becomes OME-Zarr in the bucket, then its membrane map beside it.
#   BUCKET=s3://lab/em RAW=raw.h5:volumes/raw MODEL=model.safetensors ./run.sh [OPTIONS of volseg predict]
# Stopped or failed: run it again, and it goes on. Credentials: docs/stores.md.
set -euo pipefail
BUCKET=${BUCKET:?name a place, such as s3://lab/em}
RAW=${RAW:?name a volume, such as raw.h5:volumes/raw}
MODEL=${MODEL:-fusionnet-snemi3d}
CLUSTER=${CLUSTER:-local}

volseg convert "$RAW" "$BUCKET/raw.zarr" --cluster "$CLUSTER" --resume
volseg predict "$BUCKET/raw.zarr" "$BUCKET/membrane.zarr" --model "$MODEL" --cluster "$CLUSTER" --resume "$@"
volseg status "$BUCKET/membrane.zarr"
volseg verify "$BUCKET/membrane.zarr" --cluster "$CLUSTER"
