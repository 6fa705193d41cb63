"""The code that the benchmarks of job queues, `jobs` and `jobs_redis`, share."""
