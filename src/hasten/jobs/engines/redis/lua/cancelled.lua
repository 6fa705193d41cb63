-- uses: queue
-- cancelled: the running jobs whose cancellation was asked for.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
return call('SMEMBERS', KEYS[1] .. 'hasten:cancelled')
