"""The chart on a real API server: see helm/cluster.sh."""

# What is checked, so that PROMISES.md can name it. The first four come once for each value set, whose name is before them.
CHECKS = (
    "is accepted without a warning", "runs", "is upgraded from the commit before and rolled back", "leaves nothing",
    "the higher class takes the place of the lower", "the admission policy refuses what breaks each rule",
    "one pod is evicted at a time", "no pod runs on brokers' nodes",
)
