#!/usr/bin/env bash
# A prediction from a bucket to a bucket: plan, predict until the map is complete, verify. Set the three names, and keys:
#   export AWS_PROFILE=lab        # or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL for other stores
#   SOURCE=s3://bucket/raw.zarr TARGET=s3://bucket/membrane.zarr MODEL=model.safetensors workflows/bucket/predict.sh
# Further options, such as --cluster cluster.toml, are passed on. Start it again after any failure.
set -euo pipefail

: "${SOURCE:?s3://BUCKET/NAME of the volume}" "${TARGET:?s3://BUCKET/NAME of the map}" "${MODEL:?a model, as a path}"

volseg predict "$SOURCE" "$TARGET" --model "$MODEL" "$@" --resume
volseg status "$TARGET"
volseg verify "$TARGET"
