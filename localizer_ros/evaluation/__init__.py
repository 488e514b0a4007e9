"""How good the answers are: metrics, reports, replays and benchmarks of the pipeline that is shipped."""
