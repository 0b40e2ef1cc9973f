"""A real Kubernetes for tests, without nodes: etcd, an API server and the controllers that clean up."""
