"""What a real cluster does to a job: killed containers, restarted kubelets, drained and stopped nodes."""
