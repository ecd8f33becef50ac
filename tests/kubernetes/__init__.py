"""The manifests of infra/kubernetes, rendered and checked without a cluster."""
