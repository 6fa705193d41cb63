-- uses: queue
-- count_children: count the children of a job.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id}
-- Returns how many are pending, completed, ignored and failed, and the field `hasten:add_calls` of the job or 0.
local job_key = KEYS[1] .. request.id

-- Counts the members of a key. A key of another type counts as empty.
local function count(command, suffix)
  local answer = read(command, job_key .. suffix)
  return type(answer) == 'number' and answer or 0
end

return {
  count('SCARD', ':dependencies'), count('HLEN', ':processed'), count('HLEN', ':failed'),
  count('ZCARD', ':unsuccessful'), whole(read_field(job_key, 'hasten:add_calls')),
}
