-- uses: queue
-- note: store progress and log lines of jobs, in order. Those of jobs that are gone are dropped.
-- KEYS  1 the beginning of the queue's keys
-- ARGV  1 {notes = {{id, value} | {id, line, lines to keep}, …}}
local q = open(KEYS[1])
begin_writing(q)
for _, note in ipairs(request.notes) do
  local id, text, keep = note[1], note[2], note[3]
  local job_key = q.base .. id
  if call('EXISTS', job_key) == 1 then
    if keep then
      call('RPUSH', job_key .. ':logs', text)
      call('LTRIM', job_key .. ':logs', -keep, -1)
    else
      call('HSET', job_key, 'progress', text)
      tell_value(q, text, 'progress', 'jobId', id, 'data', text)
    end
  end
end
close_all()
return 0
