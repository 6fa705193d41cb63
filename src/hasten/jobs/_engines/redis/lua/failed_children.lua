-- uses: queue
-- failed_children: return the keys of some children that have failed for good.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {id, limit}
-- Returns {{keys of ignored ones}, {keys of failed ones}}, each with about limit keys, in any order.
local job_key = KEYS[1] .. request.id
local scanned = read('HSCAN', job_key .. ':failed', 0, 'COUNT', request.limit)
local ignored = {}
for index, text in ipairs(scanned[2] or {}) do
  if index % 2 == 1 then
    ignored[#ignored + 1] = text
  end
end
return { ignored, read('ZRANGE', job_key .. ':unsuccessful', 0, request.limit - 1) }
