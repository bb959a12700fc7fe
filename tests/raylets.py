"""How clusters of several nodes are started on this machine, a raylet each (``ray.cluster_utils.Cluster``)."""

STORE_BYTES = 80_000_000
# What nodes are started with: one that does not answer is given up after some ten seconds.
QUICK = {
    "RAY_AUTH_MODE": "disabled",  # whatever token an earlier Ray has left on this machine
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}
