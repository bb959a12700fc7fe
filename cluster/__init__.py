"""Ray: workers on the actors of a cluster, connections to it, and its jobs. The only place that imports ray."""
