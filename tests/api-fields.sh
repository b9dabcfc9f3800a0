#!/usr/bin/env bash
# Writes specs/src/body/fields.txt anew: which fields the messages of Kubernetes' API have in protobuf, and what they are in JSON.
# It comes from the API's published types, of the version that tests/api-fields/go.mod names. What it leads to is proved with
# invented objects of every kind: each must be shown as those types' own JSON. Some of them stay as a unit test's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

table=specs/src/body/fields.txt
samples=specs/src/body/tests/samples.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd tests/api-fields && go build -o "$work/api-fields" .)
"$work/api-fields" fields > "$work/fields.txt"
"$work/api-fields" samples 30 > "$work/samples.txt"
mv "$work/fields.txt" $table
cargo run --quiet --package knark-specs --example body-samples < "$work/samples.txt"
for kind in 'v1 Secret' 'v1 ConfigMap' 'v1 Service' 'v1 Event' 'v1 Status' 'v1 DeleteOptions' 'v1 PodList' 'apps/v1 ControllerRevision' \
  'apps/v1 Deployment' 'policy/v1 PodDisruptionBudget' 'coordination.k8s.io/v1 Lease' 'authentication.k8s.io/v1 TokenReview' \
  'authentication.k8s.io/v1 TokenRequest' 'rbac.authorization.k8s.io/v1 Role' 'apiextensions.k8s.io/v1 CustomResourceDefinition' \
  'apiregistration.k8s.io/v1 APIService' 'autoscaling/v2 HorizontalPodAutoscaler'; do
  # The empty one, and one of a middle length.
  grep "^$kind " "$work/samples.txt" | awk 'NR == 1 { print } length < 2500 && length > length(best) { best = $0 } END { print best }'
done > $samples
echo "$table: $(grep --count '^: ' $table) messages; $(wc --lines < $samples) of $(wc --lines < "$work/samples.txt") samples are in $samples" >&2
