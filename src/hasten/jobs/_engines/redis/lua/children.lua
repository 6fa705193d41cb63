-- uses: states
-- children: return the keys of the children of a job.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id}
-- Returns {{keys of pending children}, {of completed ones}, {of ignored ones}, {of failed ones}, the field
-- `hasten:children` or false: see lib/flow_adding.lua}.
local job_key = KEYS[1] .. request.id
return {
  read('SMEMBERS', job_key .. ':dependencies'),
  read('HKEYS', job_key .. ':processed'),
  read('HKEYS', job_key .. ':failed'),
  read('ZRANGE', job_key .. ':unsuccessful', 0, -1),
  read_field(job_key, 'hasten:children') or false,
}
