-- uses: flows
-- child_facts: return what a job and the store know about some of its children.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id, children = {{key, 'pending', 'completed', 'ignored' or 'failed'}, …}}
-- Returns for each child {its state or false, its result as JSON or false, its error or false, its hash field `parent` or
-- false}. If they are large, only those of the first children are returned.
local job_key = KEYS[1] .. request.id
local found, read_bytes = {}, 0
for index, child in ipairs(request.children) do
  local child_key, outcome = child[1], child[2]
  local base, id = split(child_key)
  local state = base and exists(open(base), id) and state_of(open(base), id)
  local fields = state and read_fields(child_key, 'parent', 'failedReason') or {}
  local value, reason = false, false
  if outcome == 'completed' then
    value = read_field(job_key .. ':processed', child_key) or false
  elseif outcome == 'ignored' then
    reason = read_field(job_key .. ':failed', child_key) or false
  elseif state == 'failed' then
    reason = fields[2] or false
  end
  found[index] = { state or false, value, reason, fields[1] or false }
  read_bytes = read_bytes + (value and #value or 0) + (reason and #reason or 0)
  if read_bytes >= BYTES_AT_ONCE then
    break
  end
end
return found
