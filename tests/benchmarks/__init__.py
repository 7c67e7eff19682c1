"""How fast kvref is beside Redis: figures that hold on any computer, because each is a ratio from one run.

    python -m tests.benchmarks [commands | types | sorted_sets | idle | memory | all] [--rounds N] [--requests N]
    python -m tests.benchmarks profile            # where the time of pipelined commands goes

Three servers take turns, round after round: redis-server, the *floor* (Python that answers without reading what was
asked) and kvref. A ratio is taken within a round, and the median over the rounds is printed. Nothing fails because
something is slow: a target that is not met says "missed". Linux only: memory is read from /proc.

  servers.py   starts a server, asks the kernel what it costs (processor time, memory), ends it
  floor.py     the constant-reply server
  commands.py  requests per second and processor time per command, by redis-benchmark
  types.py     the same for lists, hashes, sets and sorted sets, with geometric means
  sorted_sets.py  what a sorted set of a million members costs beside one of a thousand
  idle.py      what 10,000 idle connections cost in memory and in the latency of the one that is active
  memory.py    bytes for a small key
  publish.py   what a message to 1,000 subscribers costs
  report.py    rounds, medians, targets, Markdown
"""
