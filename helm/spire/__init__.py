"""The chart's configurations on a real SPIRE: see helm/spire.sh."""

# What is checked, so that PROMISES.md can name it.
CHECKS = (
    "server and agent start", "the chart's edge runs on what the agent sends", "each service answers Envoy and nobody else",
    "rotations under load drop no request", "the collector knows all clients by name", "who has lost the right is out when its certificate ends",
)
