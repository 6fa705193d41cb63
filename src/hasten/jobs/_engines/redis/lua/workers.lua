-- uses: workers
-- workers: return what the running workers have reported.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {}
-- Returns for each worker {when it has reported, in ms; its report}.
local now = server_time()
local reports = {}
local scored = call('ZRANGEBYSCORE', WORKERS, '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES')
for index = 1, #scored, 2 do
  local lifetime, info = string.match(call('HGET', REPORTS, scored[index]) or '', '^(%d+) (.*)$')
  local seen = lifetime and tonumber(scored[index + 1]) - lifetime
  -- A worker that has reported in the future did so before the clock of the server was set back.
  if seen and seen <= now + lifetime then
    reports[#reports + 1] = { seen, info }
  end
end
return reports
