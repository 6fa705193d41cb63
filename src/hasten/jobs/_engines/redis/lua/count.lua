-- uses: queue
-- count: return how many jobs are in each state.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
-- Returns {waiting, active, prioritized, delayed, waiting-children, completed, failed, paused: 1 or 0}.
local base = KEYS[1]
return {
  call('LLEN', base .. 'wait') + call('LLEN', base .. 'paused'), call('LLEN', base .. 'active'),
  call('ZCARD', base .. 'prioritized'), call('ZCARD', base .. 'delayed'), call('ZCARD', base .. 'waiting-children'),
  call('ZCARD', base .. 'completed'), call('ZCARD', base .. 'failed'), call('HEXISTS', base .. 'meta', 'paused'),
}
